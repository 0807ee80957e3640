package config

import (
	"context"
	"errors"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/server/internal/tx"
)

// The batches in which old revisions are removed, and the pause between two, in which
// other writes find room.
const (
	forgetBatch = 200
	forgetPause = 20 * time.Millisecond
)

// maintain removes history that is too old, until ctx ends.
func (v *Values) maintain(ctx context.Context) {
	timer := v.cfg.Clock.NewTimer(jitter(v.cfg.Sweep))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C():
		}
		if err := v.forget(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, tx.ErrClosed) {
			v.cfg.Log.Warn("old history of configuration could not be removed; it is tried again", "error", err)
		}
		timer.Reset(jitter(v.cfg.Sweep))
	}
}

// forget removes the revisions of all namespaces that are older than the retention.
func (v *Values) forget(ctx context.Context) error {
	before := v.cfg.Clock.Now().Add(-v.cfg.Retention)
	var all []string
	err := v.cfg.DB.Read(ctx, func(t tx.Tx) (err error) {
		all, err = v.cfg.Storage.ConfigNamespaces(t)
		return err
	})
	if err != nil {
		return err
	}
	for _, namespace := range all {
		for n := forgetBatch; n == forgetBatch; {
			if n, err = v.forgetSome(ctx, namespace, before); err != nil {
				return err
			}
			v.stats.forgotten.Add(uint64(n))
			if n == forgetBatch && !pause(ctx, v.cfg.Clock, forgetPause) {
				return nil
			}
		}
	}
	return nil
}

func (v *Values) forgetSome(ctx context.Context, namespace string, before time.Time) (n int, err error) {
	err = v.cfg.DB.Write(ctx, func(t tx.Tx) error {
		h, err := v.cfg.Storage.LockConfig(t, namespace)
		if err != nil {
			return err
		}
		var highest int64
		n, highest, err = v.cfg.Storage.ForgetConfig(t, namespace, before, forgetBatch)
		if err != nil || highest <= h.Forgotten {
			return err
		}
		h.Forgotten = highest
		return v.cfg.Storage.PutConfigHead(t, namespace, h)
	})
	return n, err
}

// pause waits; false: ctx has ended.
func pause(ctx context.Context, c clock.Clock, d time.Duration) bool {
	timer := c.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C():
		return true
	case <-ctx.Done():
		return false
	}
}
