CREATE TABLE instances (
    namespace     TEXT    NOT NULL,
    id            TEXT    NOT NULL,
    service       TEXT    NOT NULL,
    key_id        TEXT    NOT NULL,
    door          TEXT    NOT NULL,
    declaration   BLOB    NOT NULL,
    draining      INTEGER NOT NULL,
    registered_at INTEGER NOT NULL,
    owner_node    TEXT    NOT NULL DEFAULT '',
    owner_epoch   INTEGER NOT NULL DEFAULT 0,
    revision      INTEGER NOT NULL,
    updated_at    INTEGER NOT NULL,
    author        TEXT    NOT NULL,
    PRIMARY KEY (namespace, id)
) STRICT;

CREATE TABLE tombstones (
    namespace TEXT    NOT NULL,
    id        TEXT    NOT NULL,
    service   TEXT    NOT NULL,
    reason    TEXT    NOT NULL,
    gone_at   INTEGER NOT NULL,
    PRIMARY KEY (namespace, id)
) STRICT, WITHOUT ROWID;

CREATE INDEX tombstones_gone_at ON tombstones (gone_at);
