package config

import (
	"context"
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

// Start begins to remove history that is too old. Starting twice is starting once. ctx bounds
// nothing beyond the call. Values that were stopped do not start again: unavailable.
func (v *Values) Start(ctx context.Context) error {
	l := &v.life
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return errs.New(errs.Unavailable, "the configuration has stopped").In(component, "start the configuration")
	}
	if l.started {
		return nil
	}
	l.started = true
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l.cancel = cancel
	go func() {
		defer close(l.done)
		v.maintain(ctx)
	}()
	return nil
}

// Stop ends all watchers and waits, at most until ctx ends, until no goroutine is left.
// Values can still be read and set. It may be called more than once, and before
// Start.
func (v *Values) Stop(ctx context.Context) error {
	v.hub.Stop()
	l := &v.life
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
		return nil
	case <-ctx.Done():
		return storageError("stop the configuration", ctx.Err())
	}
}
