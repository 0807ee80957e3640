-- Calls with an idempotency key. state: 0 running, 1 answered, 2 answered and too large to
-- be kept, 3 open (it may have run), 4 released (nobody began it). fence is another with
-- every claim. author is the process that made the claim.
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
    once         boolean NOT NULL,
    fence        bigint NOT NULL,
    instance     text COLLATE "C" NOT NULL,
    attempt      bigint NOT NULL,
    claimed_at   bigint NOT NULL,
    deadline     bigint NOT NULL,
    answered_at  bigint NOT NULL,
    expires_at   bigint NOT NULL,
    code         text COLLATE "C" NOT NULL,
    answer_bytes bigint NOT NULL,
    answer       bytea NOT NULL,
    revision     bigint NOT NULL,
    updated_at   bigint NOT NULL,
    author       text COLLATE "C" NOT NULL,
    PRIMARY KEY (namespace, caller, callee, method, key)
);

CREATE INDEX idempotency_expires_at ON idempotency (expires_at);
CREATE INDEX idempotency_key ON idempotency (key);
CREATE INDEX idempotency_business_key ON idempotency (business_key) WHERE business_key <> '';

-- Processes that run calls with a key, and until when they are alive for sure. Those that
-- have a store for themselves are not among them.
CREATE TABLE idempotency_owners (
    id           text COLLATE "C" NOT NULL PRIMARY KEY,
    alive_until  bigint NOT NULL
);
