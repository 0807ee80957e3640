package session

import (
	"math/rand/v2"
	"time"
)

// Heartbeat decides when to ask for a sign of life. It is pure: the owner says what
// happened and asks when to ping next.
type Heartbeat struct {
	interval, ttl time.Duration
	cur           time.Duration
	ewma          time.Duration
	misses        int
	// cut is what the jitter takes off cur; rand is nil where there is none.
	cut  time.Duration
	rand func() float64
}

// Bounds of the heartbeat.
const (
	minBeat = 2 * time.Second
	fastRTT = 50 * time.Millisecond
)

// NewHeartbeat returns the heartbeat of a session with the given interval, for a
// registration that lives ttl. Zero means the defaults.
func NewHeartbeat(interval, ttl time.Duration) *Heartbeat {
	if interval <= 0 {
		interval = Interval
	}
	if ttl <= 0 {
		ttl = 90 * time.Second
	}
	return &Heartbeat{interval: interval, ttl: ttl, cur: interval / 3}
}

// Spread has every wait shortened by up to a tenth, so that sessions which began together
// do not ping together. random returns numbers in [0, 1). It returns h.
func (h *Heartbeat) Spread(random func() float64) *Heartbeat {
	h.rand = random
	h.draw()
	return h
}

// draw draws the jitter of the wait in force.
func (h *Heartbeat) draw() {
	if h.rand != nil {
		h.cut = time.Duration(h.rand() * float64(h.cur) / 10)
	}
}

// Next is how long to wait, after the last sign of life, before the next ping. It stays
// the same until OnPong or OnMiss.
func (h *Heartbeat) Next() time.Duration { return h.cur - h.cut }

// PongTimeout is how long to wait for the answer to a ping before it counts as missed.
func (h *Heartbeat) PongTimeout() time.Duration {
	return max(min(minBeat, h.interval/3), 4*h.ewma)
}

// RTT is the smoothed round trip; 0 before the first.
func (h *Heartbeat) RTT() time.Duration { return h.ewma }

// OnPong takes in a round trip. While it is short and steady, pings become rarer.
func (h *Heartbeat) OnPong(rtt time.Duration) {
	steady := h.ewma == 0 || rtt < 2*h.ewma+5*time.Millisecond
	if h.ewma == 0 {
		h.ewma = rtt
	} else {
		h.ewma += (rtt - h.ewma) / 8
	}
	recovered := h.misses > 0
	h.misses = 0
	switch {
	case recovered || h.ewma >= fastRTT || !steady:
		h.cur = h.interval / 3
	default:
		h.cur = min(2*h.cur, h.ttl/6)
	}
	h.draw()
}

// OnReceived takes in another sign of life.
func (h *Heartbeat) OnReceived() { h.misses = 0 }

// OnMiss takes in a ping that was not answered in time. It reports whether the session
// is to be suspended.
func (h *Heartbeat) OnMiss() (suspended bool) {
	h.misses++
	base := h.interval / 3
	h.cur = max(base>>min(h.misses, 16), min(minBeat, base))
	h.draw()
	return h.misses >= 2
}

// Backoff decides when to connect again: full jitter under a cap that doubles.
type Backoff struct {
	// Min is the first cap and Max the last; zero means 100 ms and 30 s.
	Min, Max time.Duration
	// Attempts is how many there are; 0 means for ever.
	Attempts int
	// Rand returns a number in [0, n); nil means the default source.
	Rand func(n int64) int64

	n     int // attempts
	level int // of the cap
}

// Next is how long to wait before the next attempt, and which attempt it is, from 1;
// false when there is none left.
func (b *Backoff) Next() (d time.Duration, attempt int, ok bool) {
	if b.Attempts > 0 && b.n >= b.Attempts {
		return 0, b.n, false
	}
	b.n++
	return b.jitter(), b.n, true
}

// Asked is how long to wait where the other end has asked to come back after a while:
// that long and, so that those who were told the same do not come together, the jitter
// of an attempt on top. The attempt that it waits for is not counted: somebody is there.
func (b *Backoff) Asked(after time.Duration) (d time.Duration, attempt int) {
	return after + b.jitter(), b.n + 1
}

// jitter is a time under the cap, which it then raises.
func (b *Backoff) jitter() time.Duration {
	lo, hi := b.Min, b.Max
	if lo <= 0 {
		lo = 100 * time.Millisecond
	}
	if hi <= 0 {
		hi = 30 * time.Second
	}
	limit := hi
	if b.level < 32 && lo<<b.level < hi && lo<<b.level > 0 {
		limit = lo << b.level
	}
	b.level++
	r := b.Rand
	if r == nil {
		r = rand.Int64N
	}
	return time.Duration(r(int64(limit) + 1))
}

// Reset begins anew, after a success.
func (b *Backoff) Reset() { b.n, b.level = 0, 0 }
