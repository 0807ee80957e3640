-- What happened to services and configuration. ticks and rest are the id: a UUID of
-- version 1, of which ticks is the time in steps of 100 ns since 1582-10-15 and rest the
-- last eight bytes. seq counts the events of a namespace in the order of their commits.
CREATE TABLE feed (
    namespace TEXT NOT NULL,
    ticks     INTEGER NOT NULL,
    rest      BLOB NOT NULL,
    seq       INTEGER NOT NULL,
    type      TEXT NOT NULL,
    size      INTEGER NOT NULL,
    payload   BLOB NOT NULL,
    PRIMARY KEY (namespace, ticks, rest)
) STRICT;

CREATE UNIQUE INDEX feed_seq ON feed (namespace, seq);

-- How far each namespace has come, and up to where events were removed.
CREATE TABLE feed_heads (
    namespace    TEXT NOT NULL PRIMARY KEY,
    seq          INTEGER NOT NULL,
    ticks        INTEGER NOT NULL,
    pruned_seq   INTEGER NOT NULL,
    pruned_ticks INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
