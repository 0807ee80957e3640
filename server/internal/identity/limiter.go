package identity

import (
	"sync"
	"time"
)

const (
	renewBurst  = 10     // renewals that one instance may make in a row
	renewShare  = 50     // then one every life/renewShare
	maxLimiters = 50_000 // instances remembered; the sweep makes room
)

// limiter lets each instance renew now and then: a token bucket a name.
type limiter struct {
	every time.Duration

	mu      sync.Mutex
	buckets map[string]bucket
}

type bucket struct {
	tokens float64
	at     time.Time
}

func newLimiter(leafLife time.Duration) *limiter {
	return &limiter{every: leafLife / renewShare, buckets: make(map[string]bucket)}
}

// take spends one token of name, or says how long until there is one.
func (l *limiter) take(name string, now time.Time) (wait time.Duration, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	b, known := l.buckets[name]
	if !known {
		if len(l.buckets) >= maxLimiters {
			l.prune(now)
		}
		if len(l.buckets) >= maxLimiters {
			return l.every, false
		}
		b = bucket{renewBurst, now}
	}
	b = l.filled(b, now)
	if b.tokens < 1 {
		l.buckets[name] = b
		return time.Duration((1 - b.tokens) * float64(l.every)), false
	}
	b.tokens--
	l.buckets[name] = b
	return 0, true
}

func (l *limiter) filled(b bucket, now time.Time) bucket {
	if passed := now.Sub(b.at); passed > 0 {
		b.tokens = min(renewBurst, b.tokens+float64(passed)/float64(l.every))
	}
	b.at = now
	return b
}

func (l *limiter) sweep(now time.Time) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.prune(now)
}

func (l *limiter) prune(now time.Time) {
	for name, b := range l.buckets {
		if l.filled(b, now).tokens >= renewBurst {
			delete(l.buckets, name)
		}
	}
}
