package rules

import (
	"cmp"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Other is the Service of the denial that counts, all together, what was beyond the
// number of those that are counted apart.
const Other = "(other)"

// tallyKey is what is counted apart.
type tallyKey struct{ service, action, caller, callee, target string }

func keyOf(d *ShadowDenial) tallyKey {
	return tallyKey{d.Service, d.Action, d.Caller, d.Callee, d.Target}
}

// tally counts the shadow denials of one namespace.
type tally struct {
	namespace string
	most      int
	total     atomic.Uint64

	mu sync.Mutex
	// counts has what is not stored yet; one with a Count of 0 is stored already.
	counts map[tallyKey]*ShadowDenial
	fresh  []*ShadowDenial // those with a Count
}

func (t *tally) init(namespace string, most int) {
	t.namespace, t.most = namespace, most
	t.counts = make(map[tallyKey]*ShadowDenial)
}

// known notes what the store counts apart.
func (t *tally) known(d *ShadowDenial) {
	t.mu.Lock()
	defer t.mu.Unlock()
	none := *d
	none.Count = 0
	t.counts[keyOf(d)] = &none
}

// add counts, and reports whether there was nothing to be stored before.
func (t *tally) add(d ShadowDenial) (first bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	c := t.counts[keyOf(&d)]
	if c == nil {
		if len(t.counts) >= t.most {
			d = ShadowDenial{Namespace: t.namespace, Service: Other, Count: d.Count, First: d.First, Last: d.Last}
			c = t.counts[keyOf(&d)]
		}
		if c == nil {
			c = &ShadowDenial{Namespace: t.namespace, Service: d.Service, Action: d.Action, Caller: d.Caller, Callee: d.Callee, Target: d.Target}
			t.counts[keyOf(&d)] = c
		}
	}
	first = len(t.fresh) == 0
	if c.Count == 0 {
		c.First, c.Last = d.First, d.Last
		t.fresh = append(t.fresh, c)
	}
	c.Count += d.Count
	if d.First.Before(c.First) {
		c.First = d.First
	}
	if d.Last.After(c.Last) {
		c.Last = d.Last
	}
	return first
}

// take returns what is to be stored, and begins anew.
func (t *tally) take() []ShadowDenial {
	t.mu.Lock()
	defer t.mu.Unlock()
	list := make([]ShadowDenial, len(t.fresh))
	for i, c := range t.fresh {
		list[i] = *c
		c.Count = 0
	}
	t.fresh = nil
	return list
}

// reset forgets everything.
func (t *tally) reset() {
	t.mu.Lock()
	defer t.mu.Unlock()
	clear(t.counts)
	t.fresh = nil
}

// merge adds what is not stored yet to what is, in the order of the store.
func (t *tally) merge(list []ShadowDenial) []ShadowDenial {
	at := make(map[tallyKey]int, len(list))
	for i := range list {
		at[keyOf(&list[i])] = i
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, c := range t.fresh {
		i, found := at[keyOf(c)]
		if !found {
			list = append(list, *c)
			continue
		}
		d := &list[i]
		d.Count += c.Count
		d.First, d.Last = earlier(d.First, c.First), later(d.Last, c.Last)
	}
	slices.SortFunc(list, func(a, b ShadowDenial) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.Action, b.Action),
			cmp.Compare(a.Caller, b.Caller), cmp.Compare(a.Callee, b.Callee), cmp.Compare(a.Target, b.Target))
	})
	return list
}

func earlier(a, b time.Time) time.Time {
	if b.Before(a) {
		return b
	}
	return a
}

func later(a, b time.Time) time.Time {
	if b.After(a) {
		return b
	}
	return a
}
