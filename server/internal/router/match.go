package router

import (
	"slices"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/match"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/pick"
)

// options is what a pick is made from: candidates and, at the same index, their entries.
// Some of the candidates may be away.
type options struct {
	candidates []pick.Candidate
	entries    []*entry
	avoid      []*pick.Load
}

// query is what narrows the instances of a route.
type query struct {
	target   *message.Target
	kind     catalog.Kind
	zone     string
	locality string
	avoid    []string
}

// wish is what the caller says of its types.
func (q *query) wish() match.Wish {
	return match.Wish{Contract: q.target.Contract, Lenient: q.target.PreferContract}
}

// match returns the entries that may take the call, all of one contract, so that one call
// never sees two shapes of a method.
func (rt *route) match(q *query) (o options) {
	t := q.target
	switch {
	case !rt.plain || t.Realm != "" || t.Version != "" || t.Instance != "":
		shapes := match.Shapes(rt.filter(q), (*entry).speaker)
		if at := match.Choose(shapes, q.wish(), (*entry).ready); at >= 0 {
			o.entries = shapes[at].Members
		}
		o.candidates = make([]pick.Candidate, 0, len(o.entries))
		for _, e := range o.entries {
			o.candidates = append(o.candidates, e.candidate(q.locality))
		}
	case rt.kind == q.kind:
		if at := match.Choose(rt.shapes, q.wish(), (*entry).ready); at >= 0 {
			o.entries, o.candidates = rt.shapes[at].Members, rt.ranks[at].candidates(q.locality)
		}
	}
	if len(q.avoid) != 0 {
		for _, e := range o.entries {
			if slices.Contains(q.avoid, e.instance.ID) {
				o.avoid = append(o.avoid, &e.endpoint.load)
			}
		}
	}
	return o
}

// filter returns the entries that take calls and that all but the contract means.
func (rt *route) filter(q *query) []*entry {
	found := make([]*entry, 0, len(rt.entries))
	for _, e := range rt.entries {
		if e.takes && e.seen(q) && e.method.Kind == q.kind && e.addressed(q) {
			found = append(found, e)
		}
	}
	return match.Version(found, (*entry).declaration, q.target.Version, (*entry).ready)
}

// ready reports whether a call can be delivered to the instance now.
func (e *entry) ready() bool { return e.takes && e.endpoint.link.Load() != nil }

// met reports whether the instance has had a link here.
func (e *entry) met() bool { return e.endpoint.met.Load() }

func (e *entry) declaration() *catalog.Declaration { return &e.instance.Declaration }

// speaker is the entry as the choice of a contract sees it.
func (e *entry) speaker() match.Speaker {
	return match.Speaker{ID: e.instance.ID, Version: e.instance.Declaration.Version, Contract: e.method.Contract}
}

// seen reports whether the caller's zone sees the instance.
func (n *node) seen(q *query) bool {
	return n.instance.Declaration.Scope != catalog.ScopeZone || n.instance.Zone == "" || n.instance.Zone == q.zone
}

// addressed reports whether the target's instance and realm mean this instance.
func (n *node) addressed(q *query) bool {
	return (q.target.Instance == "" || q.target.Instance == n.instance.ID) && match.Realm(q.target.Realm, n.realm())
}

func (n *node) realm() string { return match.RealmOf(&n.instance.Declaration) }
