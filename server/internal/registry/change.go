package registry

import (
	"crypto/sha256"
	"slices"
	"time"

	"telford.dev/telford/internal/catalog"
)

// change is one step of the memory: what it touches is published at its end, once.
type change struct {
	r *Registry
	// quiet makes no deltas: nobody has seen anything yet.
	quiet      bool
	services   []*service
	namespaces []*namespace
}

// change runs f with the memory to itself, publishes what f changed and returns the
// revision from which that is seen.
func (r *Registry) change(f func(*change)) catalog.Revision {
	r.mu.Lock()
	defer r.mu.Unlock()
	c := change{r: r}
	f(&c)
	for _, s := range c.services {
		s.dirty = false
		s.publish()
	}
	for _, ns := range c.namespaces {
		ns.dirty = false
		ns.publish()
	}
	if !c.quiet {
		for _, s := range c.services {
			s.wake()
			if r.onService != nil {
				r.onService(s.ns.name, s.name)
			}
		}
	}
	return r.revision()
}

// record is the durable state of an instance, as it was written.
type record struct {
	key
	declaration *catalog.Declaration
	digest      [sha256.Size]byte
	keyID, door string
	drained     bool
	registered  time.Time
	revision    int64
	// renew: the instance itself registers, so that its lease begins anew and it is no
	// longer leaving.
	renew bool
	// reloads is that of the memory which the record was prepared from.
	reloads uint64
	// joining: it has a place reserved among the instances of its namespace.
	joining bool
}

func digest(declaration []byte) [sha256.Size]byte { return sha256.Sum256(declaration) }

// put registers an instance, or replaces its declaration.
func (c *change) put(rec *record) {
	r := c.r
	ns := r.namespace(rec.namespace)
	s := ns.service(rec.declaration.Service)
	e := r.entries[rec.key]
	if e != nil && e.service != s {
		// Only a write whose outcome came too late to be seen leads here.
		c.remove(e, catalog.Tombstone{
			Namespace: e.namespace, ID: e.id, Service: e.service.name, Reason: catalog.Replaced, At: stored(r.clock.Now()),
		})
		e = nil
	}
	renew := rec.renew || e == nil
	if e == nil {
		e = &entry{key: rec.key, service: s}
		e.lease.timer.Value = e
		r.entries[e.key] = e
		i, _ := s.find(e.id)
		s.members = slices.Insert(s.members, i, e)
	}
	if rec.joining {
		ns.joining--
		rec.joining = false
	}
	e.digest, e.drained = rec.digest, rec.drained
	if renew {
		e.leaving = false
		c.dropHint(e)
		r.renew(e, rec.declaration.TTL)
	}
	s.share(e, rec.declaration)
	declaration := *rec.declaration
	e.methods, e.hidden = declaration.Methods, !r.handles(rec.namespace, declaration.Service)
	if e.hidden {
		declaration.Methods = nil
	}
	c.publish(e, &catalog.Instance{
		Namespace: rec.namespace, ID: rec.id, Declaration: declaration,
		Reachable: e.session != 0, Draining: e.drained || e.leaving,
		Registered: rec.registered, Revision: rec.revision, KeyID: rec.keyID, Door: rec.door, Zone: r.cfg.Zone,
		FailingUntil: e.failing(),
	}, 0)
}

// publish replaces what is seen of a member. size is that of its view, 0 if unknown.
func (c *change) publish(e *entry, next *catalog.Instance, size int) {
	r, s, old := c.r, e.service, e.inst
	was, is := old != nil && visible(old), visible(next)
	sameMethods := was && is && sameSlice(old.Declaration.Methods, next.Declaration.Methods)
	e.inst = next
	e.view = viewOf(next, size)
	if (old != nil && old.Reachable) != next.Reachable {
		if next.Reachable {
			r.reachable++
		} else {
			r.reachable--
		}
	}
	changed := false
	if !sameMethods {
		if is {
			changed = s.count(next, 1)
		}
		if was {
			changed = s.count(old, -1) || changed
		}
	}
	switch {
	case is && !was:
		s.visible++
		changed = changed || s.visible == 1
	case was && !is:
		s.visible--
		changed = changed || s.visible == 0
	case !is:
		return
	}
	c.touch(s, changed)
	if is {
		c.tell(delta{service: s, id: e.id, view: e.view})
		return
	}
	c.tell(delta{service: s, id: e.id, stone: catalog.Tombstone{
		Namespace: e.namespace, ID: e.id, Service: s.name, Reason: catalog.WentOffline, At: stored(r.clock.Now()),
	}})
}

// remove takes an instance off the map.
func (c *change) remove(e *entry, stone catalog.Tombstone) {
	r, s := c.r, e.service
	delete(r.entries, e.key)
	r.unschedule(e)
	c.dropHint(e)
	e.lease.ending.Store(true)
	if i, ok := s.find(e.id); ok {
		s.members = slices.Delete(s.members, i, i+1)
	}
	if e.inst.Reachable {
		r.reachable--
	}
	if !visible(e.inst) {
		s.forget(r.ring.oldest())
		return
	}
	s.visible--
	changed := s.count(e.inst, -1)
	c.touch(s, changed || s.visible == 0)
	c.tell(delta{service: s, id: e.id, stone: stone})
}

// touch has a service published at the end of the change, and its namespace too if
// the set of names has changed.
func (c *change) touch(s *service, names bool) {
	if !s.dirty {
		s.dirty = true
		c.services = append(c.services, s)
	}
	if names && !s.ns.dirty {
		s.ns.dirty = true
		c.namespaces = append(c.namespaces, s.ns)
	}
}

func (c *change) tell(d delta) {
	if c.quiet {
		return
	}
	if out := c.r.ring.add(d); out != nil {
		out.forget(c.r.ring.oldest())
	}
}
