package sqlite

import (
	"context"
	"fmt"
	"time"

	"telford.dev/telford/server/internal/tx"
)

// writer is the only one that writes the file. Callers queue requests; its goroutine
// runs as many as wait, one after another, in one transaction with one sync. It never
// waits for more: while one batch is synced the next one gathers.
type writer struct {
	db      *DB
	conn    *conn // nil after a failed reopening
	queue   chan *request
	stopped chan struct{}
	// broken: the outcome of a commit is unknown, or the connection is spoiled.
	broken bool
	// reload: in-memory state may differ from the file until the hooks have run.
	reload bool
	// nextCheck is the length of the log, in pages, at which the checkpointer is
	// woken next.
	nextCheck int64
}

func newWriter(db *DB, c *conn) *writer {
	w := &writer{
		db: db, conn: c, queue: make(chan *request, db.cfg.limits.queued), stopped: make(chan struct{}),
		nextCheck: db.cfg.limits.checkPages,
	}
	go w.loop()
	return w
}

// write is DB.Write, on the caller's goroutine.
func (w *writer) write(ctx context.Context, f func(tx.Tx) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	r := newRequest(f)
	if err := w.enqueue(ctx, r); err != nil {
		return err
	}
	select {
	case <-r.done:
	case <-ctx.Done():
		if r.leave() {
			return fmt.Errorf("wait for the writer: %w", ctx.Err())
		}
		<-r.done
	case <-w.stopped:
		if r.leave() {
			return tx.ErrClosed
		}
		<-r.done
	}
	if r.panic != nil {
		panic(r.panic)
	}
	return r.err
}

func (w *writer) enqueue(ctx context.Context, r *request) error {
	select {
	case <-w.db.closing:
		return tx.ErrClosed
	default:
	}
	select {
	case w.queue <- r:
		return nil
	default:
	}
	limit := w.db.cfg.limits.queueWait
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case w.queue <- r:
		return nil
	case <-w.db.closing:
		return tx.ErrClosed
	case <-ctx.Done():
		return fmt.Errorf("%w: %d in the queue: %w", tx.ErrBusy, cap(w.queue), ctx.Err())
	case <-timer.C:
		return fmt.Errorf("%w: %d in the queue for %v", tx.ErrBusy, cap(w.queue), limit)
	}
}

// loop runs batches until the database closes. A function that ends its goroutine
// (runtime.Goexit) takes the loop along; a new one carries on.
func (w *writer) loop() {
	ended := false
	defer func() {
		if !ended {
			go w.loop()
			return
		}
		close(w.stopped)
	}()
	for {
		select {
		case <-w.db.closing:
			ended = true
			return
		default:
		}
		select {
		case <-w.db.closing:
		case r := <-w.queue:
			w.batch(r)
		}
	}
}

// batch runs first and what waits behind it, and answers all of them.
func (w *writer) batch(first *request) {
	if !first.begin() {
		w.db.stats.dropped.Add(1)
		return
	}
	if err := w.ready(); err != nil {
		first.refuse(err)
		return
	}
	start := time.Now()
	if _, err := w.conn.exec("BEGIN IMMEDIATE", nil); err != nil {
		w.broken = w.conn.spoiled
		first.refuse(err)
		return
	}
	b := batch{w: w}
	defer b.finish()
	b.run(first)
	for !b.full(start) {
		select {
		case r := <-w.queue:
			if !r.begin() {
				w.db.stats.dropped.Add(1)
				continue
			}
			b.run(r)
		default:
			b.commit()
			return
		}
	}
	b.commit()
}

// ready reopens the database if the last batch left it in doubt.
func (w *writer) ready() error {
	if w.broken {
		if err := w.reopen(); err != nil {
			return err
		}
	}
	if w.reload {
		ctx, cancel := context.WithTimeout(context.Background(), reloadTimeout)
		defer cancel()
		if err := w.db.hooks.Run(ctx); err != nil {
			return fmt.Errorf("%w: %w", tx.ErrUnavailable, err)
		}
		w.reload = false
	}
	return nil
}
