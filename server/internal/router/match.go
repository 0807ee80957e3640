package router

import (
	"slices"
	"strings"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/pick"
)

// inline is how many candidates a call holds without allocating.
const inline = 16

// options is what a pick is made from: candidates and, at the same index, their entries.
// It is handed around by value, so that its slices can begin on the stack of the call.
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

// match adds to o the entries that may take the call: the exact version where one
// runs, else the compatible ones; the exact contract where one runs, else that of the
// newest version, so that one call never sees two shapes of a method.
func (rt *route) match(q *query, o options) options {
	if rt.plain && *q.target == (message.Target{}) {
		if rt.kind != q.kind {
			return o
		}
		for _, e := range rt.entries {
			if e.takes && e.endpoint.link.Load() != nil {
				o = o.with(e, q)
			}
		}
		return o
	}
	exact := rt.filter(q, exactVersion)
	if len(exact) == 0 && q.target.Version != "" {
		exact = rt.filter(q, compatibleVersion)
	}
	for _, e := range narrowContract(exact, q.target.Contract) {
		o = o.with(e, q)
	}
	return o
}

func (o options) with(e *entry, q *query) options {
	d := &e.instance.Declaration
	o.candidates = append(o.candidates, pick.Candidate{
		Load: &e.endpoint.load, Weight: d.Weight, Local: q.locality != "" && d.Locality == q.locality,
	})
	o.entries = append(o.entries, e)
	if len(q.avoid) != 0 && slices.Contains(q.avoid, e.instance.ID) {
		o.avoid = append(o.avoid, &e.endpoint.load)
	}
	return o
}

func (rt *route) filter(q *query, version func(*catalog.Declaration, string) bool) []*entry {
	var found []*entry
	for _, e := range rt.entries {
		if e.seen(q) && e.method.Kind == q.kind && e.addressed(q) && version(&e.instance.Declaration, q.target.Version) &&
			e.takes && e.endpoint.link.Load() != nil {
			found = append(found, e)
		}
	}
	return found
}

// seen reports whether the caller's zone sees the instance.
func (n *node) seen(q *query) bool {
	return n.instance.Declaration.Scope != catalog.ScopeZone || n.instance.Zone == "" || n.instance.Zone == q.zone
}

// addressed reports whether the target's instance and realm mean this instance.
func (n *node) addressed(q *query) bool {
	return (q.target.Instance == "" || q.target.Instance == n.instance.ID) &&
		(q.target.Realm == "" || matchRealm(q.target.Realm, n.realm()))
}

// defaultRealm is the realm of a service that names none.
const defaultRealm = "global"

func (n *node) realm() string {
	if n.instance.Declaration.Realm == "" {
		return defaultRealm
	}
	return n.instance.Declaration.Realm
}

func exactVersion(d *catalog.Declaration, want string) bool { return want == "" || d.Version == want }

func compatibleVersion(d *catalog.Declaration, want string) bool {
	return slices.Contains(d.CompatibleVersions, want)
}

// narrowContract keeps the entries of the wanted contract, or of the newest version's
// where none has it. Entries of one contract all stay.
func narrowContract(entries []*entry, want string) []*entry {
	if len(entries) < 2 {
		return entries
	}
	newest, one, found := entries[0], true, false
	for _, e := range entries {
		if compareVersions(e.instance.Declaration.Version, newest.instance.Declaration.Version) > 0 {
			newest = e
		}
		one = one && e.method.Contract == entries[0].method.Contract
		found = found || want != "" && e.method.Contract == want
	}
	if one {
		return entries
	}
	if !found {
		want = newest.method.Contract
	}
	return slices.DeleteFunc(entries, func(e *entry) bool { return e.method.Contract != want })
}

// matchRealm matches a realm against a pattern in which * stands for any run of
// characters, also none.
func matchRealm(pattern, realm string) bool {
	first, rest, wild := strings.Cut(pattern, "*")
	if !wild {
		return pattern == realm
	}
	if !strings.HasPrefix(realm, first) {
		return false
	}
	realm = realm[len(first):]
	for {
		part, more, wild := strings.Cut(rest, "*")
		if !wild {
			return strings.HasSuffix(realm, part)
		}
		// The earliest place is as good as any: what follows is a * again.
		i := strings.Index(realm, part)
		if i < 0 {
			return false
		}
		realm, rest = realm[i+len(part):], more
	}
}
