// Package idempotency owns what an idempotency key means: that a call with it runs once
// in its scope, and that whoever calls again gets the same answer, for as long as the
// answer is kept. It keeps a record of each key in the store, durable before the call is
// given to an instance and again before its answer is given to the caller. It never
// routes, picks or retries: who may run a call, and where, is for the router.
//
// A Keys owns one goroutine between Start and Stop, which deletes what has expired and
// renews the lease of this process, and one for each call that runs, so that a caller who
// leaves does not end it. Stop waits for them all.
package idempotency

import (
	"context"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/id"
	"telford.dev/telford/server/internal/tx"
)

// Config is what a Keys is made of. DB and Storage are required; zero values of the rest
// mean the default.
type Config struct {
	DB      tx.DB
	Storage Storage
	// Clock is the time of the store: of what is compared with other processes. The clock
	// of the machine.
	Clock clock.Clock
	// Local is the clock of deadlines. That of Clock.
	Local clock.Clock
	Log   *slog.Logger // discards
	// Alive reports whether an instance is registered. nil: always.
	Alive func(namespace, instance string) bool
	// Exclusive says that no other process uses the store: a claim of another process is
	// then one of a process that has ended.
	Exclusive bool
	// Lifetime is how long an answer is kept, from the answer on. 24 h, at least 1 s.
	Lifetime time.Duration
	// MaxAnswer is the most bytes of an answer that is kept: body, headers, trailers and
	// status together. 64 KiB.
	MaxAnswer int
	// MaxRunning bounds the calls that run at once. 10,000.
	MaxRunning int
	// MaxWaiting bounds the calls that wait for another one with their key, MaxWaitingKey
	// those of one key. 10,000 and 1,000.
	MaxWaiting, MaxWaitingKey int
	// Sweep is how often what has expired is deleted, give or take a tenth. 1 min.
	Sweep time.Duration
	// Lease is how long this process is taken to be alive without a sign of it. It
	// matters only where a store is shared. 30 s.
	Lease time.Duration
	// Rand returns numbers in [0, 1). It is called by many goroutines at once.
	Rand func() float64
}

func (c Config) withDefaults() Config {
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	if c.Local == nil {
		c.Local = c.Clock
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Alive == nil {
		c.Alive = func(string, string) bool { return true }
	}
	if c.Rand == nil {
		c.Rand = rand.Float64
	}
	for _, d := range []struct {
		value *time.Duration
		def   time.Duration
	}{{&c.Lifetime, 24 * time.Hour}, {&c.Sweep, time.Minute}, {&c.Lease, 30 * time.Second}} {
		if *d.value <= 0 {
			*d.value = d.def
		}
	}
	for _, n := range []struct {
		value *int
		def   int
	}{{&c.MaxAnswer, 64 << 10}, {&c.MaxRunning, 10_000}, {&c.MaxWaiting, 10_000}, {&c.MaxWaitingKey, 1_000}} {
		if *n.value <= 0 {
			*n.value = n.def
		}
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.DB == nil || c.Storage == nil:
		return errs.New(errs.InvalidArgument, "idempotency: a database and a storage are required")
	case c.Lifetime < time.Second:
		return errs.New(errs.InvalidArgument, "idempotency: a lifetime of %s must be at least 1s", c.Lifetime)
	}
	return nil
}

// Keys runs calls with idempotency keys. It is safe for concurrent use.
type Keys struct {
	cfg   Config
	clock clock.Clock
	// owner is this process, in the records of its claims.
	owner string
	stats counters

	// base ends when Stop has lost its patience with what runs; stopping is closed when
	// Stop begins. leaving says that this process is about to end.
	base     context.Context
	cut      context.CancelFunc
	stopping chan struct{}
	leaving  atomic.Bool
	lease    atomic.Int64 // until when it is stored, microseconds

	mu      sync.Mutex
	flights map[ID]*flight
	running int
	waiting int
	started bool
	stopped bool
	done    chan struct{} // closed when the goroutine of Start has ended; nil before
	idle    chan struct{} // closed when nothing runs any more; set by Stop
}

// New returns a Keys that takes calls at once; Start begins to delete what has expired.
func New(cfg Config) (*Keys, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	base, cut := context.WithCancel(context.Background())
	return &Keys{
		cfg: cfg, clock: cfg.Clock, owner: id.New("proc"), base: base, cut: cut,
		stopping: make(chan struct{}), flights: make(map[ID]*flight),
	}, nil
}

// Start counts what is kept and begins to delete what has expired. Starting again, and
// after Stop, does nothing.
func (k *Keys) Start(ctx context.Context) error {
	k.mu.Lock()
	if k.started || k.stopped {
		k.mu.Unlock()
		return nil
	}
	k.started = true
	k.mu.Unlock()
	err := k.cfg.DB.Read(ctx, func(t tx.Tx) error {
		n, err := k.cfg.Storage.CountIdempotencyRecords(t)
		k.stats.records.Store(int64(n))
		return err
	})
	k.mu.Lock()
	defer k.mu.Unlock()
	if err != nil {
		k.started = false
		return errs.New(errs.Unavailable, "count the idempotency keys: %w", err)
	}
	if k.stopped {
		return nil
	}
	k.done = make(chan struct{})
	go k.maintain(k.done)
	return nil
}

// Leave says that this process is about to end: what is cut from now on is left as it is
// for the process that comes after, which waits for the instance or the deadline. It is
// safe more than once.
func (k *Keys) Leave() { k.leaving.Store(true) }

// Stop refuses further calls, waits for those that run until ctx ends, cuts off the rest
// and returns when all has ended. It is safe before Start and more than once.
func (k *Keys) Stop(ctx context.Context) error {
	k.Leave()
	k.mu.Lock()
	if !k.stopped {
		k.stopped = true
		close(k.stopping)
		k.idle = make(chan struct{})
		if k.running == 0 {
			close(k.idle)
		}
	}
	idle, done := k.idle, k.done
	k.mu.Unlock()
	select {
	case <-idle:
	case <-ctx.Done():
		k.cut()
		<-idle
	}
	k.cut()
	if done != nil {
		<-done
	}
	return k.resign(ctx)
}

// resign takes back the lease of this process, so that nobody waits for it.
func (k *Keys) resign(ctx context.Context) error {
	if k.lease.Swap(0) == 0 {
		return nil
	}
	if ctx.Err() != nil {
		return nil //nolint:nilerr // it runs out by itself
	}
	err := k.cfg.DB.Write(ctx, func(t tx.Tx) error { return k.cfg.Storage.DeleteIdempotencyOwner(t, k.owner) })
	if errors.Is(err, tx.ErrClosed) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		err = nil
	}
	return err
}
