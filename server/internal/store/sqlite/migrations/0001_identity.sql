-- Instants are microseconds since 1970 UTC; 0 is none.

CREATE TABLE meta (
    name       TEXT    NOT NULL PRIMARY KEY,
    value      BLOB    NOT NULL,
    revision   INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    author     TEXT    NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;

CREATE TABLE counters (
    name  TEXT    NOT NULL PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;

CREATE TABLE namespaces (
    name       TEXT    NOT NULL PRIMARY KEY,
    account    INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    revision   INTEGER NOT NULL DEFAULT 1,
    updated_at INTEGER NOT NULL,
    author     TEXT    NOT NULL DEFAULT ''
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX namespaces_account ON namespaces (account) WHERE account <> 0;

CREATE TABLE keys (
    namespace  TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    service    TEXT    NOT NULL,
    kind       TEXT    NOT NULL,
    name       TEXT    NOT NULL,
    secret_mac BLOB    NOT NULL,
    created_at INTEGER NOT NULL,
    expires_at INTEGER NOT NULL,
    revoked_at INTEGER NOT NULL,
    revision   INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    author     TEXT    NOT NULL,
    PRIMARY KEY (namespace, id)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX keys_id ON keys (id);

-- The id of an instance begins with its namespace; key ids are unique in the cluster.
CREATE TABLE revocations (
    kind       TEXT    NOT NULL,
    id         TEXT    NOT NULL,
    revoked_at INTEGER NOT NULL,
    not_after  INTEGER NOT NULL,
    reason     TEXT    NOT NULL,
    revision   INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    author     TEXT    NOT NULL,
    PRIMARY KEY (kind, id)
) STRICT, WITHOUT ROWID;
