package router

import (
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/limit"
	"telford.dev/telford/internal/match"
	"telford.dev/telford/internal/pick"
	"telford.dev/telford/internal/resilience"
	"telford.dev/telford/server/internal/transcode"
)

type serviceKey struct{ namespace, name string }

// service is all that is kept of one service name: its view, made anew whenever the
// registry says something new, and its counters. It stays when the last instance goes,
// which is how a service that is away is told from one that never was.
type service struct {
	key   serviceKey
	view  atomic.Pointer[view]
	meter meter
	// budget pays for offering calls to another instance when one was too busy.
	budget   *resilience.Budget
	compared atomic.Int64 // when its instances were last compared, since the epoch
}

// view is one state of a service, indexed by method. It never changes.
type view struct {
	source []*catalog.Instance // what it was made from
	nodes  []*node             // those of source that can be seen: all but OFFLINE
	routes map[string]*route
	names  match.Names // of the routes
}

// node is one instance in a view. It goes over to the next view as long as the registry
// returns the same *catalog.Instance.
type node struct {
	instance *catalog.Instance
	endpoint *endpoint
	takes    bool  // its status receives calls and it does not drain
	bounds   *kept // nil: it keeps to its limits itself
	entries  []*entry
}

// entry is one method of one instance.
type entry struct {
	*node
	method *catalog.Method
	codec  *transcode.Method
	limits *limit.Set // nil without bounds
}

// route is one method of a service over all instances that declare it.
type route struct {
	name    string
	entries []*entry
	newest  *entry // of the newest version
	// newestOf are the entries of the newest version of each contract, also where they
	// take no calls now.
	newestOf []*entry
	// plain: every entry has the same kind and is seen by every zone, so that a call whose
	// target names at most a contract needs no look at either.
	plain bool
	kind  catalog.Kind // where plain
	// hinted: others have found an instance failing, be it some time ago.
	hinted bool

	// Where plain: the entries that take calls, by contract, and at the same index the
	// candidates made of them.
	shapes []match.Shape[*entry]
	ranks  []rank
}

// rank holds the candidates of some entries for each locality that one of them is in, ""
// standing for all others.
type rank struct {
	entries []*entry
	known   sync.Map // locality to []pick.Candidate
}

// candidates returns the entries as a caller in the locality sees them.
func (k *rank) candidates(locality string) []pick.Candidate {
	if c, ok := k.known.Load(locality); ok {
		return c.([]pick.Candidate)
	}
	if locality != "" && !slices.ContainsFunc(k.entries, func(e *entry) bool { return e.instance.Declaration.Locality == locality }) {
		return k.candidates("") // so that only localities of instances take memory
	}
	candidates := make([]pick.Candidate, 0, len(k.entries))
	for _, e := range k.entries {
		candidates = append(candidates, e.candidate(locality))
	}
	c, _ := k.known.LoadOrStore(locality, candidates)
	return c.([]pick.Candidate)
}

// candidate returns the entry as a caller in the locality sees it; "" is nowhere.
func (e *entry) candidate(locality string) pick.Candidate {
	d := &e.instance.Declaration
	return pick.Candidate{Load: &e.endpoint.load, Weight: d.Weight, Local: locality != "" && d.Locality == locality}
}

// current returns the view of a service and the service itself. Both are nil when the
// service is not known; the view is nil when it has no instance now.
func (r *Router) current(key serviceKey) (*service, *view) {
	source := r.index.Candidates(key.namespace, key.name)
	s := (*r.services.Load())[key]
	if len(source) == 0 {
		if s != nil && s.view.Load() != nil {
			r.mu.Lock()
			r.release(s)
			r.mu.Unlock()
		}
		return s, nil
	}
	if s != nil {
		if v := s.view.Load(); v != nil && sameSlice(v.source, source) {
			return s, v
		}
	}
	return r.compile(key, source)
}

// sameSlice reports whether two slices are the same memory. One that is held cannot be
// reused for another, so that equal addresses mean an equal snapshot.
func sameSlice(a, b []*catalog.Instance) bool { return len(a) == len(b) && &a[0] == &b[0] }

// sweepEvery is how many views are made between two looks for services that are gone.
const sweepEvery = 64

