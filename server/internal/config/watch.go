package config

import (
	"context"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/server/internal/tx"
	"telford.dev/telford/server/internal/wake"
)

// window is how many revisions are looked at in one transaction.
const window = 5000

// Update is what a Watcher tells: values that there are, or changes in the order of their
// revisions.
type Update struct {
	// Snapshot says that what was known before is void, and that Values, with those of the
	// updates that follow up to one without More, are all that there is.
	Snapshot bool
	// More says that further updates belong to the snapshot.
	More    bool
	Values  []Value
	Changes []Change
	// Revision is where a later watch goes on; 0 while there is More. A snapshot in several
	// parts may have values of a later revision in it: then the changes between come as
	// well, and one whose revision is not above that of the value known is to be skipped.
	Revision int64
}

// Watcher reads the changes of values in the order of their revisions and skips none: it
// keeps its place, and no changes. One goroutine at a time calls Next.
type Watcher struct {
	values *Values
	r      Range
	prefix string
	seat   *wake.Seat

	revision int64 // up to which everything was told
	snapshot bool  // what comes next is one, or the next part of it
	begun    bool  // parts of it were told
	marker   string
	base     int64 // revision of its first part
}

// Watch begins to watch the values whose ids begin with prefix, behind a revision: that of
// an Update or a Page. 0, one that is too old to have all changes behind it in the
// history, or one that there has not been yet: with a snapshot. resource_exhausted: too
// many watch. The caller ends the Watcher with Close.
func (v *Values) Watch(namespace, prefix string, after int64) (*Watcher, error) {
	const operation = "watch values"
	r, err := v.readRange(namespace, MaxLimit)
	if err == nil {
		err = checkPrefix(prefix)
	}
	if err != nil {
		return nil, storageError(operation, err)
	}
	s, err := v.hub.Join(namespace)
	if err != nil {
		return nil, storageError(operation, err)
	}
	return &Watcher{values: v, r: *r, prefix: prefix, seat: s, revision: after, snapshot: after <= 0}, nil
}

// Next returns what comes next, and waits for it until ctx ends. not_found: the namespace
// has ended; unavailable: the configuration has stopped.
func (w *Watcher) Next(ctx context.Context) (*Update, error) {
	const operation = "watch values"
	var poll clock.Timer
	defer func() {
		if poll != nil {
			poll.Stop()
		}
	}()
	for {
		if err := w.seat.Err(); err != nil {
			return nil, storageError(operation, err)
		}
		u, more, err := w.read(ctx)
		if err != nil || u != nil {
			return u, storageError(operation, err)
		}
		if more {
			continue
		}
		var tick <-chan time.Time
		if w.values.cfg.Shared {
			if poll == nil {
				poll = w.values.cfg.Clock.NewTimer(jitter(w.values.cfg.Poll))
			} else {
				poll.Reset(jitter(w.values.cfg.Poll))
			}
			tick = poll.C()
		}
		select {
		case <-w.seat.Woken():
		case <-tick:
		case <-w.seat.Ended():
		case <-ctx.Done():
			return nil, storageError(operation, ctx.Err())
		}
	}
}

// read returns what lies behind the place and moves it; nil and more: there may be
// something behind it already.
func (w *Watcher) read(ctx context.Context) (u *Update, more bool, err error) {
	var h Head
	var values []*Value
	var rows []*Row
	var nextID string
	var next int64
	store := w.values.cfg.Storage
	snapshot, revision := false, int64(0)
	err = w.values.cfg.DB.Read(ctx, func(t tx.Tx) (err error) {
		if h, err = store.ConfigHead(t, w.r.Namespace); err != nil {
			return err
		}
		revision = w.revision
		snapshot = w.snapshot || revision < h.Forgotten || revision > h.Revision
		switch {
		case snapshot:
			values, nextID, err = store.ConfigValues(t, &w.r, max(w.prefix, w.marker), w.prefix+lastOfID)
		case revision < h.Revision:
			rows, next, err = store.ConfigChanges(t, &w.r, w.prefix, w.prefix+lastOfID, revision, revision+window)
		}
		return err
	})
	switch {
	case err != nil:
		return nil, false, err
	case snapshot:
		return w.part(values, nextID, h.Revision), false, nil
	}
	if next > 0 {
		w.revision = rows[len(rows)-1].Revision
	} else {
		w.revision = min(w.revision+window, h.Revision)
	}
	if len(rows) == 0 {
		return nil, w.revision < h.Revision, nil
	}
	u = &Update{Revision: w.revision}
	for _, row := range rows {
		u.Changes = append(u.Changes, row.Change)
	}
	return u, false, nil
}

// part is one part of a snapshot.
func (w *Watcher) part(values []*Value, next string, revision int64) *Update {
	u := &Update{Snapshot: !w.begun, More: next != ""}
	if !w.begun {
		w.snapshot, w.begun, w.base = true, true, revision
		w.values.stats.snapshots.Add(1)
	}
	for _, v := range values {
		u.Values = append(u.Values, *v)
	}
	w.marker = next
	if next == "" {
		w.snapshot, w.begun = false, false
		w.revision, u.Revision = w.base, w.base
	}
	return u
}

// Close ends the Watcher; a Next that waits returns canceled. It is safe more than once.
func (w *Watcher) Close() { w.values.hub.Leave(w.seat) }
