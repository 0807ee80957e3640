// Package sqlite owns the embedded engine of the store: one file, one writer that
// commits groups of transactions with one sync, a pool of readers and a checkpointer.
// It knows SQL text but no domain. DB owns all its goroutines (the writer and the
// checkpointer) and ends them in Close.
package sqlite

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"telford.dev/telford/server/internal/store/engine"
	"telford.dev/telford/server/internal/tx"
)

// Config says what to open.
type Config struct {
	// Path is the database file. Its directory exists.
	Path string
	// Fast is for tests only: nothing is synced to the disk, so that a crash of the
	// machine may lose or damage the database. The process may still crash.
	Fast bool
	// Now stamps applied migrations; time.Now when nil.
	Now func() time.Time
	// Log gets what an operator must know; discarded when nil.
	Log *slog.Logger
	// Observe, when set, is told of each commit: how long it took and how many
	// transactions it carried. It runs on the writer and must not block.
	Observe func(d time.Duration, writes int)

	// What only tests change.
	limits limits
	commit func(*conn) error
}

// busyTimeout is how long a lock of another connection or process is waited for.
const busyTimeout = 5 * time.Second

// limits bound the writer and the log.
type limits struct {
	batchWrites int
	batchBytes  int
	batchTime   time.Duration
	queued      int           // writes waiting for the writer
	queueWait   time.Duration // how long a write waits for a place in a full queue
	checkPages  int64         // growth of the log that wakes the checkpointer
	logPages    int64         // length of the log at which the writer begins it anew
}

var defaultLimits = limits{
	batchWrites: 512, batchBytes: 4 << 20, batchTime: 5 * time.Millisecond,
	queued: 4096, queueWait: 10 * time.Second,
	checkPages: 4 << 20 / pageSize, logPages: 256 << 20 / pageSize,
}

// DB is one opened database file. It is safe for concurrent use.
type DB struct {
	cfg     Config
	steps   []engine.Migration
	writer  *writer
	readers *readers
	check   *checkpointer
	stats   counters

	hooks    engine.Hooks
	closing  chan struct{}
	closed   sync.Once
	closeErr error
}

type counters struct {
	writes, failed, dropped, batches, unknown, checkpoints, restarts, logBytes, slowReads atomic.Int64
}

// Open opens the file, creating it if there is none, and brings its schema up to
// date. The error of a file that is damaged, read-only, of a newer schema or on a file
// system that cannot hold a write-ahead log says so with the path and the way out.
func Open(ctx context.Context, cfg Config) (*DB, error) {
	if cfg.Now == nil {
		cfg.Now = time.Now
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.limits == (limits{}) {
		cfg.limits = defaultLimits
	}
	if cfg.commit == nil {
		cfg.commit = func(c *conn) error {
			_, err := c.exec("COMMIT", nil)
			return err
		}
	}
	steps, err := engine.Migrations(migrations, "migrations")
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := create(cfg.Path); err != nil {
		return nil, err
	}
	conn, err := openConn(cfg.Path, cfg.Fast)
	if err != nil {
		return nil, err
	}
	if err := migrate(conn, steps, cfg.Now()); err != nil {
		return nil, errors.Join(err, conn.close())
	}
	db := &DB{cfg: cfg, steps: steps, closing: make(chan struct{})}
	db.check = newCheckpointer(db)
	db.readers = newReaders(cfg.Path, cfg.Fast, max(2, runtime.GOMAXPROCS(0)))
	db.writer = newWriter(db, conn) //nolint:contextcheck // the writer outlives the context of Open
	return db, nil
}

// Write implements tx.DB. A panic of f, or of a function given to AfterCommit, is
// raised again in the caller's goroutine.
func (db *DB) Write(ctx context.Context, f func(tx.Tx) error) error {
	return db.writer.write(ctx, f)
}

// Read implements tx.DB. f runs on the caller's goroutine; functions given to
// AfterCommit do not run.
func (db *DB) Read(ctx context.Context, f func(tx.Tx) error) error {
	c, err := db.readers.take(ctx, db.closing)
	if err != nil {
		return err
	}
	defer db.readers.put(c)
	start := time.Now()
	defer func() {
		if d := time.Since(start); d > engine.ReadLimit {
			db.stats.slowReads.Add(1)
			db.cfg.Log.Warn("a read transaction took too long", "took", d, "limit", engine.ReadLimit)
		}
	}()
	if _, err := c.exec("BEGIN", nil); err != nil {
		return err
	}
	defer c.rollback()
	t := &txn{conn: c, ctx: ctx}
	return t.Finish(f(t))
}

// OnReopen implements engine.Engine.
func (db *DB) OnReopen(f func(context.Context) error) (cancel func()) { return db.hooks.Add(f) }

// Stats implements engine.Engine.
func (db *DB) Stats() engine.Stats {
	return engine.Stats{
		Writes: db.stats.writes.Load(), Failed: db.stats.failed.Load(), Dropped: db.stats.dropped.Load(),
		Batches: db.stats.batches.Load(), Queued: int64(len(db.writer.queue)), Unknown: db.stats.unknown.Load(),
		Checkpoints: db.stats.checkpoints.Load(), Restarts: db.stats.restarts.Load(),
		LogBytes: db.stats.logBytes.Load(), SlowReads: db.stats.slowReads.Load(),
	}
}

// Close implements engine.Engine. Writes that have not begun are answered
// tx.ErrClosed.
func (db *DB) Close() error {
	db.closed.Do(func() {
		close(db.closing)
		<-db.writer.stopped
		err := db.check.stop()
		err = errors.Join(err, db.readers.close())
		// The last connection to close moves the log into the database file.
		if db.writer.conn != nil {
			err = errors.Join(err, db.writer.conn.close())
		}
		if err != nil {
			db.closeErr = fmt.Errorf("close %s: %w", db.cfg.Path, err)
		}
	})
	return db.closeErr
}
