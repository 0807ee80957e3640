package postgres

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"

	"telford.dev/telford/server/internal/tx"
)

// Write implements tx.DB. f runs on the caller's goroutine, and runs again after a
// serialization failure, a deadlock or a connection lost before COMMIT was sent.
//
// Functions given to AfterCommit run in the order in which transactions took their
// tickets: just before sending COMMIT, after their last statement. A transaction that
// saw or waited for the effect of another took its ticket after that other one's
// COMMIT had been sent, hence later. Commits themselves go on beside each other and
// share the server's syncs.
func (db *DB) Write(ctx context.Context, f func(tx.Tx) error) error {
	if err := db.enter(ctx); err != nil {
		return err
	}
	defer db.gate.Release(1)
	for attempt := 0; ; attempt++ {
		again, err := db.once(ctx, f)
		if err == nil {
			db.stats.writes.Add(1)
			return nil
		}
		if !again.after(ctx, attempt, db.closing) {
			db.stats.failed.Add(1)
			return err
		}
		db.stats.retries.Add(1)
	}
}

// enter waits for a place among the writes. In-memory state that is in doubt is
// loaded again first.
func (db *DB) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for {
		select {
		case <-db.closing:
			return tx.ErrClosed
		default:
		}
		if db.stale.Load() {
			if err := db.reload(ctx); err != nil {
				return err
			}
			continue
		}
		if !db.gate.TryAcquire(1) {
			wait, cancel := context.WithTimeout(ctx, maxQueueWait)
			db.stats.queued.Add(1)
			err := db.gate.Acquire(wait, 1)
			db.stats.queued.Add(-1)
			cancel()
			if err != nil {
				db.stats.dropped.Add(1)
				return errors.Join(fmt.Errorf("%w: %d at work", tx.ErrBusy, maxQueued), ctx.Err())
			}
		}
		if !db.stale.Load() {
			return nil
		}
		db.gate.Release(1)
	}
}

// reload runs the hooks while no write of this process runs.
func (db *DB) reload(ctx context.Context) error {
	if err := db.gate.Acquire(ctx, maxQueued); err != nil {
		return err
	}
	defer db.gate.Release(maxQueued)
	if !db.stale.Load() {
		return nil
	}
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), reloadTimeout)
	defer cancel()
	if err := db.hooks.Run(work); err != nil {
		return fmt.Errorf("%w: %w", tx.ErrUnavailable, err)
	}
	db.stale.Store(false)
	return nil
}

// once runs f in one transaction.
func (db *DB) once(ctx context.Context, f func(tx.Tx) error) (again retry, err error) {
	conn, err := db.acquire(ctx)
	if err != nil {
		return db.unbegun(err), err
	}
	defer conn.Release()
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), workTimeout)
	defer cancel()
	ptx, err := conn.BeginTx(work, pgx.TxOptions{BeginQuery: db.beginWrite()})
	if err != nil {
		err = translate(err)
		return db.unbegun(err), err
	}
	t := &txn{db: db, ptx: ptx, caller: ctx, ctx: work}
	committing := false
	defer func() {
		if !committing {
			_ = ptx.Rollback(work)
		}
	}()
	if err := t.Finish(f(t)); err != nil {
		return t.retry, err
	}
	committing = true
	return db.commit(ctx, t)
}

// commit makes t durable and runs what waited for it, in its turn.
func (db *DB) commit(ctx context.Context, t *txn) (again retry, err error) {
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	if t.ptx.Conn().IsClosed() {
		return lostLink, fmt.Errorf("%w: the connection was lost before COMMIT", tx.ErrUnavailable)
	}
	ticket := db.order.take()
	defer db.order.done()
	start := time.Now()
	err = t.ptx.Commit(limit)
	took := time.Since(start)
	// The gap that an unknown outcome leaves is closed by the hooks.
	defer db.order.wait(ticket)
	if err != nil {
		return db.commitFailed(err)
	}
	db.order.wait(ticket)
	if db.cfg.Observe != nil {
		db.cfg.Observe(took, 1)
	}
	for _, f := range t.After() {
		f()
	}
	return again, nil
}

func (db *DB) commitFailed(err error) (retry, error) {
	if undone, again := rolledBack(err); undone {
		return again, translate(err)
	}
	db.stats.unknown.Add(1)
	db.stale.Store(true)
	db.cfg.Log.Error("the outcome of a commit is unknown; state is loaded again before the next write", "error", err)
	return retry{}, fmt.Errorf("%w: %w", tx.ErrOutcomeUnknown, translate(err))
}
