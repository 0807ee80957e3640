-- Calls with an idempotency key. state: 0 running, 1 answered, 2 answered and too large to
-- be kept, 3 open.
CREATE TABLE idempotency (
    namespace    text COLLATE "C" NOT NULL,
    caller       text COLLATE "C" NOT NULL,
    callee       text COLLATE "C" NOT NULL,
    method       text COLLATE "C" NOT NULL,
    key          text COLLATE "C" NOT NULL,
    business_key text COLLATE "C" NOT NULL,
    request_id   text COLLATE "C" NOT NULL,
    trace        text COLLATE "C" NOT NULL,
    body_hash    bytea NOT NULL,
    state        bigint NOT NULL,
    fence        bigint NOT NULL,
    instance     text COLLATE "C" NOT NULL,
    attempt      bigint NOT NULL,
    claimed_at   bigint NOT NULL,
    deadline     bigint NOT NULL,
    answered_at  bigint NOT NULL,
    expires_at   bigint NOT NULL,
    answer       bytea NOT NULL,
    revision     bigint NOT NULL,
    updated_at   bigint NOT NULL,
    author       text COLLATE "C" NOT NULL,
    PRIMARY KEY (namespace, caller, callee, method, key)
);

CREATE INDEX idempotency_expires_at ON idempotency (expires_at);
CREATE INDEX idempotency_key ON idempotency (namespace, key);
CREATE INDEX idempotency_business_key ON idempotency (namespace, business_key) WHERE business_key <> '';
