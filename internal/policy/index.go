package policy

import (
	"hash/maphash"
	"slices"
	"strings"
	"sync/atomic"
)

// Index is a Set made ready to decide by. It does not change, and is safe for concurrent
// use. The nil Index allows everything.
type Index struct {
	pairs map[Pair]*side
	seed  maphash.Seed
	cache [cacheSize]atomic.Pointer[kept]
}

// side is all that concerns one pair.
type side struct {
	allow, deny []Rule // by id
	off         bool
	// restricted: there are rules to allow, here or elsewhere; shadowed: such that are
	// only counted.
	restricted, shadowed bool
}

// Compile makes a set ready to decide by. A set without anything in it gives nil.
func Compile(s *Set) *Index {
	if s == nil || len(s.Rules)+len(s.Off)+len(s.Restricted)+len(s.Shadowed) == 0 {
		return nil
	}
	x := &Index{pairs: make(map[Pair]*side), seed: maphash.MakeSeed()}
	for _, r := range s.Rules {
		p := x.pair(Pair{r.Service, r.Action})
		if r.Effect != Allow {
			p.deny = append(p.deny, r)
			continue
		}
		p.allow = append(p.allow, r)
		if r.Shadow {
			p.shadowed = true
		} else {
			p.restricted = true
		}
	}
	for _, p := range s.Off {
		x.pair(p).off = true
	}
	for _, p := range s.Restricted {
		x.pair(p).restricted = true
	}
	for _, p := range s.Shadowed {
		x.pair(p).shadowed = true
	}
	byID := func(a, b Rule) int { return strings.Compare(a.ID, b.ID) }
	for _, p := range x.pairs {
		slices.SortStableFunc(p.allow, byID)
		slices.SortStableFunc(p.deny, byID)
	}
	return x
}

func (x *Index) pair(p Pair) *side {
	s := x.pairs[p]
	if s == nil {
		s = new(side)
		x.pairs[p] = s
	}
	return s
}

// Off reports whether an action of a service is switched off.
func (x *Index) Off(service string, a Action) bool {
	if x == nil {
		return false
	}
	s := x.pairs[Pair{service, a}]
	return s != nil && s.off
}
