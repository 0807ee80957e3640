package feed

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

// Start begins to remove what is too old. Starting twice is starting once. ctx bounds
// nothing beyond the call. A Feed that was stopped does not start again: unavailable.
func (f *Feed) Start(ctx context.Context) error {
	l := &f.life
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stopped {
		return errs.New(errs.Unavailable, "the feed has stopped").In(component, "start the feed")
	}
	if l.started {
		return nil
	}
	l.started = true
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l.cancel = cancel
	go func() {
		defer close(l.done)
		f.maintain(ctx)
	}()
	return nil
}

// Stop ends all followers and waits, at most until ctx ends, until no goroutine is left.
// Events can still be appended and listed. It may be called more than once, and before
// Start.
func (f *Feed) Stop(ctx context.Context) error {
	f.hub.Stop()
	l := &f.life
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
		return storageError("stop the feed", ctx.Err())
	}
}
