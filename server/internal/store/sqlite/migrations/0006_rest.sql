-- Services of the REST registry. spec is JSON. deadline and last_seen are as of the last
-- write: heartbeats are not written.
CREATE TABLE rest_services (
    namespace  TEXT NOT NULL,
    id         TEXT NOT NULL,
    spec       BLOB NOT NULL,
    key_id     TEXT NOT NULL,
    created_at INTEGER NOT NULL,
    deadline   INTEGER NOT NULL,
    last_seen  INTEGER NOT NULL,
    revision   INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    author     TEXT NOT NULL,
    PRIMARY KEY (namespace, id)
) STRICT;
