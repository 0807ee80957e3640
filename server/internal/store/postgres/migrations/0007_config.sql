-- Configuration values as they are now.
CREATE TABLE config_values (
    namespace  text COLLATE "C" NOT NULL,
    id         text COLLATE "C" NOT NULL,
    json       boolean NOT NULL,
    revision   bigint NOT NULL,
    author     text COLLATE "C" NOT NULL,
    updated_at bigint NOT NULL,
    size       bigint NOT NULL,
    value      bytea NOT NULL,
    PRIMARY KEY (namespace, id)
);

-- Each change of one, in the order of their commits. restored is the revision that a
-- rollback brought back, n counts the changes of the id, total their bytes.
CREATE TABLE config_history (
    namespace  text COLLATE "C" NOT NULL,
    revision   bigint NOT NULL,
    id         text COLLATE "C" NOT NULL,
    removed    boolean NOT NULL,
    json       boolean NOT NULL,
    restored   bigint NOT NULL,
    n          bigint NOT NULL,
    total      bigint NOT NULL,
    author     text COLLATE "C" NOT NULL,
    updated_at bigint NOT NULL,
    size       bigint NOT NULL,
    value      bytea NOT NULL,
    PRIMARY KEY (namespace, revision)
);

CREATE INDEX config_history_id ON config_history (namespace, id, revision);
CREATE INDEX config_history_age ON config_history (namespace, updated_at);

-- How far each namespace has come, the highest revision that history has lost, and what
-- its values are together.
CREATE TABLE config_heads (
    namespace  text COLLATE "C" NOT NULL PRIMARY KEY,
    revision   bigint NOT NULL,
    updated_at bigint NOT NULL,
    forgotten  bigint NOT NULL,
    count      bigint NOT NULL,
    bytes      bigint NOT NULL
);
