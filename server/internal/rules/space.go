package rules

import (
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"telford.dev/telford/internal/limit"
	"telford.dev/telford/internal/policy"
	"telford.dev/telford/internal/transport"
)

// space is one namespace.
type space struct {
	current atomic.Pointer[snapshot]
	denied  [len(sides)]atomic.Uint64
	tally   tally
}

// snapshot is all that is laid down in a namespace. Once published it does not change.
type snapshot struct {
	revision   uint64
	policy     []Stored[policy.Rule] // this and the others by id
	off        []Stored[policy.Pair]
	limits     []Stored[limit.Rule]
	transports []Stored[transport.Rule]

	set   policy.Set
	index *policy.Index
}

// Namespaces returns the names of those in which something was laid down, sorted.
func (r *Rules) Namespaces() []string { return slices.Sorted(maps.Keys(*r.spaces.Load())) }

// find returns the space of a namespace, nil if it has none yet.
func (r *Rules) find(namespace string) *space { return (*r.spaces.Load())[namespace] }

// space returns that of a namespace, making it first if need be.
func (r *Rules) space(namespace string) *space {
	if sp := r.find(namespace); sp != nil {
		return sp
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	all := *r.spaces.Load()
	if sp := all[namespace]; sp != nil {
		return sp
	}
	sp := new(space)
	sp.current.Store(new(snapshot))
	sp.tally.init(namespace, r.cfg.MaxShadow)
	next := maps.Clone(all)
	next[namespace] = sp
	r.spaces.Store(&next)
	return sp
}

// forget drops the space of a namespace that is gone.
func (r *Rules) forget(namespace string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := maps.Clone(*r.spaces.Load())
	delete(next, namespace)
	r.spaces.Store(&next)
}

func (r *Rules) snapshot(namespace string) *snapshot {
	if sp := r.find(namespace); sp != nil {
		return sp.current.Load()
	}
	return r.nothing
}

// clone returns a copy to make the next snapshot of.
func (s *snapshot) clone() *snapshot {
	return &snapshot{
		policy: slices.Clone(s.policy), off: slices.Clone(s.off),
		limits: slices.Clone(s.limits), transports: slices.Clone(s.transports),
	}
}

// put adds the rule of a row, or replaces the one with its id.
func (s *snapshot) put(row *Row) (err error) {
	switch row.Kind {
	case kindPolicy:
		s.policy, err = put(s.policy, row, policyFrom, policyID)
	case kindCapability:
		s.off, err = put(s.off, row, capabilityFrom, capabilityID)
	case kindLimit:
		s.limits, err = put(s.limits, row, limitFrom, limitID)
	case kindTransport:
		s.transports, err = put(s.transports, row, transportFrom, transportID)
	default:
		// Of a newer program, which has not refused the older schema.
	}
	return err
}

// remove takes the rule of an id away, if there is one.
func (s *snapshot) remove(kind, id string) {
	switch kind {
	case kindPolicy:
		s.policy = remove(s.policy, id, policyID)
	case kindCapability:
		s.off = remove(s.off, id, capabilityID)
	case kindLimit:
		s.limits = remove(s.limits, id, limitID)
	case kindTransport:
		s.transports = remove(s.transports, id, transportID)
	}
}

func put[T any](list []Stored[T], row *Row, from func(*Row) (T, error), idOf func(*T) string) ([]Stored[T], error) {
	rule, err := from(row)
	if err != nil {
		return list, err
	}
	v := Stored[T]{Rule: rule, Revision: row.Revision, Updated: row.Updated, Author: row.Author}
	i, found := search(list, row.ID, idOf)
	if found {
		list[i] = v
		return list, nil
	}
	return slices.Insert(list, i, v), nil
}

func remove[T any](list []Stored[T], id string, idOf func(*T) string) []Stored[T] {
	if i, found := search(list, id, idOf); found {
		return slices.Delete(list, i, i+1)
	}
	return list
}

func search[T any](list []Stored[T], id string, idOf func(*T) string) (int, bool) {
	return slices.BinarySearchFunc(list, id, func(s Stored[T], id string) int { return strings.Compare(idOf(&s.Rule), id) })
}

// count is how many rules there are.
func (s *snapshot) count() int {
	return len(s.policy) + len(s.off) + len(s.limits) + len(s.transports)
}

// same reports whether other has the same rules. Each change of a rule has a revision of
// its own.
func (s *snapshot) same(other *snapshot) bool {
	return same(s.policy, other.policy, policyID) && same(s.off, other.off, capabilityID) &&
		same(s.limits, other.limits, limitID) && same(s.transports, other.transports, transportID)
}

func same[T any](a, b []Stored[T], idOf func(*T) string) bool {
	return slices.EqualFunc(a, b, func(x, y Stored[T]) bool {
		return idOf(&x.Rule) == idOf(&y.Rule) && x.Revision == y.Revision && x.Updated.Equal(y.Updated)
	})
}

// compile makes the snapshot ready to be read.
func (s *snapshot) compile() {
	for i := range s.policy {
		s.set.Rules = append(s.set.Rules, s.policy[i].Rule)
	}
	for i := range s.off {
		s.set.Off = append(s.set.Off, s.off[i].Rule)
	}
	s.index = policy.Compile(&s.set)
}
