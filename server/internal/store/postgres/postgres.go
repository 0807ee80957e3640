// Package postgres owns the PostgreSQL engine of the store: the pool, the settings of
// its sessions, transactions that are run again after a conflict, and the order of
// what follows a commit. It knows SQL text but no domain. It starts no goroutines but
// those of the pool and one
// that measures the clock of the server; Close ends them.
//
// Transactions run read committed and beside each other: a statement is atomic, two
// are not, so that a check and the write that depends on it are one conditional
// statement. Everything works through a pooler in transaction mode.
package postgres

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/semaphore"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/server/internal/store/engine"
)

// Config says what to open.
type Config struct {
	// URL is a connection string of PostgreSQL. pool_max_conns in it bounds the
	// connections (16), default_query_exec_mode chooses how statements are prepared.
	URL string
	// Clock is the time of the process. When nil it is the clock of the machine,
	// corrected by its measured distance from that of the server.
	Clock clock.Clock
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
	clock *corrected // nil: cfg.Clock is used as it is
	// describe: statements are not prepared by name, because a pooler between us and
	// the server changes the server's session under us.
	describe   atomic.Bool
	syncCommit string

	closing  chan struct{}
	closed   sync.Once
	finished chan struct{}
	measurer sync.WaitGroup
}

type counters struct {
	writes, failed, dropped, retries, unknown, queued, slowReads atomic.Int64
}

// Open connects, refuses a server that is too old or does not sync, and brings the
// schema up to date.
func Open(ctx context.Context, cfg Config) (*DB, error) {
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
	if cfg.Clock == nil {
		db.clock = &corrected{Clock: clock.Real()}
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
	if db.clock != nil {
		db.measurer.Go(db.measureLoop)
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
	if db.clock != nil {
		if err := db.measure(ctx, conn.Conn()); err != nil {
			return err
		}
	}
	return migrate(ctx, conn.Conn(), steps, db.Clock().Now())
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
		db.measurer.Wait()
		db.pool.Close()
		close(db.finished)
	})
	<-db.finished
	return nil
}
