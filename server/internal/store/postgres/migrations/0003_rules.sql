-- What operators have laid down: kind is policy, capability, limit or transport, spec is
-- JSON. Of one kind, a namespace has one rule for each target.
CREATE TABLE rules (
    namespace  text COLLATE "C" NOT NULL,
    kind       text COLLATE "C" NOT NULL,
    id         text COLLATE "C" NOT NULL,
    target     text COLLATE "C" NOT NULL,
    spec       bytea NOT NULL,
    revision   bigint NOT NULL,
    updated_at bigint NOT NULL,
    author     text COLLATE "C" NOT NULL,
    PRIMARY KEY (namespace, kind, id)
);

CREATE UNIQUE INDEX rules_target ON rules (namespace, kind, target);

-- What shadow rules would have denied.
CREATE TABLE shadow_denials (
    namespace text COLLATE "C" NOT NULL,
    service   text COLLATE "C" NOT NULL,
    action    text COLLATE "C" NOT NULL,
    caller    text COLLATE "C" NOT NULL,
    callee    text COLLATE "C" NOT NULL,
    target    text COLLATE "C" NOT NULL,
    count     bigint NOT NULL,
    first_at  bigint NOT NULL,
    last_at   bigint NOT NULL,
    PRIMARY KEY (namespace, service, action, caller, callee, target)
);
