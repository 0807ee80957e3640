// Package store keeps everything durable: it opens the engine that a URL names,
// SQLite or PostgreSQL, and implements the storage interfaces of all domains on it.
// It holds SQL and no rule of any domain. Its goroutines belong to the engines, which
// end them in Close.
package store

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/server/internal/config"
	"telford.dev/telford/server/internal/feed"
	"telford.dev/telford/server/internal/idempotency"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/restreg"
	"telford.dev/telford/server/internal/rules"
	"telford.dev/telford/server/internal/store/engine"
	"telford.dev/telford/server/internal/store/postgres"
	"telford.dev/telford/server/internal/store/sqlite"
	"telford.dev/telford/server/internal/tx"
)

// Config says what to open.
type Config struct {
	// URL is empty (the file telford.db in Data), a path or "sqlite:PATH" (relative
	// ones are below Data), or "postgres://…" for PostgreSQL 15 or newer.
	URL string
	// Data is the data directory. It is made if it does not exist, and locked, so that
	// two processes cannot share it. May be empty for PostgreSQL.
	Data string
	// Clock is the time of the process. When nil it is the clock of the machine, which
	// on PostgreSQL is corrected by its measured distance from that of the server.
	Clock clock.Clock
	// Log gets what an operator must know; discarded when nil.
	Log *slog.Logger
	// Metrics is where the families telford_store_… are registered; nowhere when nil.
	Metrics prometheus.Registerer
	// Fast is for tests only: SQLite does not sync, so that a crash of the machine, not
	// of the process, may lose or damage the database. PostgreSQL ignores it.
	Fast bool
}

// Store is an opened store: a tx.DB and the storage of every domain. It is safe for
// concurrent use.
type Store struct {
	engine engine.Engine
	kind   string
	clock  clock.Clock
	dirs   []*directory
	unreg  func()

	closed   sync.Once
	closeErr error
}

var (
	_ tx.DB               = (*Store)(nil)
	_ identity.Storage    = (*Store)(nil)
	_ registry.Storage    = (*Store)(nil)
	_ idempotency.Storage = (*Store)(nil)
	_ rules.Storage       = (*Store)(nil)
	_ restreg.Storage     = (*Store)(nil)
	_ feed.Storage        = (*Store)(nil)
	_ config.Storage      = (*Store)(nil)
)

// Open opens the store that cfg names and brings its schema up to date. Errors name
// the file or server concerned, and what to do.
func Open(ctx context.Context, cfg Config) (*Store, error) {
	where, err := parse(cfg.URL, cfg.Data)
	if err != nil {
		return nil, err
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	s := &Store{kind: where.kind, unreg: func() {}}
	for _, path := range where.dirs {
		d, err := openDirectory(path)
		if err != nil {
			return nil, errors.Join(err, s.unlock())
		}
		s.dirs = append(s.dirs, d)
	}
	m := newMetrics()
	if err := s.open(ctx, cfg, where, m); err != nil {
		return nil, errors.Join(fmt.Errorf("open the store: %w", err), s.unlock())
	}
	if cfg.Metrics != nil {
		unreg, err := m.register(cfg.Metrics, s)
		if err != nil {
			return nil, errors.Join(err, s.Close())
		}
		s.unreg = unreg
	}
	return s, nil
}

func (s *Store) open(ctx context.Context, cfg Config, where location, m *metrics) error {
	if where.kind == kindPostgres {
		db, err := postgres.Open(ctx, postgres.Config{URL: cfg.URL, Clock: cfg.Clock, Log: cfg.Log, Observe: m.observe})
		if err != nil {
			return err
		}
		s.engine, s.clock = db, db.Clock()
		return nil
	}
	if s.clock = cfg.Clock; s.clock == nil {
		s.clock = clock.Real()
	}
	db, err := sqlite.Open(ctx, sqlite.Config{
		Path: where.file, Fast: cfg.Fast, Now: s.clock.Now, Log: cfg.Log, Observe: m.observe,
	})
	if err != nil {
		return err
	}
	s.engine = db
	return nil
}

// Clock is the time that instants in this store are taken from: Config.Clock, or what
// stands in for it.
func (s *Store) Clock() clock.Clock { return s.clock }

// Kind is "sqlite" or "postgres".
func (s *Store) Kind() string { return s.kind }

// Write implements tx.DB.
func (s *Store) Write(ctx context.Context, f func(tx.Tx) error) error { return s.engine.Write(ctx, f) }

// Read implements tx.DB.
func (s *Store) Read(ctx context.Context, f func(tx.Tx) error) error { return s.engine.Read(ctx, f) }

// OnReopen registers a function that loads in-memory state again after the outcome of
// a commit was unknown. It runs before the next write begins; while it returns an
// error writes are refused with tx.ErrUnavailable. It reads with Read and must not
// write.
func (s *Store) OnReopen(f func(context.Context) error) (cancel func()) { return s.engine.OnReopen(f) }

// Stats returns the counters of the engine.
func (s *Store) Stats() engine.Stats { return s.engine.Stats() }

// Close refuses new transactions with tx.ErrClosed, waits for those that run, and
// closes the database. Closing again does nothing.
func (s *Store) Close() error {
	s.closed.Do(func() {
		s.unreg()
		s.closeErr = errors.Join(s.engine.Close(), s.unlock())
	})
	return s.closeErr
}

func (s *Store) unlock() error {
	var err error
	for _, d := range s.dirs {
		err = errors.Join(err, d.close())
	}
	s.dirs = nil
	return err
}
