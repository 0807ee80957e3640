package feed

import (
	"context"
	"errors"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/server/internal/tx"
)

// The batches in which old events are removed, and the pause between two, in which other
// writes find room.
const (
	pruneBatch = 500
	prunePause = 20 * time.Millisecond
)

// maintain removes what is too old, until ctx ends.
func (f *Feed) maintain(ctx context.Context) {
	timer := f.cfg.Clock.NewTimer(jitter(f.cfg.Sweep))
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-timer.C():
		}
		if err := f.prune(ctx); err != nil && ctx.Err() == nil && !errors.Is(err, tx.ErrClosed) {
			f.cfg.Log.Warn("old events could not be removed; it is tried again", "error", err)
		}
		timer.Reset(jitter(f.cfg.Sweep))
	}
}

// prune removes the events of all namespaces that are older than the retention.
func (f *Feed) prune(ctx context.Context) error {
	before := ticks(f.cfg.Clock.Now().Add(-f.cfg.Retention))
	var all []string
	err := f.cfg.DB.Read(ctx, func(t tx.Tx) (err error) {
		all, err = f.cfg.Storage.FeedNamespaces(t)
		return err
	})
	for _, namespace := range all {
		for n := pruneBatch; err == nil && n == pruneBatch; {
			err = f.cfg.DB.Write(ctx, func(t tx.Tx) (err error) {
				n, err = f.cfg.Storage.PruneEvents(t, namespace, before, pruneBatch)
				return err
			})
			if err != nil {
				break
			}
			f.stats.pruned.Add(uint64(n))
			if n == pruneBatch && !pause(ctx, f.cfg.Clock, prunePause) {
				return nil
			}
		}
	}
	return err
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
