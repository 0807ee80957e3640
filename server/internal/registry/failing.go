package registry

import (
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/server/internal/wheel"
)

// maxFailing is how long one hint lasts at most: what goes on failing is reported again.
const maxFailing = 10 * time.Minute

// hint is the word of others that an instance fails. It is kept in memory only.
type hint struct {
	// until is when it ends, in the time of a timeline; 0: there is none. shown is the
	// end that was published, which lags behind while a hint is extended by little.
	until, shown time.Duration
	timer        wheel.Timer[*entry]
}

// SetFailing notes that others have found an instance failing, so that it is better not
// picked before until: it is published as catalog.Instance.FailingUntil. The hint ends by
// itself, after 10 minutes at the latest, and when the instance registers again or
// begins or loses a session; an instant that has passed ends it at once. It is never
// shortened otherwise. Extending a hint is published only when that moves its end by more
// than half of what then remains. An instance that is not registered, or has no session,
// is ignored: that it cannot be reached from here says nothing to who calls it directly.
func (r *Registry) SetFailing(namespace, id string, until time.Time) {
	now := r.clock.Now()
	at := r.time.at(now)
	end := at + min(until.Sub(now), maxFailing)
	k := key{namespace, id}
	if !r.failingMoves(k, at, end) {
		return
	}
	r.change(func(c *change) {
		e := r.entries[k]
		switch {
		case e == nil:
		case end <= at:
			c.recover(e)
		case e.session == 0:
		case end > e.hint.until:
			e.hint.until = end
			if e.hint.moves(at) {
				c.fail(e, now, at)
			}
		}
	})
}

// failingMoves reports whether a hint until end changes anything, for which readers need
// not be stopped: many report the same instance at once.
func (r *Registry) failingMoves(k key, at, end time.Duration) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	e := r.entries[k]
	if e == nil {
		return false
	}
	if end <= at {
		return e.hint.until != 0
	}
	return end > e.hint.until
}

// moves reports whether the end has moved so far from the published one that it has to
// be published.
func (h *hint) moves(now time.Duration) bool {
	return h.shown <= now || h.until-h.shown > (h.until-now)/2
}

// fail publishes the end of the hint of e.
func (c *change) fail(e *entry, now time.Time, at time.Duration) {
	r := c.r
	e.hint.shown = e.hint.until
	e.hint.timer.Value = e
	r.wheelMu.Lock()
	r.hints.Set(&e.hint.timer, r.tickAfter(e.hint.shown))
	r.wheelMu.Unlock()
	next := *e.inst
	next.FailingUntil = stored(now.Add(e.hint.shown - at))
	c.publish(e, &next, e.view.size)
}

// dropHint forgets the hint of e without publishing that, and reports whether there was one.
func (c *change) dropHint(e *entry) bool {
	if e.hint.until == 0 {
		return false
	}
	e.hint.until, e.hint.shown = 0, 0
	c.r.wheelMu.Lock()
	c.r.hints.Drop(&e.hint.timer)
	c.r.wheelMu.Unlock()
	return true
}

// recover ends the hint of e.
func (c *change) recover(e *entry) {
	if !c.dropHint(e) {
		return
	}
	next := *e.inst
	next.FailingUntil = time.Time{}
	c.publish(e, &next, e.view.size)
}

// unhint ends the hints whose published end has passed, or publishes the rest of those
// that go on.
func (r *Registry) unhint(now time.Time, at time.Duration) {
	var due []*entry
	r.wheelMu.Lock()
	r.hints.Advance(int64(at/r.cfg.Tick), func(t *wheel.Timer[*entry]) { due = append(due, t.Value) })
	r.wheelMu.Unlock()
	if len(due) == 0 {
		return
	}
	r.change(func(c *change) {
		for _, e := range due {
			switch {
			case r.entries[e.key] != e || e.hint.until == 0:
			case e.hint.shown > at:
				// Published again since it came due.
			case e.hint.until > at:
				c.fail(e, now, at)
			default:
				c.recover(e)
			}
		}
	})
}

// failing is what is published of a hint, carried over to a new version of an instance.
func (e *entry) failing() time.Time {
	if e.inst == nil || e.hint.until == 0 {
		return time.Time{}
	}
	return e.inst.FailingUntil
}

// sameFlags reports whether two versions of an instance differ in nothing that changes
// without being written.
func sameFlags(a, b *catalog.Instance) bool {
	return a.Reachable == b.Reachable && a.Draining == b.Draining && a.FailingUntil.Equal(b.FailingUntil)
}
