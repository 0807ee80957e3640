package resilience

import (
	"sync"
	"sync/atomic"
	"time"
)

// Standing is what speaks against calling an instance now.
type Standing uint8

// What may speak against an instance.
const (
	// Bad: the last attempt to reach it has failed.
	Bad Standing = 1 << iota
	// Cutoff: its breaker is open and it is not time for a probe.
	Cutoff
	// Ejected: it fails where others of its service do not.
	Ejected
	// Hinted: others have found it failing.
	Hinted
)

// Screen returns which of the marks on a list of instances are reason enough to avoid
// those who have them: a mark that would leave nobody is ignored, hints first, then
// ejections, then that an instance is hard to reach. An instance with Cutoff is out in
// any case and counts for nothing here.
func Screen(list []Standing) (avoid Standing) {
	for _, avoid := range [...]Standing{Bad | Ejected | Hinted, Bad | Ejected, Bad} {
		for _, s := range list {
			if s&(Cutoff|avoid) == 0 {
				return avoid
			}
		}
	}
	return 0
}

// Tracker is what the instances that one process calls have in common: the settings of
// their breakers, and how many of them something speaks against.
type Tracker struct {
	Breaking Breaking
	marked   atomic.Int64
}

// Trouble reports whether something may speak against any instance: the one question
// that is asked on every call.
func (t *Tracker) Trouble() bool { return t.marked.Load() != 0 }

// Health is what one process has learnt about an instance by calling it: whether it can
// be reached, how its calls end, its breaker and its ejection. It is safe for concurrent
// use. now is on any scale of the caller that starts at zero and moves forward only.
type Health struct {
	// marks are those of Bad, Cutoff and Ejected that may be set: more than hold now,
	// as time passes, and never fewer.
	marks  atomic.Uint32
	streak atomic.Uint32 // failures in a row
	window atomic.Pointer[window]

	mu       sync.Mutex
	tracker  *Tracker
	breaker  breaker
	ejection ejection
}

// Join has the marks of h counted by t, whose breakers' settings hold from now on. It is
// called before anything else.
func (h *Health) Join(t *Tracker) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tracker = t
}

// Leave has the marks of h not counted any more.
func (h *Health) Leave() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.tracker != nil && h.marks.Load() != 0 {
		h.tracker.marked.Add(-1)
	}
	h.tracker = nil
}

// mark sets and takes away marks, with mu held.
func (h *Health) mark(set, away Standing) {
	before := h.marks.Load()
	after := (before &^ uint32(away)) | uint32(set)
	h.marks.Store(after)
	if t := h.tracker; t != nil && (before == 0) != (after == 0) {
		if after == 0 {
			t.marked.Add(-1)
		} else {
			t.marked.Add(1)
		}
	}
}

// SetBad says whether the last attempt to reach the instance has failed.
func (h *Health) SetBad(bad bool) {
	if !bad && Standing(h.marks.Load())&Bad == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if bad {
		h.mark(Bad, 0)
	} else {
		h.mark(0, Bad)
	}
}

// Bad reports what SetBad said last.
func (h *Health) Bad() bool { return Standing(h.marks.Load())&Bad != 0 }

// Standing returns what speaks against the instance now, hints aside.
func (h *Health) Standing(now time.Duration) Standing {
	if h.marks.Load() == 0 {
		return 0
	}
	return h.standing(now, false)
}

// StandingAlone is Standing for a call that has no other instance left.
func (h *Health) StandingAlone(now time.Duration) Standing { return h.standing(now, true) }

func (h *Health) standing(now time.Duration, alone bool) Standing {
	h.mu.Lock()
	defer h.mu.Unlock()
	s := Standing(h.marks.Load())
	if s&Ejected != 0 && now >= h.ejection.until {
		h.mark(0, Ejected)
		s &^= Ejected
	}
	if s&Cutoff != 0 {
		switch {
		case h.breaker.stale(now):
			h.close()
			s &^= Cutoff
		case now >= h.breaker.next(alone):
			s &^= Cutoff
		}
	}
	return s
}

// Next returns how long it is until the instance may be probed by a call that has no
// other instance; 0 when it may be called now.
func (h *Health) Next(now time.Duration) time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.breaker.open {
		return 0
	}
	return max(h.breaker.next(true)-now, 0)
}

