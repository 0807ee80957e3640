// Package postgres owns the PostgreSQL engine of the store: the pool, the settings of
// its sessions, transactions that are run again after a conflict, and the order of
// what follows a commit. It knows SQL text but no domain. It starts no goroutines but
// those of the pool, which Close ends.
//
// Transactions run read committed and beside each other: a statement is atomic, two
// are not, so that a check and the write that depends on it are one conditional
// statement. Everything works through a pooler in transaction mode.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/semaphore"

	"telford.dev/telford/server/internal/store/engine"
	"telford.dev/telford/server/internal/tx"
)

// Config says what to open.
type Config struct {
	// URL is a connection string of PostgreSQL. pool_max_conns in it bounds the
	// connections (16), default_query_exec_mode chooses how statements are prepared.
	URL string
	// Now stamps applied migrations; time.Now when nil.
	Now func() time.Time
	// Log gets what an operator must know; discarded when nil.
	Log *slog.Logger
	// Observe, when set, is told how long each commit took. It must not block.
	Observe func(d time.Duration, writes int)

	wrap func(net.Conn) net.Conn // tests: faults on the wire
}

// Limits of the engine.
const (
	maxQueued     = 4096             // transactions that run or wait for a connection
	maxQueueWait  = 10 * time.Second // how long a write waits for a place in a full queue
	maxConns      = 16
	workTimeout   = 30 * time.Second // one transaction, COMMIT excluded; the server's own timeouts are shorter
	commitTimeout = 10 * time.Second
	openTimeout   = 15 * time.Second
	reloadTimeout = 30 * time.Second
)

// DB is one opened database. It is safe for concurrent use.
type DB struct {
	cfg   Config
	pool  *pgxpool.Pool
	order order
	// gate admits writes, one unit each. Loading in-memory state again takes all of it.
	gate  *semaphore.Weighted
	stale atomic.Bool // in-memory state may differ until the hooks have run
	hooks engine.Hooks
	stats counters
	// describe: statements are not prepared by name, because a pooler between us and
	// the server changes the server's session under us.
	describe   atomic.Bool
	syncCommit string

	closing  chan struct{}
	closed   sync.Once
	finished chan struct{}
}

type counters struct {
	writes, failed, dropped, retries, unknown, queued, slowReads atomic.Int64
}

// Open connects, refuses a server that is too old or does not sync, and brings the
// schema up to date.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	steps, err := engine.Migrations(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	db := &DB{
		cfg: cfg, gate: semaphore.NewWeighted(maxQueued),
		closing: make(chan struct{}), finished: make(chan struct{}),
	}
	pc, err := poolConfig(cfg)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, openTimeout)
	defer cancel()
	if db.pool, err = pgxpool.NewWithConfig(ctx, pc); err != nil {
		return nil, fmt.Errorf("%s: %w", describe(pc), translate(err))
	}
	if err := db.start(ctx, steps); err != nil {
		db.pool.Close()
		return nil, fmt.Errorf("%s: %w", describe(pc), err)
	}
	return db, nil
}

func (db *DB) start(ctx context.Context, steps []engine.Migration) error {
	conn, err := db.pool.Acquire(ctx)
	if err != nil {
		return translate(err)
	}
	defer conn.Release()
	if err := conn.QueryRow(ctx, "select current_setting('synchronous_commit')").Scan(&db.syncCommit); err != nil {
		return translate(err)
	}
	if db.syncCommit != "remote_apply" { // the only setting that waits for more
		db.syncCommit = "on"
	}
	return migrate(ctx, conn.Conn(), steps, db.cfg.Now())
}

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
		err, again := db.once(ctx, f)
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
func (db *DB) once(ctx context.Context, f func(tx.Tx) error) (err error, again retry) {
	conn, err := db.acquire(ctx)
	if err != nil {
		return err, again.lost(err)
	}
	defer conn.Release()
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), workTimeout)
	defer cancel()
	ptx, err := conn.BeginTx(work, pgx.TxOptions{BeginQuery: db.beginWrite()})
	if err != nil {
		err = translate(err)
		return err, again.lost(err)
	}
	t := &txn{db: db, ptx: ptx, caller: ctx, ctx: work}
	committing := false
	defer func() {
		if !committing {
			_ = ptx.Rollback(work)
		}
	}()
	if err := t.Finish(f(t)); err != nil {
		return err, t.retry
	}
	committing = true
	return db.commit(ctx, t)
}

