package sqlite

import (
	"errors"
	"fmt"
	"time"

	"telford.dev/telford/server/internal/tx"
)

var errExited = errors.New("the function given to Write ended its goroutine")

// batch is one transaction of the engine with the writes of many callers in it, each
// inside a savepoint of its own.
type batch struct {
	w       *writer
	list    []*request
	applied int // how many of list have not failed
	bytes   int
	gone    error // the transaction was rolled back under the writes
	settled bool  // the outcome is known and everybody's err is set
}

// full says whether the batch takes no more.
func (b *batch) full(start time.Time) bool {
	l := b.w.db.cfg.limits
	return b.gone != nil || len(b.list) >= l.batchWrites || b.bytes >= l.batchBytes || time.Since(start) >= l.batchTime
}

// run applies one write, or nothing of it.
func (b *batch) run(r *request) {
	c := b.w.conn
	b.list = append(b.list, r)
	if _, err := c.exec("SAVEPOINT one", nil); err != nil {
		r.err = err
		b.checkGone(err)
		return
	}
	t := &txn{conn: c}
	r.run(t)
	b.bytes += t.bytes
	r.err = orFull(b.w.db.cfg.Path, r.err)
	if r.err == nil {
		if _, err := c.exec("RELEASE one", nil); err != nil {
			r.err = err
		}
	}
	if r.err == nil {
		b.applied++
		b.checkGone(nil)
		return
	}
	b.checkGone(r.err)
	if b.gone != nil {
		return
	}
	_, err := c.exec("ROLLBACK TO one", nil)
	if err == nil {
		_, err = c.exec("RELEASE one", nil)
	}
	if err != nil {
		b.gone = err
	}
}

// checkGone finds out whether SQLite has ended the transaction by itself, as it may
// after any error.
func (b *batch) checkGone(err error) {
	if b.gone == nil && b.w.conn.db.AutocommitEnabled() {
		if err == nil {
			err = errors.New("no statement failed")
		}
		b.gone = fmt.Errorf("the transaction of a group of writes was rolled back: %w", err)
	}
}

// commit makes the batch durable and settles every request.
func (b *batch) commit() {
	w := b.w
	if b.gone == nil && b.applied == 0 {
		w.conn.rollback()
		b.settle(nil)
		return
	}
	if b.gone != nil {
		w.conn.rollback()
		w.broken = w.broken || w.conn.spoiled
		b.settle(b.gone)
		return
	}
	start := time.Now()
	if err := w.db.cfg.commit(w.conn); err != nil {
		b.settle(w.commitFailed(err))
		return
	}
	b.settle(nil)
	if f := w.db.cfg.Observe; f != nil {
		f(time.Since(start), b.applied)
	}
	w.db.stats.batches.Add(1)
	for _, r := range b.list {
		if r.err == nil {
			r.committed()
		}
	}
	w.logGrew()
}

// settle gives every request its outcome. What failed by itself may have failed
// because of what another had written, so that it shares the fate of the others.
func (b *batch) settle(err error) {
	for _, r := range b.list {
		if err != nil && r.panic == nil {
			r.err = err
		}
		if r.err != nil {
			b.w.db.stats.failed.Add(1)
		} else {
			b.w.db.stats.writes.Add(1)
		}
	}
	b.settled = true
}

// finish answers everybody, also when a function has ended the goroutine.
func (b *batch) finish() {
	if !b.settled {
		b.w.conn.rollback()
		b.settle(errExited)
	}
	for _, r := range b.list {
		r.answer()
	}
}

// commitFailed decides what a failed COMMIT means. The commit record is the last
// thing that is written to the log: where the disk had no room for it nothing
// happened. Any other failure, that of a sync above all, leaves the outcome open.
func (w *writer) commitFailed(err error) error {
	w.conn.rollback() // SQLite may have done so already
	w.broken = w.broken || w.conn.spoiled
	err = orFull(w.db.cfg.Path, err)
	if errors.Is(err, tx.ErrFull) || errors.Is(err, tx.ErrUnavailable) && !w.conn.spoiled {
		return err
	}
	w.broken, w.reload = true, true
	w.db.stats.unknown.Add(1)
	w.db.cfg.Log.Error("a commit failed; the database is opened again before the next write", "path", w.db.cfg.Path, "error", err)
	return fmt.Errorf("%w: %w", tx.ErrOutcomeUnknown, err)
}
