package registry

import "time"

const (
	// guardFloor and guardShare say how many instances may end within one window without
	// a doubt: so many, or that share of all.
	guardFloor = 15
	guardShare = 3
	// maxWindow bounds the window, which is the default lease otherwise.
	maxWindow = 5 * time.Minute
	// releaseTime is about how long it takes until all held instances have ended, once
	// they have been held long enough.
	releaseTime = 30 * time.Minute
)

// phase says how a guard stands.
type phase uint8

const (
	watching  phase = iota // leases end as they run out
	holding                // none ends
	releasing              // they end one after another
)

// guard decides for one namespace, or for the whole registry, whether leases that have
// run out may end. When many run out together, more likely the network or this node is
// at fault than that all those instances died in the same minute. It is a pure state: see
// step. The zero value watches.
type guard struct {
	phase phase
	// since is when the phase began.
	since time.Duration
	// ended are the ends within the window.
	ended []ends
	// credit is how many more may end now while releasing, rate how many a minute.
	credit, rate float64
	last         time.Duration
}

// ends is how many leases ended at once.
type ends struct {
	at time.Duration
	n  int
}

// outlook is what a guard knows of its instances.
type outlook struct {
	registered int // all of them, those that have run out included
	lapsed     int // have run out
	silent     int // will soon, unless they are heard of
}

// guardTimes are the times of a guard.
type guardTimes struct {
	// window is the time within which ends count as one.
	window time.Duration
	// hold is how long none ends, at most.
	hold time.Duration
}

// limit is how many instances of so many may go within one window.
func limit(population int) int { return max(guardFloor, population/guardShare) }

// recent is how many ended within the window.
func (g guard) recent() (n int) {
	for _, e := range g.ended {
		n += e.n
	}
	return n
}

// step returns the next state and how many of those that have run out may end now. The
// caller tells by note how many did.
func (g guard) step(now time.Duration, o outlook, t guardTimes) (next guard, allow int) {
	next = g
	next.ended = nil
	for _, e := range g.ended {
		if now-e.at < t.window {
			next.ended = append(next.ended, e)
		}
	}
	recent, missing := next.recent(), o.lapsed+o.silent
	most := limit(o.registered + recent)
	if next.phase == watching {
		if o.lapsed == 0 || recent+missing <= most {
			return next, o.lapsed
		}
		next.phase, next.since = holding, now
		return next, 0
	}
	// Enough are back: so few are left that holding does not begin again at once.
	if missing <= most/2 && recent+missing <= most {
		next.phase, next.since = watching, now
		return next, o.lapsed
	}
	if next.phase == holding {
		if now-next.since < t.hold {
			return next, 0
		}
		next.phase, next.since, next.last = releasing, now, now
		next.credit, next.rate = 0, max(1, float64(missing)/releaseTime.Minutes())
	}
	next.credit = min(next.rate, next.credit+next.rate*(now-next.last).Minutes())
	next.last = now
	allow = min(o.lapsed, int(next.credit))
	return next, allow
}

// note returns the state after n leases have ended.
func (g guard) note(now time.Duration, n int) guard {
	switch {
	case n == 0:
	case g.phase == watching:
		g.ended = append(g.ended[:len(g.ended):len(g.ended)], ends{now, n})
	case g.phase == releasing:
		g.credit -= float64(n)
	}
	return g
}