// commit makes t durable and runs what waited for it, in its turn.
func (db *DB) commit(ctx context.Context, t *txn) (err error, again retry) {
	limit, cancel := context.WithTimeout(context.WithoutCancel(ctx), commitTimeout)
	defer cancel()
	if t.ptx.Conn().IsClosed() {
		return fmt.Errorf("%w: the connection was lost before COMMIT", tx.ErrUnavailable), lostLink
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
	return nil, again
}

func (db *DB) commitFailed(err error) (error, retry) {
	if undone, again := rolledBack(err); undone {
		return translate(err), again
	}
	db.stats.unknown.Add(1)
	db.stale.Store(true)
	db.cfg.Log.Error("the outcome of a commit is unknown; state is loaded again before the next write", "error", err)
	return fmt.Errorf("%w: %w", tx.ErrOutcomeUnknown, translate(err)), retry{}
}

// Read implements tx.DB. f runs on the caller's goroutine; functions given to
// AfterCommit do not run.
func (db *DB) Read(ctx context.Context, f func(tx.Tx) error) error {
	select {
	case <-db.closing:
		return tx.ErrClosed
	default:
	}
	for attempt := 0; ; attempt++ {
		err, again := db.readOnce(ctx, f)
		if err == nil || !again.after(ctx, attempt, db.closing) {
			return err
		}
		db.stats.retries.Add(1)
	}
}

func (db *DB) readOnce(ctx context.Context, f func(tx.Tx) error) (err error, again retry) {
	conn, err := db.acquire(ctx)
	if err != nil {
		return err, again.lost(err)
	}
	defer conn.Release()
	work, cancel := context.WithTimeout(context.WithoutCancel(ctx), workTimeout)
	defer cancel()
	start := time.Now()
	ptx, err := conn.BeginTx(work, pgx.TxOptions{BeginQuery: beginRead})
	if err != nil {
		err = translate(err)
		return err, again.lost(err)
	}
	defer func() {
		_ = ptx.Rollback(work)
		if d := time.Since(start); d > engine.ReadLimit {
			db.stats.slowReads.Add(1)
		}
	}()
	t := &txn{db: db, ptx: ptx, caller: ctx, ctx: work}
	return t.Finish(f(t)), t.retry
}

func (db *DB) acquire(ctx context.Context) (*pgxpool.Conn, error) {
	conn, err := db.pool.Acquire(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil, fmt.Errorf("wait for a connection: %w", ctx.Err())
		}
		return nil, translate(err)
	}
	return conn, nil
}

// OnReopen implements engine.Engine.
func (db *DB) OnReopen(f func(context.Context) error) (cancel func()) { return db.hooks.Add(f) }

// Stats implements engine.Engine.
func (db *DB) Stats() engine.Stats {
	writes := db.stats.writes.Load()
	return engine.Stats{
		Writes: writes, Batches: writes, Failed: db.stats.failed.Load(), Dropped: db.stats.dropped.Load(),
		Queued: db.stats.queued.Load(), Retries: db.stats.retries.Load(), Unknown: db.stats.unknown.Load(),
		SlowReads: db.stats.slowReads.Load(),
	}
}

// Close implements engine.Engine. It waits for the transactions that run.
func (db *DB) Close() error {
	db.closed.Do(func() {
		close(db.closing)
		db.pool.Close()
		close(db.finished)
	})
	<-db.finished
	return nil
}
