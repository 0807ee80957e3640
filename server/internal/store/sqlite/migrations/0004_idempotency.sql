-- Calls with an idempotency key. state: 0 running, 1 answered, 2 answered and too large to
-- be kept, 3 open.
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
    fence        INTEGER NOT NULL,
    instance     TEXT NOT NULL,
    attempt      INTEGER NOT NULL,
    claimed_at   INTEGER NOT NULL,
    deadline     INTEGER NOT NULL,
    answered_at  INTEGER NOT NULL,
    expires_at   INTEGER NOT NULL,
    answer       BLOB NOT NULL,
    revision     INTEGER NOT NULL,
    updated_at   INTEGER NOT NULL,
    author       TEXT NOT NULL,
    PRIMARY KEY (namespace, caller, callee, method, key)
) STRICT, WITHOUT ROWID;

CREATE INDEX idempotency_expires_at ON idempotency (expires_at);
CREATE INDEX idempotency_key ON idempotency (namespace, key);
CREATE INDEX idempotency_business_key ON idempotency (namespace, business_key) WHERE business_key <> '';
