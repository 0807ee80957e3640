// Package runtime owns the composition of the program: it builds store, identity,
// registry, router and doors from one Config, starts them in that order and stops them
// in stages. It is the only package that imports the doors, and holds no rule of any
// domain. The same constructor serves the command, tests and whoever embeds Telford.
//
// The parts own their goroutines; the Runtime owns one that waits for a part to end
// before its time. Stop ends them all.
package runtime

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/alarm"
	"telford.dev/telford/server/internal/config"
	"telford.dev/telford/server/internal/feed"
	"telford.dev/telford/server/internal/idempotency"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/router"
	"telford.dev/telford/server/internal/rules"
)

// Runtime is one node. It runs once: from Start to Stop, or until a part of it ends.
type Runtime struct {
	cfg Config
	log *slog.Logger
	// clock measures what lasts within this process; what is compared with the clocks of
	// others is measured by that of the store.
	clock clock.Clock

	mu      sync.Mutex
	state   state
	parts   []*part // those that run, in the order of their start
	stopped chan struct{}
	err     error // why it ended; readable once stopped is closed

	roots   sync.Mutex // one writer of the file of roots at a time
	ready   atomic.Bool
	started time.Time
	built   components
}

type state int

const (
	isNew state = iota
	isStarting
	isRunning
	isStopping
	isStopped
)

// New returns a Runtime that has not started. The error, a *ConfigError, lists all that
// is wrong with cfg.
func New(cfg Config) (*Runtime, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	cfg = cfg.withDefaults()
	data, err := filepath.Abs(cfg.Data)
	if err != nil {
		return nil, &ConfigError{Problems: []Problem{{Key: "data", Message: err.Error()}}}
	}
	cfg.Data = data
	r := &Runtime{cfg: cfg, log: cfg.Log, clock: cfg.Clock, stopped: make(chan struct{})}
	if r.clock == nil {
		r.clock = clock.Real()
	}
	return r, nil
}

// Start builds and starts every part and returns once all doors are open. When a part
// fails, those before it are stopped again and its error is returned. ctx bounds the
// start only. A Runtime starts once: a second Start is failed_precondition and changes
// nothing.
func (r *Runtime) Start(ctx context.Context) error {
	r.mu.Lock()
	if r.state != isNew {
		r.mu.Unlock()
		return errs.New(errs.FailedPrecondition, "the runtime was started or stopped before; make a new one").In("runtime", "start")
	}
	r.state = isStarting
	r.mu.Unlock()

	r.started = r.clock.Now()
	early := make(chan error, 1)
	err := r.startParts(ctx, early)
	r.mu.Lock()
	defer r.mu.Unlock()
	if err != nil || r.state != isStarting {
		if err == nil {
			err = errs.New(errs.Canceled, "the runtime was stopped while it started").In("runtime", "start")
		}
		r.finish(err) //nolint:contextcheck // what was started is taken down also when ctx has ended
		return err
	}
	r.state = isRunning
	r.ready.Store(true)
	go r.watch(early) //nolint:gosec,contextcheck // the runtime outlives the context of its start, and Stop ends this
	return nil
}

// startParts starts the parts one after another.
func (r *Runtime) startParts(ctx context.Context, early chan<- error) error {
	for _, p := range r.plan(early) {
		if err := ctx.Err(); err != nil {
			return err
		}
		r.mu.Lock()
		leaving := r.state != isStarting
		r.mu.Unlock()
		if leaving {
			return nil
		}
		began := time.Now()
		if err := p.start(ctx); err != nil {
			return &PartError{Part: p.name, Err: err}
		}
		r.parts = append(r.parts, p)
		r.log.Debug("started", "part", p.name, "took", time.Since(began))
	}
	return nil
}

// PartError says which part of a Runtime failed.
type PartError struct {
	Part string
	Err  error
}

// Error implements error.
func (e *PartError) Error() string { return e.Part + ": " + e.Err.Error() }

// Unwrap returns the failure of the part.
func (e *PartError) Unwrap() error { return e.Err }

// watch brings the runtime down when a part ends before its time.
func (r *Runtime) watch(early <-chan error) {
	select {
	case err := <-early:
		r.log.Error("a part has ended; the runtime goes down", "error", err)
		_ = r.stop(context.Background(), err, false) // Err tells it
	case <-r.stopped:
	}
}

