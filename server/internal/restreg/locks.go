package restreg

import (
	"context"
	"sync"
)

// key names a service.
type key struct{ namespace, id string }

// keyLocks lets one writer at a time change a service, over its transactions.
type keyLocks struct {
	mu   sync.Mutex
	held map[key]*keyLock
}

type keyLock struct {
	token chan struct{}
	users int // holder and waiters
}

func (l *keyLocks) init() { l.held = make(map[key]*keyLock) }

// lock waits for k until ctx ends.
func (l *keyLocks) lock(ctx context.Context, k key) (unlock func(), err error) {
	l.mu.Lock()
	one := l.held[k]
	if one == nil {
		one = &keyLock{token: make(chan struct{}, 1)}
		l.held[k] = one
	}
	one.users++
	l.mu.Unlock()
	select {
	case one.token <- struct{}{}:
		return func() { <-one.token; l.leave(k, one) }, nil
	case <-ctx.Done():
		l.leave(k, one)
		return nil, ctx.Err()
	}
}

func (l *keyLocks) leave(k key, one *keyLock) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if one.users--; one.users == 0 {
		delete(l.held, k)
	}
}
