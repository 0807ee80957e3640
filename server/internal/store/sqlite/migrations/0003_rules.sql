-- What operators have laid down: kind is policy, capability, limit or transport, spec is
-- JSON. Of one kind, a namespace has one rule for each target.
CREATE TABLE rules (
    namespace  TEXT NOT NULL,
    kind       TEXT NOT NULL,
    id         TEXT NOT NULL,
    target     TEXT NOT NULL,
    spec       BLOB NOT NULL,
    revision   INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    author     TEXT NOT NULL,
    PRIMARY KEY (namespace, kind, id)
) STRICT, WITHOUT ROWID;

CREATE UNIQUE INDEX rules_target ON rules (namespace, kind, target);

-- What shadow rules would have denied.
CREATE TABLE shadow_denials (
    namespace TEXT NOT NULL,
    service   TEXT NOT NULL,
    action    TEXT NOT NULL,
    caller    TEXT NOT NULL,
    callee    TEXT NOT NULL,
    target    TEXT NOT NULL,
    count     INTEGER NOT NULL,
    first_at  INTEGER NOT NULL,
    last_at   INTEGER NOT NULL,
    PRIMARY KEY (namespace, service, action, caller, callee, target)
) STRICT, WITHOUT ROWID;
