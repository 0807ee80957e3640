-- What happened to services and configuration. ticks and rest are the id: a UUID of
-- version 1, of which ticks is the time in steps of 100 ns since 1582-10-15 and rest the
-- last eight bytes. seq counts the events of a namespace in the order of their commits.
CREATE TABLE feed (
    namespace text COLLATE "C" NOT NULL,
    ticks     bigint NOT NULL,
    rest      bytea NOT NULL,
    seq       bigint NOT NULL,
    type      text COLLATE "C" NOT NULL,
    size      bigint NOT NULL,
    payload   bytea NOT NULL,
    PRIMARY KEY (namespace, ticks, rest)
);

CREATE UNIQUE INDEX feed_seq ON feed (namespace, seq);

-- How far each namespace has come, and up to where events were removed.
CREATE TABLE feed_heads (
    namespace    text COLLATE "C" NOT NULL PRIMARY KEY,
    seq          bigint NOT NULL,
    ticks        bigint NOT NULL,
    pruned_seq   bigint NOT NULL,
    pruned_ticks bigint NOT NULL
);
