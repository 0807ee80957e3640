package postgres

import (
	"context"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"telford.dev/telford/server/internal/store/engine"
	"telford.dev/telford/server/internal/tx"
)

// Read implements tx.DB. f runs on the caller's goroutine; functions given to
// AfterCommit do not run.
func (db *DB) Read(ctx context.Context, f func(tx.Tx) error) error {
	select {
	case <-db.closing:
		return tx.ErrClosed
	default:
	}
	for attempt := 0; ; attempt++ {
		again, err := db.readOnce(ctx, f)
		if err == nil || !again.after(ctx, attempt, db.closing) {
			return err
		}
		db.stats.retries.Add(1)
	}
}

func (db *DB) readOnce(ctx context.Context, f func(tx.Tx) error) (again retry, err error) {
	conn, err := db.acquire(ctx)
	if err != nil {
		return db.unbegun(err), err
	}
	defer conn.Release()
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), workTimeout)
	defer cancel()
	start := time.Now()
	ptx, err := conn.BeginTx(work, pgx.TxOptions{BeginQuery: beginRead})
	if err != nil {
		err = translate(err)
		return db.unbegun(err), err
	}
	defer func() {
		_ = ptx.Rollback(work)
		if d := time.Since(start); d > engine.ReadLimit {
			db.stats.slowReads.Add(1)
		}
	}()
	t := &txn{db: db, ptx: ptx, caller: ctx, ctx: work}
	err = t.Finish(f(t))
	return t.retry, err
}

func (db *DB) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	conn, err := db.pool.Acquire(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("wait for a connection: %w", ctx.Err())
		}
		select {
		case <-db.closing:
			return nil, tx.ErrClosed
		default:
		}
		return nil, translate(err)
	}
	return conn, nil
}
