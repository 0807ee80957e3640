package registry

import (
	"context"
	"sync"
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

// Start begins to end the leases that run out. Starting twice is starting once. ctx
// bounds nothing beyond the call. A stopped Registry does not start again: unavailable.
func (r *Registry) Start(ctx context.Context) error {
	l := &r.life
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return stoppedError("start registry")
	}
	if l.started {
		return nil
	}
	l.started = true
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l.cancel = cancel
	go func() {
		defer close(l.done)
		r.run(ctx)
	}()
	return nil
}

// Stop closes the watchers, takes no new instances and waits, at most until ctx ends,
// until no goroutine is left. The instances stay registered. It may be called more
// than once, and before Start.
func (r *Registry) Stop(ctx context.Context) error {
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
	r.closeWatchers()
	select {
	case <-l.done:
		return nil
	case <-ctx.Done():
		return storeError("stop registry", ctx.Err())
	}
}
