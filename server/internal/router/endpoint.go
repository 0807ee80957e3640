package router

import (
	"sync/atomic"

	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/pick"
	"telford.dev/telford/internal/resilience"
)

type endpointKey struct{ namespace, instance string }

// endpoint is where an instance can be delivered to, over all its declarations and
// sessions. It exists while a view lists the instance or a link is attached.
type endpoint struct {
	key  endpointKey
	load pick.Load
	// health is all that speaks against giving it calls, beside that it is away.
	health resilience.Health
	link   atomic.Pointer[attachment]
	met    atomic.Bool // it has had a link
	refs   int         // views that list it; guarded by Router.mu
	bounds *kept       // what it is kept to here; guarded by Router.mu
}

type attachment struct{ link message.Link }

// reachable returns the attached link, nil when there is none.
func (e *endpoint) reachable() message.Link {
	if a := e.link.Load(); a != nil {
		return a.link
	}
	return nil
}

// Attach makes an instance reachable over l and returns what ends that. A second Attach
// of the same instance takes over: new calls use the new link, those under way stay on
// the old one, and the detach of the old one no longer does anything. Detaching twice is
// safe. A link that would let calls wait for its connection to come back is detached
// meanwhile, so that they go elsewhere. One that has a method Permits() int is asked once
// how many calls it takes; with that many outstanding, other instances come first.
func (r *Router) Attach(namespace, instance string, l message.Link) (detach func()) {
	a := &attachment{link: l}
	r.mu.Lock()
	e := r.endpoint(endpointKey{orDefault(namespace), instance})
	if e.link.Load() == nil {
		e.load.Start(r.sinceEpoch(r.clock.Now()))
	}
	limit := 0
	if p, ok := l.(interface{ Permits() int }); ok {
		limit = p.Permits()
	}
	e.load.SetLimit(limit)
	e.link.Store(a)
	e.load.SetAway(false)
	e.met.Store(true)
	e.health.Renew(r.sinceEpoch(r.clock.Now()))
	r.mu.Unlock()
	r.announce()
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if e.link.CompareAndSwap(a, nil) {
			e.load.SetAway(true)
			r.forget(e)
		}
	}
}

// Outstanding is the number of calls that run on an instance over its link.
func (r *Router) Outstanding(namespace, instance string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	if e, ok := r.endpoints[endpointKey{orDefault(namespace), instance}]; ok {
		return int(e.load.Outstanding())
	}
	return 0
}

// endpoint returns the endpoint of the key, new if need be; mu is held.
func (r *Router) endpoint(key endpointKey) *endpoint {
	e, ok := r.endpoints[key]
	if !ok {
		e = &endpoint{key: key}
		e.load.SetAway(true)
		e.health.Join(&r.tracker)
		r.endpoints[key] = e
	}
	return e
}

// forget drops an endpoint that nobody needs any more; mu is held.
func (r *Router) forget(e *endpoint) {
	if e.refs == 0 && e.link.Load() == nil && r.endpoints[e.key] == e {
		delete(r.endpoints, e.key)
		e.health.Leave()
	}
}
