package limit

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"

	"telford.dev/telford/internal/catalog"
)

// Set is all the limits of one subject, such as a method. A call passes those with a key
// before those without, so that who is many under one key waits there and holds nothing
// that others need. It is safe for concurrent use.
type Set struct {
	opt    Options
	active atomic.Pointer[[]*Limiter] // nil: there are none

	mu   sync.Mutex
	idle []*Limiter // replaced, while calls still run under them
}

// NewSet returns a Set without limits.
func NewSet(o Options) *Set { return &Set{opt: o} }

// Replace puts other limits, which have been validated, in the place of those in force.
// One with the same key goes on counting with the new numbers. Calls that run, and were
// not counted by a key before, are not counted by it later.
func (s *Set) Replace(limits []catalog.Limit) {
	limits = ordered(limits)
	s.mu.Lock()
	defer s.mu.Unlock()
	if slices.Equal(limits, s.Limits()) {
		return
	}
	var pool []*Limiter
	if old := s.active.Load(); old != nil {
		pool = slices.Clone(*old)
	}
	pool = append(pool, s.idle...)
	next := make([]*Limiter, 0, len(limits))
	for _, l := range limits {
		i := slices.IndexFunc(pool, func(m *Limiter) bool { return m.limit.Load().Key == l.Key })
		if i < 0 {
			next = append(next, NewLimiter(l, s.opt))
			continue
		}
		pool[i].Set(l)
		next = append(next, pool[i])
		pool = slices.Delete(pool, i, i+1)
	}
	if len(next) == 0 {
		s.active.Store(nil)
	} else {
		s.active.Store(&next)
	}
	for _, m := range pool {
		m.lift()
	}
	s.idle = slices.DeleteFunc(pool, func(m *Limiter) bool { return m.Running() == 0 && m.Waiting() == 0 })
}

// ordered returns limits in the order in which calls pass them.
func ordered(limits []catalog.Limit) []catalog.Limit {
	out := slices.Clone(limits)
	slices.SortStableFunc(out, func(a, b catalog.Limit) int {
		if (a.Key == "") != (b.Key == "") {
			return cmp.Compare(len(b.Key), len(a.Key)) // the one without a key is last
		}
		return cmp.Compare(a.Key, b.Key)
	})
	return out
}

// Limits returns what is in force, in the order in which calls pass.
func (s *Set) Limits() []catalog.Limit {
	active := s.active.Load()
	if active == nil {
		return nil
	}
	out := make([]catalog.Limit, 0, len(*active))
	for _, m := range *active {
		out = append(out, m.Limit())
	}
	return out
}

// Binds reports whether there is any limit.
func (s *Set) Binds() bool { return s.active.Load() != nil }

// ReadsRequest reports whether a limit is counted by what the request says.
func (s *Set) ReadsRequest() bool {
	active := s.active.Load()
	if active == nil {
		return false
	}
	return slices.ContainsFunc(*active, func(m *Limiter) bool { return m.source.kind == fieldKey || m.source.kind == funcKey })
}

// Enter lets a call in through all limits, and leaves in held what its end gives back.
func (s *Set) Enter(ctx context.Context, f *Facts, held *Held) *Refusal {
	active := s.active.Load()
	if active == nil {
		return nil
	}
	for _, m := range *active {
		p, r := m.enter(ctx, f.key(m.source))
		if r != nil {
			held.Undo()
			return r
		}
		held.add(p)
	}
	return nil
}

// Held is what a call holds of several limits. The zero value holds nothing.
type Held struct {
	n    int
	few  [2]Pass
	more []Pass
}

func (h *Held) add(p Pass) {
	if h.n < len(h.few) {
		h.few[h.n] = p
	} else {
		h.more = append(h.more, p)
	}
	h.n++
}

// Leave ends what was let in, in reverse order. It is safe to call again.
func (h *Held) Leave() {
	if h.n > 0 {
		h.end(false)
	}
}

// Undo is Leave for a call that did not begin.
func (h *Held) Undo() {
	if h.n > 0 {
		h.end(true)
	}
}

func (h *Held) end(undo bool) {
	for i := len(h.more) - 1; i >= 0; i-- {
		h.more[i].end(undo)
	}
	for i := min(h.n, len(h.few)) - 1; i >= 0; i-- {
		h.few[i].end(undo)
	}
	*h = Held{}
}
