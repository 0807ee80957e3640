package registry

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Held says how many instances of a namespace stay registered although their leases have
// run out, because so many have that more likely something else is at fault.
type Held struct {
	Namespace string
	// Instances are held, of Registered ones.
	Instances, Registered int
	// Since is when the pause began.
	Since time.Time
	// Resumes is when they begin to end, one after another, unless enough are back before;
	// zero when that has begun.
	Resumes time.Time
}

// Held says what is held back: a pause of all namespaces together shows with each that
// has instances to end. The most come first.
func (r *Registry) Held() []Held {
	r.keeper.mu.Lock()
	defer r.keeper.mu.Unlock()
	return r.heldBack()
}

// heldBack is Held; keeper.mu is held.
func (r *Registry) heldBack() (list []Held) {
	k := &r.keeper
	counts := make(map[string]int)
	r.mu.RLock()
	for e := range k.held {
		if r.entries[e.key] == e { // it may have been deregistered
			counts[e.namespace]++
		}
	}
	r.mu.RUnlock()
	now := r.clock.Now()
	at := r.time.at(now)
	for namespace, n := range counts {
		h := Held{Namespace: namespace, Instances: n, Registered: r.registered(namespace)}
		begun := at
		for _, scope := range []string{everything, namespace} {
			g := k.guards[scope]
			if g.phase == watching {
				continue
			}
			begun = min(begun, g.since)
			if g.phase == holding {
				h.Resumes = later(h.Resumes, stored(now.Add(g.since+k.times.hold-at)))
			}
		}
		h.Since = stored(now.Add(begun - at))
		list = append(list, h)
	}
	slices.SortFunc(list, func(a, b Held) int {
		return cmp.Or(cmp.Compare(b.Instances, a.Instances), strings.Compare(a.Namespace, b.Namespace))
	})
	return list
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}

// registered counts the instances of a namespace.
func (r *Registry) registered(namespace string) (n int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if ns := (*r.namespaces.Load())[namespace]; ns != nil {
		for _, s := range ns.services {
			n += len(s.members)
		}
	}
	return n
}

// explain puts into words what is held back, and what to do.
func explain(list []Held) string {
	const named = 3 // namespaces that the text names
	var where []string
	var instances, registered int
	var resumes time.Time
	for i, h := range list {
		instances, registered = instances+h.Instances, registered+h.Registered
		resumes = later(resumes, h.Resumes)
		if i < named {
			where = append(where, fmt.Sprintf("%q: %d of %d", h.Namespace, h.Instances, h.Registered))
		}
	}
	if more := len(list) - named; more > 0 {
		where = append(where, fmt.Sprintf("and %d more", more))
	}
	state := "They have been held for long and go now, one after another."
	if !resumes.IsZero() {
		state = fmt.Sprintf("They stay registered, unreachable, until enough of them are back, at most until %s.", resumes.Format(time.RFC3339))
	}
	return fmt.Sprintf("expiry is paused: %d of %d instances have not been heard of within their leases (namespace %s). %s "+
		"Look for what keeps them away: the network, the load of this node, certificates. "+
		"If they are gone for good, say so: telford services expire --confirm", instances, registered, strings.Join(where, ", "), state)
}
