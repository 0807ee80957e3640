-- Calls with an idempotency key. state: 0 running, 1 answered, 2 answered and too large to
-- be kept, 3 open (it may have run), 4 released (nobody began it). fence is another with
-- every claim. author is the process that made the claim.
CREATE TABLE idempotency (
    namespace    TEXT NOT NULL,
    caller       TEXT NOT NULL,
    callee       TEXT NOT NULL,
    method       TEXT NOT NULL,
    key          TEXT NOT NULL,
    business_key TEXT NOT NULL,
    request_id   TEXT NOT NULL,
    trace        TEXT NOT NULL,
    body_hash    BLOB NOT NULL,
    state        INTEGER NOT NULL,
    once         INTEGER NOT NULL,
    fence        INTEGER NOT NULL,
    instance     TEXT NOT NULL,
    attempt      INTEGER NOT NULL,
    claimed_at   INTEGER NOT NULL,
    deadline     INTEGER NOT NULL,
    answered_at  INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    code         TEXT NOT NULL,
    answer_bytes INTEGER NOT NULL,
    answer       BLOB NOT NULL,
    revision     INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    author       TEXT NOT NULL,
    PRIMARY KEY (namespace, caller, callee, method, key)
) STRICT;

CREATE INDEX idempotency_expires_at ON idempotency (expires_at);
CREATE INDEX idempotency_key ON idempotency (key);
CREATE INDEX idempotency_business_key ON idempotency (business_key) WHERE business_key <> '';

-- Processes that run calls with a key, and until when they are alive for sure. Those that
-- have a store for themselves are not among them.
CREATE TABLE idempotency_owners (
    id           TEXT NOT NULL PRIMARY KEY,
    alive_until  INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
