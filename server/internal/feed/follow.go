package feed

import (
	"context"
	"errors"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
	"telford.dev/telford/server/internal/wake"
)

// window is how many events are looked at in one transaction.
const window = 5000

// Start says what a Follower begins with. Of its fields at most one is set; none: with
// what is appended from now on.
type Start struct {
	// After is the last event that the reader knows. An id that no event has stands for
	// its time.
	After ID
	// Since is a time: events that are still kept and not older.
	Since time.Time
}

// Follower reads the events of a namespace in the order in which they were committed,
// and skips none: it keeps its place, and no events. One goroutine at a time calls Next.
type Follower struct {
	feed *Feed
	r    Range
	seat *wake.Seat
	seq  int64
}

// Follow begins to follow a namespace. failed_precondition: events behind start.After
// have been removed because of their age, so that it cannot be gone on from there;
// resource_exhausted: too many follow. The caller ends the Follower with Close.
func (f *Feed) Follow(ctx context.Context, namespace string, types []string, start Start) (*Follower, error) {
	const operation = "follow the feed"
	r, err := f.readRange(namespace, types, 0)
	if err != nil {
		return nil, storageError(operation, err)
	}
	s, err := f.hub.Join(namespace)
	if err != nil {
		return nil, storageError(operation, err)
	}
	w := &Follower{feed: f, r: *r, seat: s}
	err = f.cfg.DB.Read(ctx, func(t tx.Tx) (err error) {
		w.seq, err = f.place(t, namespace, start)
		return err
	})
	if err != nil {
		w.Close()
		return nil, storageError(operation, err)
	}
	return w, nil
}

// place is the Seq behind which a start begins.
func (f *Feed) place(t tx.Tx, namespace string, start Start) (int64, error) {
	head, err := f.cfg.Storage.FeedHead(t, namespace)
	if err != nil {
		return 0, err
	}
	var from ID
	switch {
	case start.After != (ID{}):
		seq, err := f.cfg.Storage.EventSeq(t, namespace, start.After)
		if err == nil || !errors.Is(err, tx.ErrNotFound) {
			return seq, err
		}
		if start.After.Ticks <= head.PrunedTicks {
			return 0, tooOld(namespace)
		}
		from = start.After.next()
	case !start.Since.IsZero():
		from.Ticks = ticks(start.Since)
	default:
		return head.Seq, nil
	}
	seq, err := f.cfg.Storage.FirstSeq(t, namespace, from)
	if errors.Is(err, tx.ErrNotFound) {
		return head.Seq, nil
	}
	return max(seq-1, head.PrunedSeq), err
}

func tooOld(namespace string) error {
	return errs.New(errs.FailedPrecondition,
		"the feed of namespace %q does not reach back that far any more: events behind that place have been removed because of their age; begin with a time, and take what lies between from elsewhere", namespace)
}

// Next returns the next events, at least one, and waits for them until ctx ends.
// failed_precondition: events were removed because of their age before they were read;
// not_found: the namespace has ended; unavailable: the feed has stopped.
func (w *Follower) Next(ctx context.Context) ([]Event, error) {
	const operation = "follow the feed"
	var poll clock.Timer
	defer func() {
		if poll != nil {
			poll.Stop()
		}
	}()
	for {
		events, more, err := w.read(ctx)
		if err != nil || len(events) > 0 {
			return events, storageError(operation, err)
		}
		if more {
			continue
		}
		var tick <-chan time.Time
		if w.feed.cfg.Shared {
			if poll == nil {
				poll = w.feed.cfg.Clock.NewTimer(jitter(w.feed.cfg.Poll))
			} else {
				poll.Reset(jitter(w.feed.cfg.Poll))
			}
			tick = poll.C()
		}
		select {
		case <-w.seat.Woken():
		case <-tick:
		case <-w.seat.Ended():
			return nil, storageError(operation, w.seat.Err())
		case <-ctx.Done():
			return nil, storageError(operation, ctx.Err())
		}
	}
}

// read returns what lies behind the place and moves it; more: there may be others behind
// it already.
func (w *Follower) read(ctx context.Context) (events []Event, more bool, err error) {
	select {
	case <-w.seat.Ended():
		return nil, false, w.seat.Err()
	default:
	}
	var head Head
	var rows []*Row
	until := w.seq + window
	err = w.feed.cfg.DB.Read(ctx, func(t tx.Tx) (err error) {
		if head, err = w.feed.cfg.Storage.FeedHead(t, w.r.Namespace); err != nil {
			return err
		}
		if head.Seq <= w.seq {
			return nil
		}
		rows, err = w.feed.cfg.Storage.EventsAfter(t, &w.r, w.seq, until)
		return err
	})
	switch {
	case err != nil:
		return nil, false, err
	case w.seq < head.PrunedSeq:
		return nil, false, tooOld(w.r.Namespace)
	}
	for i, row := range rows {
		if row.Payload == nil || i == w.r.Limit {
			return events, true, nil
		}
		events = append(events, row.event())
		w.seq = row.Seq
	}
	w.seq = max(w.seq, min(until, head.Seq))
	return events, w.seq < head.Seq, nil
}

// Close ends the Follower; a Next that waits returns canceled. It is safe more than once.
func (w *Follower) Close() { w.feed.hub.Leave(w.seat) }