// Stop takes the runtime down in stages: new work is refused and sessions are told to
// go, what runs finishes within Config.DrainTimeout or until ctx ends, the doors close,
// what is in memory is written, the store closes. It returns when all has ended, with
// what went wrong on the way. It is safe before Start, more than once and from several
// goroutines: all wait for the one stop and return the same.
func (r *Runtime) Stop(ctx context.Context) error {
	return r.stop(ctx, nil, false)
}

// Abort ends everything at once, as a crash would: connections break off and nobody is
// told. What was answered stays in the store. It is as safe as Stop.
func (r *Runtime) Abort() {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_ = r.stop(ctx, nil, true) // there is nobody to tell that something was cut
}

func (r *Runtime) stop(ctx context.Context, cause error, abort bool) error {
	r.mu.Lock()
	switch r.state {
	case isNew:
		r.state = isStopped
		close(r.stopped)
		r.mu.Unlock()
		return nil
	case isStarting:
		r.state = isStopping // Start sees it and unwinds
		r.mu.Unlock()
		<-r.stopped
		return nil
	case isStopping, isStopped:
		r.mu.Unlock()
		<-r.stopped
		return r.err
	case isRunning:
	}
	r.state = isStopping
	r.mu.Unlock()

	r.ready.Store(false)
	r.leaveKeys()
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, r.cfg.DrainTimeout)
	defer cancel()
	if !abort {
		r.drain(ctx)
	}
	err := cause
	err = errors.Join(err, r.stopParts(ctx))
	r.mu.Lock()
	r.state, r.err = isStopped, err
	close(r.stopped)
	r.mu.Unlock()
	r.log.Info("stopped", "took", time.Since(began))
	return err
}

// finish ends a start that failed: what was started stops in reverse; mu is held.
func (r *Runtime) finish(err error) {
	ctx, cancel := context.WithTimeout(context.Background(), r.cfg.DrainTimeout)
	defer cancel()
	r.drain(ctx)
	if e := r.stopParts(ctx); e != nil {
		r.log.Warn("stop after a failed start", "error", e)
	}
	r.state, r.err = isStopped, err
	close(r.stopped)
}

// closeTime is what the parts behind the doors have to end, however long the drain took:
// what they hold must reach the store, and the store its disk.
const closeTime = 10 * time.Second

// stopParts stops what was started in reverse, the doors by ctx and the rest by
// closeTime.
func (r *Runtime) stopParts(ctx context.Context) (err error) {
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTime)
	defer cancel()
	for i := len(r.parts) - 1; i >= 0; i-- {
		p := r.parts[i]
		patience := last
		if p.door {
			patience = ctx
		}
		if e := p.stop(patience); e != nil {
			err = errors.Join(err, &PartError{Part: p.name, Err: e})
		}
	}
	r.parts = nil
	return err
}

// Done is closed when the runtime has ended, by Stop, by a failed Start or because a
// part ended.
func (r *Runtime) Done() <-chan struct{} { return r.stopped }

// Err is why the runtime ended; nil while it runs and after an orderly Stop.
func (r *Runtime) Err() error {
	select {
	case <-r.stopped:
		return r.err
	default:
		return nil
	}
}

// Path is the absolute path of a file in the data directory.
func (r *Runtime) Path(name string) string { return filepath.Join(r.cfg.Data, name) }

// Log is the log of the runtime.
func (r *Runtime) Log() *slog.Logger { return r.log }

// Authority is the identity domain; nil before Start.
func (r *Runtime) Authority() *identity.Authority { return r.built.authority }

// Registry is the registry domain; nil before Start.
func (r *Runtime) Registry() *registry.Registry { return r.built.registry }

// Rules returns what operators have laid down; nil before Start.
func (r *Runtime) Rules() *rules.Rules { return r.built.rules }

// Alarms is the board of what somebody has to see to; nil before Start.
func (r *Runtime) Alarms() *alarm.Board { return r.built.alarms }

// Keys is the idempotency domain; nil before Start.
func (r *Runtime) Keys() *idempotency.Keys { return r.built.keys }

// Config is the configuration that services read; nil before Start.
func (r *Runtime) Config() *config.Values { return r.built.config }

// Feed is the record of what happens to services and configuration; nil before Start.
func (r *Runtime) Feed() *feed.Feed { return r.built.feed }

// Router is the heart; nil before Start.
func (r *Runtime) Router() *router.Router { return r.built.router }
