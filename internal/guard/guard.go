// Package guard owns the policy in force in one instance: it decides inbound calls by
// it, whichever way they came, and counts what it denies until that is reported. It
// never asks anybody, and starts no goroutines.
package guard

import (
	"sync"
	"sync/atomic"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/policy"
	"telford.dev/telford/internal/rulespb"
)

// maxCounts bounds the denials that are counted apart.
const maxCounts = 1024

// Guard decides by the last policy it was given. It is safe for concurrent use.
type Guard struct {
	service string
	inForce atomic.Pointer[inForce]

	mu     sync.Mutex
	counts map[count]uint64
}

// inForce is a policy, which may be nil.
type inForce struct{ index *policy.Index }

// count is what denials are counted by.
type count struct {
	caller, service, method string
	by                      policy.Pair
	shadow                  bool
}

// New returns the guard of an instance of the service. It lets nobody in before it has
// a policy.
func New(service string) *Guard {
	return &Guard{service: service, counts: make(map[count]uint64)}
}

// Set puts a policy in force; nil is the one that allows everything.
func (g *Guard) Set(index *policy.Index) { g.inForce.Store(&inForce{index}) }

// Ready refuses with unavailable as long as there is no policy.
func (g *Guard) Ready() *errs.Error {
	if g.inForce.Load() == nil {
		return errs.New(errs.Unavailable, "service %s has not been told its rules yet", g.service).Unstarted()
	}
	return nil
}

// Allow decides whether the caller may call the method: by the policy, then by what the
// handler itself says of its callers. A relayed call was judged and counted by the
// runtime; it is judged again, as the news may have come here first, and not counted.
func (g *Guard) Allow(caller *message.Caller, m *catalog.Method, relayed bool) *errs.Error {
	now := g.inForce.Load()
	if now == nil {
		return g.Ready()
	}
	if policy.Exempt(caller.Namespace, caller.Service) {
		return nil
	}
	d := now.index.Verdict(caller.Service, g.service, m.Name)
	if (!d.Allowed || d.ShadowDenied) && !relayed {
		g.count(caller.Service, m.Name, d)
	}
	if !d.Allowed {
		return d.Err(caller.Service, g.service, m.Name)
	}
	if !policy.CheckCaller(m.AllowedCallers, caller.Service) {
		d := policy.NotAmongCallers(m.AllowedCallers, caller.Service, g.service, m.Name)
		if !relayed {
			g.count(caller.Service, m.Name, d)
		}
		return d.Err(caller.Service, g.service, m.Name)
	}
	return nil
}

// count adds one denial. When there are too many sorts to be told apart it adds it to
// those of the same caller, and then to those of the same rules.
func (g *Guard) count(caller, method string, d *policy.Decision) {
	c := count{caller: caller, service: g.service, method: method, by: d.By}
	if d.ShadowDenied {
		c.by, c.shadow = d.ShadowBy, true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.add(c, 1)
}

func (g *Guard) add(c count, n uint64) {
	if _, known := g.counts[c]; !known && len(g.counts) >= maxCounts {
		c.method = ""
		if _, known = g.counts[c]; !known && len(g.counts) >= 2*maxCounts {
			c.caller, c.by.Service = "", g.service
		}
	}
	g.counts[c] += n
}

// Take returns what was counted since the last Take, in no order.
func (g *Guard) Take() []rulespb.Denial {
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(g.counts) == 0 {
		return nil
	}
	out := make([]rulespb.Denial, 0, len(g.counts))
	for c, n := range g.counts {
		out = append(out, rulespb.Denial{Caller: c.caller, Service: c.service, Method: c.method, By: c.by, Shadow: c.shadow, Count: n})
	}
	g.counts = make(map[count]uint64)
	return out
}

// Return gives back what was taken and could not be reported.
func (g *Guard) Return(list []rulespb.Denial) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for _, d := range list {
		g.add(count{caller: d.Caller, service: d.Service, method: d.Method, by: d.By, shadow: d.Shadow}, d.Count)
	}
}
