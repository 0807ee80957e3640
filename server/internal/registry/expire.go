package registry

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/server/internal/tx"
)

const (
	// expiryBatch bounds the instances that end in one transaction.
	expiryBatch = 256
	// expiryRetry is when an end that could not be written is tried again.
	expiryRetry = 5 * time.Second
	// purgeEvery is how often old tombstones are removed.
	purgeEvery = time.Hour
)

// run ends leases that have run out until ctx is done.
func (r *Registry) run(ctx context.Context) {
	timer := r.clock.NewTimer(r.cfg.Tick)
	defer timer.Stop()
	purge := r.clock.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C():
		}
		now := r.clock.Now()
		r.expire(ctx, now)
		if !now.Before(purge) {
			purge = now.Add(purgeEvery - rand.N(purgeEvery/10)) //nolint:gosec // nodes that share a store take turns
			r.purge(ctx, now)
		}
		timer.Reset(r.cfg.Tick)
	}
}

// expire ends the leases that have run out by now, unless they are held back.
func (r *Registry) expire(ctx context.Context, now time.Time) {
	at := r.time.turn(now)
	r.unhint(now, at)
	list := r.guarded(r.lapsed(at), at) //nolint:contextcheck // an alarm is the board's, not the caller's
	for len(list) > 0 && ctx.Err() == nil {
		n := min(len(list), expiryBatch)
		r.expireBatch(ctx, list[:n], now, at)
		list = list[n:]
	}
	for _, e := range list {
		r.later(e)
	}
}

func (r *Registry) expireBatch(ctx context.Context, list []*entry, now time.Time, at time.Duration) {
	r.mu.RLock()
	reloads := r.reloads
	r.mu.RUnlock()
	var ending []*entry
	var unlocks []func()
	defer func() {
		for _, unlock := range unlocks {
			unlock()
		}
	}()
	for _, e := range list {
		unlock, ok := r.keys.try(e.key)
		if !ok {
			// Somebody is changing it: it may be on its way back.
			r.schedule(e)
			continue
		}
		unlocks = append(unlocks, unlock)
		if r.lapse(e, at) {
			ending = append(ending, e)
		}
	}
	if len(ending) == 0 {
		return
	}
	if err := r.end(ctx, ending, reloads, catalog.Expired, now); err != nil {
		r.reprieve(ctx, ending, err)
		return
	}
	r.ended(ending, at)
	r.stats.expirations.Add(uint64(len(ending)))
	r.logExpired(ending)
}

// reprieve puts leases back that could not be ended. Where it is unknown whether the
// rows are gone, only a new registration or a Reload brings the instances back.
func (r *Registry) reprieve(ctx context.Context, list []*entry, err error) {
	for _, e := range list {
		if !errors.Is(err, tx.ErrOutcomeUnknown) {
			e.lease.ending.Store(false)
		}
		r.later(e)
	}
	if ctx.Err() == nil && !errors.Is(err, errReloaded) {
		r.log.Warn("leases that have run out could not be ended; trying again",
			"instances", len(list), "in", expiryRetry, "error", err)
	}
}

// maxLogged bounds the lines about one batch.
const maxLogged = 16

func (r *Registry) logExpired(list []*entry) {
	for i, e := range list {
		if i == maxLogged {
			r.log.Info("more instances are gone: their leases ran out", "instances", len(list)-i)
			return
		}
		r.log.Info("an instance is gone: its lease ran out",
			"namespace", e.namespace, "service", e.service.name, "instance", e.id, "ttl", time.Duration(e.lease.ttl.Load()))
	}
}

// lapse reports whether the lease of e is to end, which from then on only a new
// registration stops. A live session holds the lease.
func (r *Registry) lapse(e *entry, at time.Duration) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.entries[e.key] != e {
		return false
	}
	if e.session != 0 {
		e.lease.extend(at)
	}
	if time.Duration(e.lease.deadline.Load()) > at {
		r.schedule(e)
		return false
	}
	e.lease.ending.Store(true)
	return true
}

// later puts a lease that has run out back into the wheel.
func (r *Registry) later(e *entry) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.entries[e.key] != e {
		return
	}
	r.wheelMu.Lock()
	defer r.wheelMu.Unlock()
	now := r.time.at(r.clock.Now())
	r.leases.Set(&e.lease.timer, r.tickAfter(max(now+expiryRetry, time.Duration(e.lease.deadline.Load()))))
}

// purge removes old tombstones.
func (r *Registry) purge(ctx context.Context, now time.Time) {
	err := r.cfg.DB.Write(ctx, func(t tx.Tx) error {
		_, err := r.cfg.Storage.DeleteTombstonesBefore(t, stored(now.Add(-r.cfg.KeepTombstones)))
		return err
	})
	if err != nil && ctx.Err() == nil {
		r.log.Warn("old tombstones could not be removed; trying again", "in", purgeEvery, "error", err)
	}
}
