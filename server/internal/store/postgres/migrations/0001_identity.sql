-- Instants are microseconds since 1970 UTC; 0 is none.

CREATE TABLE meta (
    name       text COLLATE "C" NOT NULL PRIMARY KEY,
    value      bytea NOT NULL,
    revision   bigint NOT NULL,
    updated_at bigint NOT NULL,
    author     text COLLATE "C" NOT NULL DEFAULT ''
);

CREATE TABLE counters (
    name  text COLLATE "C" NOT NULL PRIMARY KEY,
    value bigint NOT NULL
);

CREATE TABLE namespaces (
    name       text COLLATE "C" NOT NULL PRIMARY KEY,
    account    bigint NOT NULL,
    created_at bigint NOT NULL,
    revision   bigint NOT NULL DEFAULT 1,
    updated_at bigint NOT NULL,
    author     text COLLATE "C" NOT NULL DEFAULT ''
);

CREATE UNIQUE INDEX namespaces_account ON namespaces (account) WHERE account <> 0;

CREATE TABLE keys (
    namespace  text COLLATE "C" NOT NULL,
    id         text COLLATE "C" NOT NULL,
    service    text COLLATE "C" NOT NULL,
    kind       text COLLATE "C" NOT NULL,
    name       text COLLATE "C" NOT NULL,
    secret_mac bytea NOT NULL,
    created_at bigint NOT NULL,
    expires_at bigint NOT NULL,
    revoked_at bigint NOT NULL,
    revision   bigint NOT NULL,
    updated_at bigint NOT NULL,
    author     text COLLATE "C" NOT NULL,
    PRIMARY KEY (namespace, id)
);

CREATE UNIQUE INDEX keys_id ON keys (id);

-- The id of an instance begins with its namespace; key ids are unique in the cluster.
CREATE TABLE revocations (
    kind       text COLLATE "C" NOT NULL,
    id         text COLLATE "C" NOT NULL,
    revoked_at bigint NOT NULL,
    not_after  bigint NOT NULL,
    reason     text COLLATE "C" NOT NULL,
    revision   bigint NOT NULL,
    updated_at bigint NOT NULL,
    author     text COLLATE "C" NOT NULL,
    PRIMARY KEY (kind, id)
);
