-- Configuration values as they are now.
CREATE TABLE config_values (
    namespace  TEXT NOT NULL,
    id         TEXT NOT NULL,
    json       INTEGER NOT NULL,
    revision   INTEGER NOT NULL,
    author     TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    size       INTEGER NOT NULL,
    value      BLOB NOT NULL,
    PRIMARY KEY (namespace, id)
) STRICT;

-- Each change of one, in the order of their commits. restored is the revision that a
-- rollback brought back, n counts the changes of the id, total their bytes.
CREATE TABLE config_history (
    namespace  TEXT NOT NULL,
    revision   INTEGER NOT NULL,
    id         TEXT NOT NULL,
    removed    INTEGER NOT NULL,
    json       INTEGER NOT NULL,
    restored   INTEGER NOT NULL,
    n          INTEGER NOT NULL,
    total      INTEGER NOT NULL,
    author     TEXT NOT NULL,
    updated_at INTEGER NOT NULL,
    size       INTEGER NOT NULL,
    value      BLOB NOT NULL,
    PRIMARY KEY (namespace, revision)
) STRICT;

CREATE INDEX config_history_id ON config_history (namespace, id, revision);
CREATE INDEX config_history_age ON config_history (namespace, updated_at);

-- How far each namespace has come, the highest revision that history has lost, and what
-- its values are together.
CREATE TABLE config_heads (
    namespace  TEXT NOT NULL PRIMARY KEY,
    revision   INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    forgotten  INTEGER NOT NULL,
    count      INTEGER NOT NULL,
    bytes      INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
