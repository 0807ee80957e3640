package match

import (
	"cmp"
	"slices"
	"strings"

	"telford.dev/telford/internal/contract"
)

// Speaker is what matters about one instance of a method when contracts are chosen.
type Speaker struct {
	ID, Version, Contract string
	// Unready says why it takes no calls now, such as "draining"; empty when it does.
	Unready string
}

// Shape is the instances of a method that have one contract. All instances that one call
// may go to are of one shape.
type Shape[E any] struct {
	Contract string
	Members  []E
	// Newest is the member of the newest version; of several the one with the smallest id.
	Newest  E
	version string // of Newest
	id      string
}

// Shapes puts instances together by their contracts, those of the newest version first;
// of two that have it, the one with the smaller id. Only instances that take calls are to
// be given: the others say nothing about what a method looks like now. Members keep their
// order.
func Shapes[E any](all []E, of func(E) Speaker) []Shape[E] {
	var shapes []Shape[E]
	for _, e := range all {
		s := of(e)
		at := slices.IndexFunc(shapes, func(x Shape[E]) bool { return x.Contract == s.Contract })
		if at < 0 {
			shapes = append(shapes, Shape[E]{Contract: s.Contract, Members: []E{e}, Newest: e, version: s.Version, id: s.ID})
			continue
		}
		x := &shapes[at]
		x.Members = append(x.Members, e)
		if c := CompareVersions(s.Version, x.version); c > 0 || c == 0 && s.ID < x.id {
			x.Newest, x.version, x.id = e, s.Version, s.ID
		}
	}
	slices.SortFunc(shapes, func(a, b Shape[E]) int {
		return cmp.Or(CompareVersions(b.version, a.version), strings.Compare(a.id, b.id))
	})
	return shapes
}

// Wish is what a caller says of the types it means.
type Wish struct {
	// Contract is the caller's own; empty means that it does not say.
	Contract string
	// Lenient takes the newest version where nobody has the contract.
	Lenient bool
}

// Choose returns the index of the shape that a call goes to, or -1.
//
// It is the one with the caller's contract, where one of its members is ready. A caller
// without a contract, a lenient one, and one with a contract of a type that no shape has,
// gets the first shape with a ready member: that of the newest version. Anybody else is
// refused: Refusal says why. When no shape has a ready member, the answer is -1 too.
func Choose[E any](shapes []Shape[E], w Wish, ready func(E) bool) int {
	if w.Contract != "" {
		own, kin := -1, false
		for i := range shapes {
			if shapes[i].Contract == w.Contract {
				own = i
				break
			}
			kin = kin || contract.Type(shapes[i].Contract) == contract.Type(w.Contract)
		}
		if own >= 0 && slices.ContainsFunc(shapes[own].Members, ready) {
			return own
		}
		if !w.Lenient && (own >= 0 || kin) {
			return -1
		}
	}
	for i := range shapes {
		if slices.ContainsFunc(shapes[i].Members, ready) {
			return i
		}
	}
	return -1
}