// Claim asks whether a call may go to the instance. Where the breaker is closed it may,
// with the zero Ticket; where it is open exactly one call at a time may, when it is time
// for a probe, and its Ticket goes to Record. alone: no other instance is left.
func (h *Health) Claim(now time.Duration, alone bool) (t Ticket, ok bool) {
	if Standing(h.marks.Load())&Cutoff == 0 {
		return 0, true
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.breaker.open {
		return 0, true
	}
	t = h.breaker.claim(h.breaking(), now, alone)
	return t, t != 0
}

// Record takes in how an attempt ended and reports whether the breaker has opened by it,
// also anew. Each attempt that Claim let pass is recorded once. random is in [0, 1).
func (h *Health) Record(now time.Duration, t Ticket, v Verdict, random float64) (opened bool) {
	if t != 0 {
		return h.probed(now, t, v, random)
	}
	switch v {
	case Succeeded:
		if s := h.counts().at(now); s != nil {
			s.ok.Add(1)
		}
		if h.streak.Load() != 0 {
			h.streak.Store(0)
		}
	case Failed:
		return h.failed(now, random)
	}
	return false
}

func (h *Health) counts() *window {
	if w := h.window.Load(); w != nil {
		return w
	}
	h.window.CompareAndSwap(nil, new(window))
	return h.window.Load()
}

func (h *Health) failed(now time.Duration, random float64) (opened bool) {
	w := h.counts()
	if s := w.at(now); s != nil {
		s.failed.Add(1)
	}
	h.streak.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	b := h.breaking()
	if b.Off || h.breaker.open {
		return false
	}
	ok, failed := w.total(now)
	if ok+failed < b.Calls || float64(failed) < b.Share*float64(ok+failed) {
		return false
	}
	h.trip(now, random)
	return true
}

// probed takes in the end of a probe.
func (h *Health) probed(now time.Duration, t Ticket, v Verdict, random float64) (opened bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.breaker.open || h.breaker.probe != t {
		return false // it took so long that another probe has been made since
	}
	switch v {
	case Succeeded:
		h.close()
	case Failed:
		h.trip(now, random)
		return true
	default:
		h.breaker.probe = 0 // it has shown nothing: the next call is the probe
	}
	return false
}

func (h *Health) trip(now time.Duration, random float64) {
	h.breaker.trip(h.breaking(), now, random)
	h.counts().clear()
	h.mark(Cutoff, 0)
}

// close makes the breaker as new, with mu held.
func (h *Health) close() {
	h.breaker = breaker{lastTicket: h.breaker.lastTicket}
	h.streak.Store(0)
	h.mark(0, Cutoff)
}

var defaultBreaking = DefaultBreaking()

func (h *Health) breaking() *Breaking {
	if h.tracker == nil {
		return &defaultBreaking
	}
	return &h.tracker.Breaking
}

// Renew says that the instance may have become another, as after a restart: an open
// breaker lets the next call probe it.
func (h *Health) Renew(now time.Duration) {
	if Standing(h.marks.Load())&Cutoff == 0 {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.breaker.until, h.breaker.alone = min(h.breaker.until, now), min(h.breaker.alone, now)
}

// Reset forgets all that was learnt but that the instance is hard to reach.
func (h *Health) Reset() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.close()
	h.ejection = ejection{}
	h.mark(0, Ejected)
	if w := h.window.Load(); w != nil {
		w.clear()
	}
}

// Stats returns what is known for the comparison with the others of the service.
func (h *Health) Stats(now time.Duration) Stats {
	s := Stats{Streak: int(h.streak.Load()), Ejected: Standing(h.marks.Load())&Ejected != 0 && h.standing(now, false)&Ejected != 0}
	if w := h.window.Load(); w != nil {
		s.OK, s.Failed = w.total(now)
	}
	return s
}

// Eject has the instance avoided, for longer each time. random is in [0, 1).
func (h *Health) Eject(now time.Duration, random float64) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ejection.again(now, random)
	h.streak.Store(0)
	if w := h.window.Load(); w != nil {
		w.clear()
	}
	h.mark(Ejected, 0)
}
