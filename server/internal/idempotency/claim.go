package idempotency

import (
	"context"
	"errors"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
)

// claim makes durable that an instance is about to be given the call. The first one of an
// execution takes the key, further ones note another instance.
func (x *execution) claim(ctx context.Context, instance string, once bool) error {
	k := x.keys
	now := k.clock.Now()
	next := Record{Fence: now.UnixMicro()}
	fence := int64(0)
	switch {
	case x.rec != nil:
		next, fence = *x.rec, x.rec.Fence
	case x.prev != nil:
		fence = x.prev.Fence
		next.Fence = max(next.Fence, fence+1)
	}
	if x.rec == nil {
		next.ID, next.BusinessKey, next.RequestID = x.flight.id, x.call.BusinessKey, x.call.RequestID
		next.Trace, next.BodyHash, next.Attempt = traceOf(x.call), x.flight.hash[:], int64(x.call.Attempt)
		next.Owner, next.Claimed = k.owner, now
		next.Deadline = now.Add(x.call.Deadline.Sub(k.cfg.Local.Now()))
		next.Expires = next.Deadline.Add(k.cfg.Lifetime)
	}
	next.State, next.Instance, next.Once, next.Updated = Running, instance, next.Once || once || x.once, now
	fresh := x.rec == nil && x.prev == nil
	err := k.store(ctx, &next, fresh, fence)
	if errors.Is(err, tx.ErrOutcomeUnknown) {
		err = k.confirm(ctx, &next, fresh, fence)
	}
	switch {
	case err == nil:
		if x.rec == nil {
			k.stats.claims.Add(1)
		}
		if fresh {
			k.stats.records.Add(1)
		}
		x.rec = &next
		return nil
	case errors.Is(err, tx.ErrExists) || errors.Is(err, tx.ErrStale):
		x.lost = true
		return next.about(errs.New(errs.Conflict, "%s was claimed by another process", &next.ID).Unstarted())
	default:
		return next.about(storeError("claim "+next.ID.String(), err))
	}
}

// store writes a record in place of the one with the fence, or as a new one, with the
// lease of this process where it is needed.
func (k *Keys) store(ctx context.Context, r *Record, fresh bool, fence int64) error {
	var lease time.Time
	err := k.cfg.DB.Write(ctx, func(t tx.Tx) error {
		lease = time.Time{}
		if until := r.Updated.Add(k.cfg.Lease); !k.cfg.Exclusive && r.State == Running && k.lease.Load() < r.Updated.Add(k.cfg.Lease/2).UnixMicro() {
			if err := k.cfg.Storage.PutIdempotencyOwner(t, k.owner, until); err != nil {
				return err
			}
			lease = until
		}
		if fresh {
			return k.cfg.Storage.InsertIdempotencyRecord(t, r)
		}
		return k.cfg.Storage.UpdateIdempotencyRecord(t, r, fence)
	})
	if err == nil && !lease.IsZero() {
		k.lease.Store(lease.UnixMicro())
	}
	return err
}

// confirm finds out whether a claim of unknown outcome stands, and makes it again where
// it does not.
func (k *Keys) confirm(ctx context.Context, r *Record, fresh bool, fence int64) error {
	stands := false
	err := k.cfg.DB.Read(ctx, func(t tx.Tx) error {
		got, err := k.cfg.Storage.IdempotencyRecord(t, &r.ID)
		if errors.Is(err, tx.ErrNotFound) {
			return nil
		}
		stands = err == nil && got.Fence == r.Fence && got.Owner == r.Owner && got.Instance == r.Instance
		return err
	})
	if err != nil || stands {
		return err
	}
	return k.store(ctx, r, fresh, fence)
}

// The time that is taken to write down what a call came to, and the pauses between tries.
const (
	settleTime  = 10 * time.Second
	settlePause = 50 * time.Millisecond
	settleMost  = time.Second
)

// write replaces the record of the claim by what the call came to. It goes on trying for
// a while, also when the deadline of the call has passed.
func (x *execution) write(ctx context.Context, next *Record) error {
	k := x.keys
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleTime)
	defer cancel()
	for wait := settlePause; ; wait = min(2*wait, settleMost) {
		err := k.store(ctx, next, false, x.rec.Fence)
		if err == nil || errors.Is(err, tx.ErrStale) || errors.Is(err, tx.ErrClosed) || errors.Is(err, tx.ErrInvalid) || ctx.Err() != nil {
			return err
		}
		t := k.clock.NewTimer(time.Duration(float64(wait) * (0.75 + k.cfg.Rand()/2)))
		select {
		case <-t.C():
		case <-ctx.Done():
			t.Stop()
			return err
		}
	}
}
