package runtime

import (
	"context"

	"telford.dev/telford/server/internal/config"
	"telford.dev/telford/server/internal/feed"
)

// startFeed begins the record of what happens to services and configuration.
func (r *Runtime) startFeed(ctx context.Context) (err error) {
	s := r.built.store
	r.built.feed, err = feed.Open(feed.Config{
		DB: s, Storage: s, Namespaces: r.built.authority, Clock: s.Clock(), Log: r.part("feed"), Shared: r.cfg.Postgres(),
	})
	if err != nil {
		return err
	}
	r.built.authority.AddTenant(r.built.feed)
	return r.built.feed.Start(ctx)
}

// startConfig begins to serve the configuration.
func (r *Runtime) startConfig(ctx context.Context) (err error) {
	s := r.built.store
	r.built.config, err = config.Open(config.Config{
		DB: s, Storage: s, Feed: r.built.feed, Namespaces: r.built.authority, Clock: s.Clock(), Log: r.part("config"), Shared: r.cfg.Postgres(),
	})
	if err != nil {
		return err
	}
	r.built.authority.AddTenant(r.built.config)
	return r.built.config.Start(ctx)
}
