package restreg

import (
	"context"
	"sync"
	"sync/atomic"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
)

// lifecycle is one start and one stop, in whatever order and number they are asked for.
type lifecycle struct {
	mu      sync.Mutex
	started bool
	stopped bool
	cancel  context.CancelFunc
	done    chan struct{}
}

func (l *lifecycle) init() { l.done = make(chan struct{}) }

// Start makes the registry what the services are and begins to end what nobody asks
// about. Starting twice is starting once. ctx bounds the comparison. A stopped Directory
// does not start again: unavailable.
func (d *Directory) Start(ctx context.Context) error {
	l := &d.life
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return errs.New(errs.Unavailable, "the REST directory has stopped").In(component, "start")
	}
	if l.started {
		return nil
	}
	if err := d.reconcile(ctx); err != nil {
		return storeError("start", err)
	}
	d.dirty.Store(false)
	l.started = true
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l.cancel = cancel
	go func() {
		defer close(l.done)
		d.run(ctx)
	}()
	return nil
}

// Stop ends what Start began, waits for it, at most until ctx ends, and writes down where
// the chains of tokens stand. It may be called more than once, and before Start.
func (d *Directory) Stop(ctx context.Context) error {
	l := &d.life
	l.mu.Lock()
	first := !l.stopped
	if first {
		l.stopped = true
		if l.started {
			l.cancel()
		} else {
			close(l.done)
		}
	}
	started := l.started
	l.mu.Unlock()
	select {
	case <-l.done:
	case <-ctx.Done():
		return storeError("stop", ctx.Err())
	}
	if !first || !started {
		return nil
	}
	for _, a := range d.all() {
		a.mu.Lock()
		list := make([]*service, 0, len(a.services))
		for _, s := range a.services {
			list = append(list, s)
		}
		a.mu.Unlock()
		for _, s := range list {
			d.disconnect(a, s)
		}
	}
	return d.save(ctx)
}

// save writes deadlines and last heartbeats, so that after the next start just the tokens
// in force are taken.
func (d *Directory) save(ctx context.Context) error {
	for _, a := range d.all() {
		a.mu.Lock()
		rows := make([]*Row, 0, len(a.services))
		for _, s := range a.services {
			row, err := s.row(a.namespace, d.now(), "runtime")
			if err != nil {
				a.mu.Unlock()
				return err
			}
			if !s.floor.IsZero() {
				row.Deadline = s.floor
			}
			rows = append(rows, row)
		}
		a.mu.Unlock()
		for len(rows) > 0 {
			n := min(len(rows), batch)
			err := d.cfg.DB.Write(ctx, func(t tx.Tx) error {
				for _, row := range rows[:n] {
					if err := d.cfg.Storage.PutRESTService(t, row); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				return storeError("save services", err)
			}
			rows = rows[n:]
		}
	}
	return nil
}

// counters count what a Directory has done.
type counters struct{ created, beats, timeouts atomic.Uint64 }

// Stats are the numbers of a Directory.
type Stats struct {
	Services int    // those that are there
	Created  uint64 // since Open, as the rest
	Beats    uint64
	Timeouts uint64
}

// Stats returns the numbers.
func (d *Directory) Stats() Stats {
	s := Stats{Created: d.stats.created.Load(), Beats: d.stats.beats.Load(), Timeouts: d.stats.timeouts.Load()}
	for _, a := range d.all() {
		a.mu.Lock()
		s.Services += len(a.services)
		a.mu.Unlock()
	}
	return s
}
