package registry

import "telford.dev/telford/internal/catalog"

// Touch notes a sign of life: the lease of the instance runs anew. It reports whether
// the instance is registered; if not, it has to register again. A Touch costs no write
// and no allocation.
func (r *Registry) Touch(namespace, id string) bool {
	now := r.time.at(r.clock.Now())
	r.mu.RLock()
	e := r.entries[key{namespace, id}]
	r.mu.RUnlock()
	if e == nil || e.lease.ending.Load() {
		return false
	}
	e.lease.extend(now)
	return true
}

// Reach notes that the instance has a live session, or has lost it, and reports
// whether it is registered. Either is a sign of life, and the lease does not end while
// the session lives. Where an older session may be lost after a newer one has come,
// use Session.
func (r *Registry) Reach(namespace, id string, reachable bool) bool {
	_, ok := r.reach(key{namespace, id}, reachable, 0)
	return ok
}

// Session is Reach(true) with its own end: end makes the instance unreachable unless a
// later session has come. end may be called more than once. ok is false, and end does
// nothing, when the instance is not registered.
func (r *Registry) Session(namespace, id string) (end func(), ok bool) {
	k := key{namespace, id}
	n, ok := r.reach(k, true, 0)
	if !ok {
		return func() {}, false
	}
	return func() { r.reach(k, false, n) }, true
}

// reach begins a session, or ends the one numbered only (0: whichever lives).
func (r *Registry) reach(k key, reachable bool, only uint64) (session uint64, ok bool) {
	now := r.time.at(r.clock.Now())
	r.change(func(c *change) {
		e := r.entries[k]
		if e == nil || e.lease.ending.Load() {
			return
		}
		ok = true
		if !reachable && only != 0 && e.session != only {
			return
		}
		e.lease.extend(now)
		e.session = 0
		c.dropHint(e)
		if reachable {
			r.sessions++
			e.session = r.sessions
		}
		session = e.session
		c.refresh(e)
	})
	return session, ok
}

// Leaving notes that the instance itself takes nothing new from now on, because it is
// about to end. Unlike an operator's Drain this is not stored and ends with the next
// Register. It reports whether the instance is registered.
func (r *Registry) Leaving(namespace, id string) (ok bool) {
	r.change(func(c *change) {
		if e := r.entries[key{namespace, id}]; e != nil {
			ok, e.leaving = true, true
			c.refresh(e)
		}
	})
	return ok
}

// refresh publishes e again if what is not written of it has changed.
func (c *change) refresh(e *entry) {
	next := *e.inst
	next.Reachable, next.Draining = e.session != 0, e.drained || e.leaving
	next.FailingUntil = e.failing()
	if !sameFlags(e.inst, &next) {
		c.publish(e, &next, e.view.size)
	}
}

// visible reports whether others see the instance.
func visible(i *catalog.Instance) bool { return i.Declaration.Status != catalog.Offline }
