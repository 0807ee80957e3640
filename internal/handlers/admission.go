package handlers

import (
	"context"
	"sync"
	"sync/atomic"

	"telford.dev/telford/internal/errs"
)

// admission bounds the calls that run at once. While there is room a call takes no
// lock; when there is none, a bounded number of calls wait in order.
type admission struct {
	limit, maxWaiting int64
	running, waiting  atomic.Int64

	mu    sync.Mutex
	queue []chan struct{}
	quiet []chan struct{} // of those who wait for nothing to run
	watch atomic.Bool     // somebody is in quiet
}

func newAdmission(limit, maxWaiting int) *admission {
	return &admission{limit: int64(limit), maxWaiting: int64(maxWaiting)}
}

func (a *admission) acquire(ctx context.Context) *errs.Error {
	if a.tryAcquire() {
		return nil
	}
	a.mu.Lock()
	if a.waiting.Load() >= a.maxWaiting {
		a.mu.Unlock()
		return errs.New(errs.ResourceExhausted, "%d calls run and %d wait, which is the limit of this instance", a.limit, a.maxWaiting)
	}
	a.waiting.Add(1)
	// A release that came before the line above did not see this call waiting.
	if a.tryAcquire() {
		a.waiting.Add(-1)
		a.mu.Unlock()
		return nil
	}
	turn := make(chan struct{})
	a.queue = append(a.queue, turn)
	a.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	a.mu.Lock()
	for i, c := range a.queue {
		if c == turn {
			a.queue = append(a.queue[:i], a.queue[i+1:]...)
			a.waiting.Add(-1)
			a.mu.Unlock()
			return errs.From(ctx.Err())
		}
	}
	a.mu.Unlock()
	a.release() // the turn came at the same moment
	return errs.From(ctx.Err())
}

func (a *admission) tryAcquire() bool {
	for {
		n := a.running.Load()
		if n >= a.limit {
			return false
		}
		if a.running.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (a *admission) release() {
	n := a.running.Add(-1)
	if a.waiting.Load() > 0 {
		a.mu.Lock()
		if len(a.queue) > 0 && a.tryAcquire() {
			turn := a.queue[0]
			a.queue = a.queue[1:]
			a.waiting.Add(-1)
			close(turn)
		}
		a.mu.Unlock()
		return
	}
	if n == 0 && a.watch.Load() {
		a.mu.Lock()
		a.tellQuiet()
		a.mu.Unlock()
	}
}

// tellQuiet wakes, with mu held, those who wait for the end of all calls.
func (a *admission) tellQuiet() {
	if a.running.Load() > 0 || a.waiting.Load() > 0 {
		return
	}
	for _, c := range a.quiet {
		close(c)
	}
	a.quiet = nil
	a.watch.Store(false)
}

// idle waits until no call runs or waits.
func (a *admission) idle(ctx context.Context) error {
	done := make(chan struct{})
	a.mu.Lock()
	a.quiet = append(a.quiet, done)
	a.watch.Store(true)
	a.tellQuiet()
	a.mu.Unlock()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
