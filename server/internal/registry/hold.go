package registry

import (
	"cmp"
	"slices"
	"strings"
	"sync"
	"time"

	"telford.dev/telford/server/internal/alarm"
)

const (
	// guardEvery is how often the guards look again at what they hold.
	guardEvery = 5 * time.Second
	// retell is how often the alarm is brought up to date.
	retell = time.Minute
)

// everything is the scope of the guard over the whole registry; no namespace is so called.
const everything = ""

// keeper holds back the end of leases where too many run out at once. Its state belongs
// to whoever ends leases; mu lets others read it and confirm.
type keeper struct {
	times guardTimes

	mu sync.Mutex
	// guards are those of the namespaces and of everything. One that watches and has
	// nothing to remember is dropped.
	guards map[string]guard
	// confirmed says until when the leases of a scope end unguarded.
	confirmed map[string]time.Duration
	// held are the leases that have run out and may not end. They are in no wheel.
	held   map[*entry]struct{}
	looked time.Duration
	// told: the alarm is up, as of toldAt.
	told   bool
	toldAt time.Duration
}

func (k *keeper) init(ttl time.Duration, hold time.Duration) {
	k.times = guardTimes{window: min(ttl, maxWindow), hold: hold}
	k.guards = make(map[string]guard)
	k.confirmed = make(map[string]time.Duration)
	k.held = make(map[*entry]struct{})
}

// guarded returns which of the leases in list, which have run out, may end at the time
// given. Those held before are asked about again.
func (r *Registry) guarded(list []*entry, at time.Duration) []*entry {
	k := &r.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	fresh := false
	for _, e := range list {
		if r.overdue(e, at) {
			k.held[e] = struct{}{}
			fresh = true
		}
	}
	if !fresh && (at-k.looked < guardEvery || len(k.held)+len(k.guards) == 0) {
		return nil
	}
	k.looked = at
	for scope, until := range k.confirmed {
		if until <= at {
			delete(k.confirmed, scope)
		}
	}
	for e := range k.held {
		if !r.overdue(e, at) {
			delete(k.held, e)
		}
	}
	ending := r.judge(at)
	for _, e := range ending {
		delete(k.held, e)
	}
	r.tell(at)
	return ending
}

// overdue reports whether e is registered and its lease has run out. One that goes on is
// put back into the wheel. A live session holds the lease.
func (r *Registry) overdue(e *entry, at time.Duration) bool {
	r.mu.RLock()
	defer r.mu.RUnlock()
	if r.entries[e.key] != e {
		return false
	}
	if e.session != 0 {
		e.lease.extend(at)
	}
	if time.Duration(e.lease.deadline.Load()) > at {
		r.schedule(e)
		return false
	}
	return true
}

// judge asks the guards which of the held leases may end, the longest run out first.
// keeper.mu is held.
func (r *Registry) judge(at time.Duration) (ending []*entry) {
	k := &r.keeper
	list := make([]*entry, 0, len(k.held))
	scopes := map[string]*outlook{everything: {}}
	for scope := range k.guards {
		scopes[scope] = &outlook{} // also those of which nothing is held any more
	}
	for e := range k.held {
		if k.isConfirmed(e.namespace) {
			ending = append(ending, e)
			continue
		}
		list = append(list, e)
		if scopes[e.namespace] == nil {
			scopes[e.namespace] = &outlook{}
		}
		scopes[e.namespace].lapsed++
		scopes[everything].lapsed++
	}
	if r.doubtful(scopes) {
		r.census(scopes, at)
	}
	allow := make(map[string]int, len(scopes))
	for scope, o := range scopes {
		g, n := k.guards[scope].step(at, *o, k.times)
		k.set(scope, g)
		allow[scope] = n
	}
	slices.SortFunc(list, func(a, b *entry) int {
		return cmp.Or(cmp.Compare(a.lease.deadline.Load(), b.lease.deadline.Load()), strings.Compare(a.id, b.id))
	})
	for _, e := range list {
		if allow[e.namespace] > 0 && allow[everything] > 0 {
			allow[e.namespace]--
			allow[everything]--
			ending = append(ending, e)
		}
	}
	return ending
}

