package idempotency

import (
	"context"
	"errors"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
)

// verdict is what a record says about another call with its key.
type verdict int

const (
	mayRun    verdict = iota // nothing is under way and no answer is kept
	hasAnswer                // it has one, or had one that was too large
	otherBody                // it is that of another request
	isRunning                // somebody else runs it
)

// grace is how long after its deadline the claim of a process that is alive stands: time
// to write down what it came to.
const grace = time.Second

// look reads the record of a key and judges it. The record is nil where there is none.
func (k *Keys) look(ctx context.Context, i *ID, sum [32]byte) (*Record, verdict, *errs.Error) {
	var r *Record
	var alive time.Time
	err := k.cfg.DB.Read(ctx, func(t tx.Tx) (err error) {
		r, alive = nil, time.Time{}
		if r, err = k.cfg.Storage.IdempotencyRecord(t, i); err != nil {
			r = nil
			if errors.Is(err, tx.ErrNotFound) {
				return nil
			}
			return err
		}
		if r.State == Running && !k.cfg.Exclusive && r.Owner != k.owner {
			alive, err = k.cfg.Storage.IdempotencyOwner(t, r.Owner)
		}
		return err
	})
	if err != nil {
		return nil, 0, i.about(storeError("look up "+i.String(), err))
	}
	now := k.clock.Now()
	return r, k.judge(r, now, alive.After(now), sum), nil
}

// judge says what a record means for a call with the given hash. ownerLives: the process
// of its claim is known to be alive, and is not this one.
func (k *Keys) judge(r *Record, now time.Time, ownerLives bool, sum [32]byte) verdict {
	switch {
	case r == nil || r.expired(now) || r.State == Released:
		return mayRun
	case string(r.BodyHash) != string(sum[:]):
		return otherBody
	case r.State == Answered || r.State == TooLarge:
		return hasAnswer
	case r.State == Open:
		return mayRun
	case ownerLives:
		if now.Before(r.Deadline.Add(grace)) {
			return isRunning
		}
	case now.Before(r.Deadline) && k.cfg.Alive(r.Namespace, r.Instance):
		return isRunning // its process has ended; the instance may still be at it
	}
	return mayRun
}

// expired reports whether a record counts as absent.
func (r *Record) expired(now time.Time) bool { return !now.Before(r.Expires) }

// storeError gives a failure of the store its meaning to a caller whose call has not
// begun.
func storeError(what string, err error) *errs.Error {
	if e := errs.From(err); e.Code == errs.DeadlineExceeded || e.Code == errs.Canceled {
		return e.Unstarted()
	}
	switch {
	case errors.Is(err, tx.ErrInvalid):
		return errs.New(errs.InvalidArgument, "%s: %w", what, err).Unstarted()
	default:
		return errs.New(errs.Unavailable, "%s: %w; the call has not begun", what, err).Unstarted()
	}
}