func (r *Router) compile(key serviceKey, source []*catalog.Instance) (*service, *view) {
	r.mu.Lock()
	defer r.mu.Unlock()
	s := (*r.services.Load())[key]
	if s == nil {
		s = &service{key: key, budget: resilience.NewBudget(resilience.BudgetShare)}
		next := maps.Clone(*r.services.Load())
		next[key] = s
		r.services.Store(&next)
	}
	old := s.view.Load()
	if old != nil && sameSlice(old.source, source) {
		return s, old
	}
	v := r.newView(key, source, old)
	for _, n := range v.nodes {
		n.endpoint.refs++
	}
	s.view.Store(v)
	r.unref(old)
	if r.compiled++; r.compiled%sweepEvery == 0 {
		r.sweep()
	}
	return s, v
}

// sweep lets go of the views of services that have no instance any more and that
// nobody has called since; mu is held.
func (r *Router) sweep() {
	for key, s := range *r.services.Load() {
		if s.view.Load() != nil && len(r.index.Candidates(key.namespace, key.name)) == 0 {
			r.release(s)
		}
	}
}

// release drops the view of a service; mu is held.
func (r *Router) release(s *service) {
	r.unref(s.view.Swap(nil))
}

func (r *Router) unref(v *view) {
	if v == nil {
		return
	}
	for _, n := range v.nodes {
		n.endpoint.refs--
		r.forget(n.endpoint)
	}
}

func (r *Router) newView(key serviceKey, source []*catalog.Instance, old *view) *view {
	known := make(map[*catalog.Instance]*node)
	if old != nil {
		for _, n := range old.nodes {
			known[n.instance] = n
		}
	}
	v := &view{source: source, routes: make(map[string]*route)}
	for _, in := range source {
		if in.Declaration.Status == catalog.Offline {
			continue
		}
		n := known[in]
		if n == nil {
			n = r.newNode(key, in)
		}
		v.nodes = append(v.nodes, n)
		for _, e := range n.entries {
			rt := v.routes[e.method.Name]
			if rt == nil {
				rt = &route{name: e.method.Name}
				v.routes[e.method.Name] = rt
			}
			rt.entries = append(rt.entries, e)
		}
	}
	for name, rt := range v.routes {
		rt.finish()
		v.names.Add(name)
	}
	r.bound(key, v)
	return v
}

func (r *Router) newNode(key serviceKey, in *catalog.Instance) *node {
	n := &node{
		instance: in, endpoint: r.endpoint(endpointKey{key.namespace, in.ID}),
		takes: in.Declaration.Status.Receives() && !in.Draining,
	}
	n.bounds = r.newBounds(n.endpoint, in)
	for i := range in.Declaration.Methods {
		m := &in.Declaration.Methods[i]
		n.entries = append(n.entries, &entry{node: n, method: m, codec: r.transcoder.Method(&in.Declaration, m), limits: n.bounds.method(m.Name, r)})
	}
	return n
}

// finish sets what follows from the entries.
func (rt *route) finish() {
	rt.plain, rt.kind = true, rt.entries[0].method.Kind
	taking := make([]*entry, 0, len(rt.entries))
	for _, e := range rt.entries {
		rt.hinted = rt.hinted || !e.instance.FailingUntil.IsZero()
		if e.method.Kind != rt.kind || e.instance.Declaration.Scope == catalog.ScopeZone {
			rt.plain = false
		}
		if e.takes {
			taking = append(taking, e)
		}
	}
	for _, s := range match.Shapes(rt.entries, (*entry).speaker) {
		rt.newestOf = append(rt.newestOf, s.Newest)
	}
	rt.newest = rt.newestOf[0]
	if !rt.plain {
		return
	}
	rt.shapes = match.Shapes(taking, (*entry).speaker)
	rt.ranks = make([]rank, len(rt.shapes))
	for i := range rt.shapes {
		rt.ranks[i].entries = rt.shapes[i].Members
	}
}

// meant returns the method as a call of the given contract means it: as the newest
// version of that contract has it, or the newest of all.
func (rt *route) meant(contract string) *catalog.Method {
	if contract != "" {
		for _, e := range rt.newestOf {
			if e.method.Contract == contract {
				return e.method
			}
		}
	}
	return rt.newest.method
}

// route finds a method by its name, or by the last segment of it when that is unique.
// several are the candidates when it is not.
func (v *view) route(name string) (rt *route, several []string) {
	if rt = v.routes[name]; rt != nil {
		return rt, nil
	}
	full, several := v.names.Bare(name)
	return v.routes[full], several
}

// methods returns the names of all methods, sorted.
func (v *view) methods() []string { return slices.Sorted(maps.Keys(v.routes)) }
