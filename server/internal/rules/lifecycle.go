package rules

import (
	"context"
	"errors"
	"sync"

	"telford.dev/telford/internal/errs"
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

// Start begins to write what is counted. Starting twice is starting once. ctx bounds
// nothing beyond the call. Rules that were stopped do not start again: unavailable.
func (r *Rules) Start(ctx context.Context) error {
	l := &r.life
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return errs.New(errs.Unavailable, "the rules have stopped").In(component, "start rules")
	}
	if l.started {
		return nil
	}
	l.started = true
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l.cancel = cancel
	go func() {
		defer close(l.done)
		r.flush.loop(ctx)
	}()
	return nil
}

// Stop writes what was counted last and waits, at most until ctx ends, until no goroutine
// is left. Readers go on to see what they saw. It may be called more than once, and
// before Start.
func (r *Rules) Stop(ctx context.Context) error {
	l := &r.life
	l.mu.Lock()
	if !l.stopped {
		l.stopped = true
		if l.started {
			l.cancel()
		} else {
			close(l.done)
		}
	}
	l.mu.Unlock()
	select {
	case <-l.done:
	case <-ctx.Done():
		return storageError("stop rules", ctx.Err())
	}
	if err := r.flush.run(ctx); err != nil {
		return storageError("stop rules", errors.Join(errors.New("write the last shadow denials"), err))
	}
	return nil
}
