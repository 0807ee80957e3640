-- Services of the REST registry. spec is JSON. deadline and last_seen are as of the last
-- write: heartbeats are not written.
CREATE TABLE rest_services (
    namespace  text COLLATE "C" NOT NULL,
    id         text COLLATE "C" NOT NULL,
    spec       bytea NOT NULL,
    key_id     text COLLATE "C" NOT NULL,
    created_at bigint NOT NULL,
    deadline   bigint NOT NULL,
    last_seen  bigint NOT NULL,
    revision   bigint NOT NULL,
    updated_at bigint NOT NULL,
    author     text COLLATE "C" NOT NULL,
    PRIMARY KEY (namespace, id)
);
