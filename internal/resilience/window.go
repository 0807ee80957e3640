package resilience

import (
	"sync"
	"sync/atomic"
	"time"
)

// The window over which calls are counted.
const (
	WindowTime  = 10 * time.Second
	windowSlots = 10
	slotTime    = WindowTime / windowSlots
)

// window counts the ends of calls of the last ten seconds. Counting takes one atomic add
// and no lock, except for the first call of each second.
type window struct {
	mu    sync.Mutex // orders those who begin a slot anew
	slots [windowSlots]slot
}

type slot struct {
	number     atomic.Int64 // which slot since the beginning, from 1
	ok, failed atomic.Uint32
}

// at returns the slot of now, nil when now is so late that the slot is in use again.
func (w *window) at(now time.Duration) *slot {
	number := int64(now/slotTime) + 1
	s := &w.slots[number%windowSlots]
	if s.number.Load() != number {
		return w.begin(s, number)
	}
	return s
}

func (w *window) begin(s *slot, number int64) *slot {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch had := s.number.Load(); {
	case had > number:
		return nil
	case had < number:
		s.ok.Store(0)
		s.failed.Store(0)
		s.number.Store(number)
	}
	return s
}

// total returns what the window holds at now.
func (w *window) total(now time.Duration) (ok, failed int) {
	number := int64(now/slotTime) + 1
	for i := range w.slots {
		s := &w.slots[i]
		if n := s.number.Load(); n > number-windowSlots && n <= number {
			ok += int(s.ok.Load())
			failed += int(s.failed.Load())
		}
	}
	return ok, failed
}

// clear forgets what was counted.
func (w *window) clear() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i := range w.slots {
		w.slots[i].ok.Store(0)
		w.slots[i].failed.Store(0)
	}
}
