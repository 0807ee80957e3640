package registry

import (
	"sync"
	"sync/atomic"
	"time"

	"telford.dev/telford/server/internal/wheel"
)

// lease is how long a registration outlives the last sign of life. A sign of life
// only moves the deadline; the wheel looks at the deadline when it comes round, so
// that a heartbeat costs no more than one atomic write.
type lease struct {
	ttl      atomic.Int64
	deadline atomic.Int64 // in the time of a timeline
	// ending: its end is being written; the instance has to register again.
	ending atomic.Bool
	timer  wheel.Timer[*entry]
}

// extend moves the deadline to ttl after now, never backwards.
func (l *lease) extend(now time.Duration) {
	want := int64(now) + l.ttl.Load()
	for {
		have := l.deadline.Load()
		if have >= want || l.deadline.CompareAndSwap(have, want) {
			return
		}
	}
}

// timeline is the time since the registry was opened, as leases count it. It stands
// still while the clock goes back.
type timeline struct {
	base  time.Time
	shift atomic.Int64

	mu   sync.Mutex
	last time.Time
}

func (t *timeline) start(now time.Time) { t.base, t.last = now, now }

// at is where a reading of the clock lies.
func (t *timeline) at(now time.Time) time.Duration {
	return now.Sub(t.base) + time.Duration(t.shift.Load())
}

// turn is at, for the one who turns the wheel: it takes out steps backwards.
func (t *timeline) turn(now time.Time) time.Duration {
	t.mu.Lock()
	defer t.mu.Unlock()
	if back := t.last.Sub(now); back > 0 {
		t.shift.Add(int64(back))
	}
	t.last = now
	return t.at(now)
}

// renew begins a lease. A new declaration may shorten it, so that it is set and not
// extended.
func (r *Registry) renew(e *entry, ttl time.Duration) {
	ttl = r.ttl(ttl)
	e.lease.ttl.Store(int64(ttl))
	e.lease.deadline.Store(int64(r.time.at(r.clock.Now()) + ttl))
	e.lease.ending.Store(false)
	r.schedule(e)
}

// ttl is the lease that a declaration asks for.
func (r *Registry) ttl(declared time.Duration) time.Duration {
	if declared <= 0 {
		return r.cfg.TTL
	}
	return declared
}

// schedule puts the lease of e into the wheel at its deadline.
func (r *Registry) schedule(e *entry) {
	r.wheelMu.Lock()
	defer r.wheelMu.Unlock()
	r.leases.Set(&e.lease.timer, r.tickAfter(time.Duration(e.lease.deadline.Load())))
}

func (r *Registry) unschedule(e *entry) {
	r.wheelMu.Lock()
	defer r.wheelMu.Unlock()
	r.leases.Drop(&e.lease.timer)
}

// tickAfter is the first tick at which d has passed.
func (r *Registry) tickAfter(d time.Duration) int64 {
	return int64((d + r.cfg.Tick - 1) / r.cfg.Tick)
}

// lapsed turns the wheel to now and returns the entries whose deadline has passed.
// The others that came round go back in at their new deadline.
func (r *Registry) lapsed(now time.Duration) []*entry {
	r.wheelMu.Lock()
	defer r.wheelMu.Unlock()
	var out []*entry
	r.leases.Advance(int64(now/r.cfg.Tick), func(t *wheel.Timer[*entry]) {
		if d := time.Duration(t.Value.lease.deadline.Load()); d > now {
			r.leases.Set(t, r.tickAfter(d))
			return
		}
		out = append(out, t.Value)
	})
	return out
}
