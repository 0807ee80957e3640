package idempotency

import (
	"context"
	"errors"
	"time"

	"telford.dev/telford/server/internal/tx"
)

// The batches in which expired records are deleted, and the pause between two, in which
// other writes find room.
const (
	sweepBatch = 500
	sweepPause = 20 * time.Millisecond
)

// maintain deletes what has expired and keeps the lease alive, until Stop.
func (k *Keys) maintain(done chan struct{}) {
	defer close(done)
	sweep := k.clock.NewTimer(k.jitter(k.cfg.Sweep))
	defer sweep.Stop()
	lease := k.clock.NewTimer(k.jitter(k.cfg.Lease / 3))
	defer lease.Stop()
	for {
		select {
		case <-k.base.Done():
			return
		case <-sweep.C():
			k.again(k.sweep(k.base), "delete expired keys")
			sweep.Reset(k.jitter(k.cfg.Sweep))
		case <-lease.C():
			k.again(k.renew(k.base), "renew the lease of this process")
			lease.Reset(k.jitter(k.cfg.Lease / 3))
		}
	}
}

// jitter returns about d, so that processes that started together do not work together.
func (k *Keys) jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + k.cfg.Rand()/5))
}

// again logs what is tried again later.
func (k *Keys) again(err error, what string) {
	if err != nil && k.base.Err() == nil && !errors.Is(err, tx.ErrClosed) {
		k.cfg.Log.Warn("the upkeep of the idempotency keys has failed; it is tried again", "what", what, "error", err)
	}
}

// sweep deletes every record that has expired.
func (k *Keys) sweep(ctx context.Context) error {
	now := k.clock.Now()
	for {
		n := 0
		err := k.cfg.DB.Write(ctx, func(t tx.Tx) (err error) {
			n, err = k.cfg.Storage.DeleteIdempotencyRecords(t, now, sweepBatch)
			return err
		})
		if err != nil {
			return err
		}
		k.stats.records.Add(-int64(n))
		k.stats.expired.Add(uint64(n))
		if n < sweepBatch {
			break
		}
		if !k.sleep(ctx, sweepPause) {
			return nil
		}
	}
	if k.cfg.Exclusive {
		return nil
	}
	return k.cfg.DB.Write(ctx, func(t tx.Tx) error {
		return k.cfg.Storage.DeleteIdempotencyOwners(t, now.Add(-time.Hour))
	})
}

// renew keeps the lease of this process while calls run.
func (k *Keys) renew(ctx context.Context) error {
	k.mu.Lock()
	running := k.running
	k.mu.Unlock()
	if running == 0 || k.cfg.Exclusive {
		return nil
	}
	until := k.clock.Now().Add(k.cfg.Lease)
	err := k.cfg.DB.Write(ctx, func(t tx.Tx) error { return k.cfg.Storage.PutIdempotencyOwner(t, k.owner, until) })
	if err == nil {
		k.lease.Store(until.UnixMicro())
	}
	return err
}
