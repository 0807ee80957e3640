CREATE TABLE instances (
    namespace     text COLLATE "C" NOT NULL,
    id            text COLLATE "C" NOT NULL,
    service       text COLLATE "C" NOT NULL,
    key_id        text COLLATE "C" NOT NULL,
    door          text COLLATE "C" NOT NULL,
    declaration   bytea NOT NULL,
    draining      boolean NOT NULL,
    registered_at bigint NOT NULL,
    owner_node    text COLLATE "C" NOT NULL DEFAULT '',
    owner_epoch   bigint NOT NULL DEFAULT 0,
    revision      bigint NOT NULL,
    updated_at    bigint NOT NULL,
    author        text COLLATE "C" NOT NULL,
    PRIMARY KEY (namespace, id)
);

CREATE TABLE tombstones (
    namespace text COLLATE "C" NOT NULL,
    id        text COLLATE "C" NOT NULL,
    service   text COLLATE "C" NOT NULL,
    reason    text COLLATE "C" NOT NULL,
    gone_at   bigint NOT NULL,
    PRIMARY KEY (namespace, id)
);

CREATE INDEX tombstones_gone_at ON tombstones (gone_at);
