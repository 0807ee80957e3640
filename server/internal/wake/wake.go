// Package wake owns who waits for something new in a namespace. A Hub knows that there is
// something, never what: who is woken looks for itself, from the place that it keeps. It
// starts no goroutines.
package wake

import (
	"sync"

	"telford.dev/telford/internal/errs"
)

// Hub wakes those who wait. Make one with New; its methods are safe for concurrent use.
type Hub struct {
	mu      sync.Mutex // guards what follows
	most    int
	seats   map[string]map[*Seat]struct{}
	count   int
	stopped bool
}

// New returns a Hub with room for so many seats.
func New(most int) *Hub { return &Hub{most: most, seats: make(map[string]map[*Seat]struct{})} }

// Seat is the place of one who waits.
type Seat struct {
	namespace string
	woken     chan struct{}
	ended     chan struct{}
	why       error // readable once ended is closed
}

// Woken has at most one word in it: that there may be something new since it was taken.
func (s *Seat) Woken() <-chan struct{} { return s.woken }

// Ended is closed when the seat is taken away; Err says why.
func (s *Seat) Ended() <-chan struct{} { return s.ended }

// Err is why the seat was taken away; nil before.
func (s *Seat) Err() error {
	select {
	case <-s.ended:
		return s.why
	default:
		return nil
	}
}

// Join takes a seat in a namespace. unavailable: the Hub has stopped; resource_exhausted:
// there is no room.
func (h *Hub) Join(namespace string) (*Seat, error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.stopped:
		return nil, stopping()
	case h.count >= h.most:
		return nil, errs.New(errs.ResourceExhausted, "%d wait for changes already, which is the limit; end some, or ask for pages instead", h.count)
	}
	s := &Seat{namespace: namespace, woken: make(chan struct{}, 1), ended: make(chan struct{})}
	if h.seats[namespace] == nil {
		h.seats[namespace] = make(map[*Seat]struct{})
	}
	h.seats[namespace][s] = struct{}{}
	h.count++
	return s, nil
}

// Leave gives a seat back. It is safe more than once.
func (h *Hub) Leave(s *Seat) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.end(s, errs.New(errs.Canceled, "it was closed"))
}

// end takes a seat away; mu is held.
func (h *Hub) end(s *Seat, why error) {
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

// Wake tells all who wait in a namespace. It never blocks.
func (h *Hub) Wake(namespace string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.seats[namespace] {
		select {
		case s.woken <- struct{}{}:
		default:
		}
	}
}

// Remove takes the seats of a namespace that has ended away: not_found.
func (h *Hub) Remove(namespace string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.seats[namespace] {
		h.end(s, errs.New(errs.NotFound, "namespace %q has been removed", namespace))
	}
}

// Stop takes all seats away, and has none from now on: unavailable. It is safe more than
// once.
func (h *Hub) Stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.stopped = true
	for _, seats := range h.seats {
		for s := range seats {
			h.end(s, stopping())
		}
	}
}

// Count is how many seats are taken.
func (h *Hub) Count() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.count
}

func stopping() error {
	return errs.New(errs.Unavailable, "the runtime is stopping; go on with another, or after its restart")
}