// set replaces the guard of a scope, and forgets one that has nothing to remember.
func (k *keeper) set(scope string, g guard) {
	if g.phase == watching && len(g.ended) == 0 {
		delete(k.guards, scope)
		return
	}
	k.guards[scope] = g
}

// ended tells the guards which leases did end.
func (r *Registry) ended(list []*entry, at time.Duration) {
	k := &r.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	counts := make(map[string]int)
	for _, e := range list {
		if !k.isConfirmed(e.namespace) {
			counts[e.namespace]++
			counts[everything]++
		}
	}
	for scope, n := range counts {
		k.set(scope, k.guards[scope].note(at, n))
	}
}

func (k *keeper) isConfirmed(namespace string) bool {
	return k.confirmed[everything] > 0 || k.confirmed[namespace] > 0
}

// doubtful reports whether the guards have to know how many instances there are and how
// many of them are silent, which takes a look at each.
func (r *Registry) doubtful(scopes map[string]*outlook) bool {
	r.mu.RLock()
	without := len(r.entries) - r.reachable // a session
	r.mu.RUnlock()
	for scope, o := range scopes {
		g := r.keeper.guards[scope]
		if g.phase != watching || (o.lapsed > 0 && g.recent()+without > guardFloor) {
			return true
		}
	}
	return false
}

// census counts the instances of the scopes, and those that are silent: without a
// session, and so far into their leases that these will run out within the window.
func (r *Registry) census(scopes map[string]*outlook, at time.Duration) {
	r.mu.RLock()
	var services []*service
	for _, ns := range *r.namespaces.Load() {
		if r.keeper.isConfirmed(ns.name) {
			continue
		}
		for _, s := range ns.services {
			services = append(services, s)
		}
	}
	r.mu.RUnlock()
	for _, s := range services {
		registered, silent := r.count(s, at)
		for _, scope := range []string{everything, s.ns.name} {
			if o := scopes[scope]; o != nil {
				o.registered += registered
				o.silent += silent
			}
		}
	}
}

// count counts the instances of one service, so that nobody waits for more than that.
func (r *Registry) count(s *service, at time.Duration) (registered, silent int) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	window := r.keeper.times.window
	for _, e := range s.members {
		rest := time.Duration(e.lease.deadline.Load()) - at
		if e.session == 0 && rest > 0 && rest <= min(time.Duration(e.lease.ttl.Load())/3, window) {
			silent++
		}
	}
	return len(s.members), silent
}

// tell raises the alarm, has it say how things stand, or takes it down. keeper.mu is
// held.
func (r *Registry) tell(at time.Duration) {
	k := &r.keeper
	list := r.heldBack()
	switch {
	case len(list) == 0:
		k.told = false
		r.cfg.Alarms.Clear(alarm.MassExpiry)
	case !k.told || at-k.toldAt >= retell:
		k.told, k.toldAt = true, at
		r.cfg.Alarms.Raise(alarm.MassExpiry, alarm.Critical, explain(list))
	}
}

// ConfirmExpiry is an operator's word that the instances whose end is held back in a
// namespace, or with "" in all, are gone: they end now, and so do those whose leases run
// out in the time of one lease from now. It returns how many are held back; 0: none, and
// nothing changes.
func (r *Registry) ConfirmExpiry(namespace string) int {
	k := &r.keeper
	k.mu.Lock()
	defer k.mu.Unlock()
	n := 0
	for _, h := range r.heldBack() {
		if namespace == everything || h.Namespace == namespace {
			n += h.Instances
		}
	}
	if n == 0 {
		return 0
	}
	at := r.time.at(r.clock.Now())
	k.confirmed[namespace] = at + k.times.window
	if namespace == everything {
		clear(k.guards)
	} else {
		delete(k.guards, namespace)
	}
	k.looked = at - guardEvery // the next look is at once
	r.log.Warn("an operator says that silent instances are gone; their registrations end", "namespace", namespace, "instances", n)
	return n
}
