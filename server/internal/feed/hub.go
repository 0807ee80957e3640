package feed

import (
	"sync"

	"telford.dev/telford/internal/errs"
)

// hub wakes followers.
type hub struct {
	mu      sync.Mutex // guards what follows
	most    int
	seats   map[string]map[*seat]struct{}
	count   int
	stopped bool
}

// seat is the place of one follower. woken holds at most one word: that there is
// something new since it was taken.
type seat struct {
	namespace string
	woken     chan struct{}
	ended     chan struct{}
	why       error // readable once ended is closed
}

func (h *hub) init(most int) { h.most, h.seats = most, make(map[string]map[*seat]struct{}) }

func (h *hub) join(namespace string) (*seat, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.stopped:
		return nil, stopping()
	case h.count >= h.most:
		return nil, errs.New(errs.ResourceExhausted, "%d follow the feed, which is the limit; end some, or ask for pages instead", h.count)
	}
	s := &seat{namespace: namespace, woken: make(chan struct{}, 1), ended: make(chan struct{})}
	if h.seats[namespace] == nil {
		h.seats[namespace] = make(map[*seat]struct{})
	}
	h.seats[namespace][s] = struct{}{}
	h.count++
	return s, nil
}

func (h *hub) leave(s *seat) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.end(s, errs.New(errs.Canceled, "the follower was closed"))
}

// end takes a seat away; mu is held.
func (h *hub) end(s *seat, why error) {
	if _, ok := h.seats[s.namespace][s]; !ok {
		return
	}
	delete(h.seats[s.namespace], s)
	if len(h.seats[s.namespace]) == 0 {
		delete(h.seats, s.namespace)
	}
	h.count--
	s.why = why
	close(s.ended)
}

func (h *hub) wake(namespace string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.seats[namespace] {
		select {
		case s.woken <- struct{}{}:
		default:
		}
	}
}

func (h *hub) remove(namespace string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.seats[namespace] {
		h.end(s, errs.New(errs.NotFound, "namespace %q has been removed", namespace))
	}
}

func (h *hub) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	for _, seats := range h.seats {
		for s := range seats {
			h.end(s, stopping())
		}
	}
}

func (h *hub) open() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count
}

func stopping() error {
	return errs.New(errs.Unavailable, "the runtime is stopping; go on with another, or after its restart")
}
