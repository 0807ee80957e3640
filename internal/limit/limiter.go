package limit

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"telford.dev/telford/internal/catalog"
)

// Limiter is one catalog.Limit at work. It is safe for concurrent use.
type Limiter struct {
	bounds *bounds
	start  time.Time // the zero of the time of buckets
	limit  atomic.Pointer[catalog.Limit]
	one    *counted // without a key
	keys   *keys    // with one
	source source   // of the key

	setting sync.Mutex
}

// NewLimiter returns a limiter for l, which has been validated. Its key stays what it is.
func NewLimiter(l catalog.Limit, o Options) *Limiter {
	m := &Limiter{bounds: newBounds(o), source: sourceOf(l.Key)}
	m.start = m.bounds.clock.Now()
	m.limit.Store(&l)
	m.bounds.set(l.Concurrency, l.Queue)
	if l.Key != "" {
		m.keys = newKeys(m.bounds, o.MaxKeys, m.pace, m.now)
		return m
	}
	m.one = &counted{}
	m.one.gate.bounds = m.bounds
	m.one.bucket.Set(l.Rate, l.Burst, 0)
	return m
}

func (m *Limiter) now() time.Duration { return m.bounds.clock.Now().Sub(m.start) }

func (m *Limiter) pace() (rate float64, burst int) {
	l := m.limit.Load()
	return l.Rate, l.Burst
}

// Limit returns the numbers that hold.
func (m *Limiter) Limit() catalog.Limit { return *m.limit.Load() }

// Set changes the numbers: who runs runs on, who waits keeps its place, and what has begun
// of late stays counted. The key does not change.
func (m *Limiter) Set(l catalog.Limit) {
	m.setting.Lock()
	defer m.setting.Unlock()
	l.Key = m.limit.Load().Key
	m.limit.Store(&l)
	m.bounds.set(l.Concurrency, l.Queue)
	m.each(func(c *counted) {
		c.bucket.Set(l.Rate, l.Burst, m.now())
		c.gate.admit()
	})
}

// lift lets everybody in from now on, also those who wait.
func (m *Limiter) lift() { m.Set(catalog.Limit{}) }

func (m *Limiter) each(f func(*counted)) {
	if m.one != nil {
		f(m.one)
		return
	}
	m.keys.each(f)
}

// Running is the number of calls that this limiter counts as running, over all keys.
func (m *Limiter) Running() int {
	n := 0
	m.each(func(c *counted) { n += c.gate.Running() })
	return n
}

// Waiting is the number of calls that wait, over all keys.
func (m *Limiter) Waiting() int {
	n := 0
	m.each(func(c *counted) { n += c.gate.Waiting() })
	return n
}

// Pass is what a call holds that was let in; the zero value holds nothing.
type Pass struct {
	counted *counted
	pinned  bool
	gated   bool
	token   bool
}

// Enter lets a call in, at once or when its turn has come. It takes a token when it comes,
// and gives it back if it does not begin; key is what is counted apart, ignored by a limit
// without a key.
func (m *Limiter) Enter(ctx context.Context, key string) (Pass, *Refusal) {
	return m.enter(ctx, value{s: key})
}

func (m *Limiter) enter(ctx context.Context, key value) (Pass, *Refusal) {
	l := m.limit.Load()
	var p Pass
	if p.counted = m.one; m.keys != nil {
		p.counted, p.pinned = m.keys.get(key), true
	}
	c := p.counted
	if l.Rate > 0 {
		wait, ok := c.bucket.Take(m.now())
		if !ok {
			r := c.gate.refusal(c.gate.state.Load(), Rate)
			r.After = wait
			p.Leave()
			return Pass{}, r.of(l, key)
		}
		p.token = true
	}
	if l.Concurrency > 0 {
		if r := c.gate.Enter(ctx); r != nil {
			p.Undo()
			return Pass{}, r.of(l, key)
		}
		p.gated = true
	}
	return p, nil
}

// Leave ends what the pass was given for. It is safe to call again.
func (p *Pass) Leave() { p.end(false) }

// Undo ends the pass of a call that did not begin.
func (p *Pass) Undo() { p.end(true) }

func (p *Pass) end(undo bool) {
	if undo && p.token {
		p.counted.bucket.Return()
	}
	if p.gated {
		p.counted.gate.Leave()
	}
	if p.pinned {
		p.counted.unpin()
	}
	*p = Pass{}
}

func (r *Refusal) of(l *catalog.Limit, key value) *Refusal {
	r.Limit, r.Key = *l, key.text()
	return r
}
