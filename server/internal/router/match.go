package router

import (
	"slices"
	"strings"

	"telford.dev/telford/internal/catalog"
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

// match returns the entries that may take the call: the exact version where one runs,
// else the compatible ones; the exact contract where one runs, else that of the newest
// version, so that one call never sees two shapes of a method.
func (rt *route) match(q *query) (o options) {
	switch {
	case !rt.plain || *q.target != (message.Target{}):
		o.entries = rt.filter(q, exactVersion)
		if len(o.entries) == 0 && q.target.Version != "" {
			o.entries = rt.filter(q, compatibleVersion)
		}
		o.entries = narrowContract(o.entries, q.target.Contract)
		o.candidates = make([]pick.Candidate, 0, len(o.entries))
		for _, e := range o.entries {
			o.candidates = append(o.candidates, e.candidate(q.locality))
		}
	case rt.kind == q.kind:
		o.entries, o.candidates = rt.ready, rt.ranked(q.locality)
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

func (rt *route) filter(q *query, version func(*catalog.Declaration, string) bool) []*entry {
	found := make([]*entry, 0, len(rt.entries))
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
