package runtime

import (
	"context"
	"time"

	"telford.dev/telford/server/internal/idempotency"
)

// The bounds of Config.IdempotencyLifetime.
const (
	minIdempotencyLifetime = time.Second
	maxIdempotencyLifetime = 90 * 24 * time.Hour
)

// startIdempotency opens what calls with idempotency keys go through.
func (r *Runtime) startIdempotency(ctx context.Context) (err error) {
	b := &r.built
	b.keys, err = idempotency.New(idempotency.Config{
		DB: b.store, Storage: b.store, Clock: b.store.Clock(), Local: r.clock, Log: r.part("idempotency"),
		Lifetime: r.cfg.IdempotencyLifetime, Exclusive: !r.cfg.Postgres(),
		Alive: func(namespace, instance string) bool {
			_, err := b.registry.Get(namespace, instance)
			return err == nil
		},
	})
	if err != nil {
		return err
	}
	b.authority.AddTenant(b.keys)
	return b.keys.Start(ctx)
}

// leaveKeys says that what is cut off from now on is cut off by this node, and goes on at
// the instances perhaps.
func (r *Runtime) leaveKeys() {
	if r.built.keys != nil {
		r.built.keys.Leave()
	}
}
