// Package clock owns time as the rest of Telford sees it: a Clock that is real in
// production and moved by hand in tests. Its timers run their functions on goroutines
// of the runtime (Real) or of whoever advances the clock (Manual).
package clock

import (
	"sort"
	"sync"
	"time"
)

// Clock tells the time and calls back.
type Clock interface {
	Now() time.Time
	// AfterFunc calls f once, d from now, on a goroutine of its own.
	AfterFunc(d time.Duration, f func()) Timer
	// NewTimer sends the time on the channel of the Timer once, d from now.
	NewTimer(d time.Duration) Timer
}

// Timer is one pending call or tick.
type Timer interface {
	// C is the channel of a NewTimer, nil for an AfterFunc.
	C() <-chan time.Time
	// Stop reports whether it kept the timer from firing.
	Stop() bool
	// Reset makes the timer fire d from now, as new.
	Reset(d time.Duration) bool
}

// Real is the clock of the machine.
func Real() Clock { return realClock{} }

type realClock struct{}

func (realClock) Now() time.Time { return time.Now() }

func (realClock) AfterFunc(d time.Duration, f func()) Timer { return realTimer{time.AfterFunc(d, f)} }

func (realClock) NewTimer(d time.Duration) Timer { return realTimer{time.NewTimer(d)} }

type realTimer struct{ *time.Timer }

func (t realTimer) C() <-chan time.Time { return t.Timer.C }

// Manual is a clock that moves when it is told to.
type Manual struct {
	mu     sync.Mutex
	now    time.Time
	timers map[*manualTimer]struct{}
}

// NewManual returns a clock that stands at now.
func NewManual(now time.Time) *Manual {
	return &Manual{now: now, timers: make(map[*manualTimer]struct{})}
}

// Now implements Clock.
func (m *Manual) Now() time.Time {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.now
}

// AfterFunc implements Clock; f runs on the goroutine that advances the clock.
func (m *Manual) AfterFunc(d time.Duration, f func()) Timer {
	t := &manualTimer{clock: m, f: f}
	t.Reset(d)
	return t
}

// NewTimer implements Clock.
func (m *Manual) NewTimer(d time.Duration) Timer {
	t := &manualTimer{clock: m, c: make(chan time.Time, 1)}
	t.Reset(d)
	return t
}

// Pending returns the number of timers that have not fired.
func (m *Manual) Pending() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.timers)
}

// Set moves the clock to a moment, also backwards, without firing what was passed by
// going back.
func (m *Manual) Set(now time.Time) {
	if d := now.Sub(m.Now()); d > 0 {
		m.Advance(d)
		return
	}
	m.mu.Lock()
	m.now = now
	m.mu.Unlock()
}

// Advance moves the clock forward by d and fires every timer due on the way, in order
// of time, each seeing its own due time as now.
func (m *Manual) Advance(d time.Duration) {
	m.mu.Lock()
	end := m.now.Add(d)
	for {
		due := make([]*manualTimer, 0, len(m.timers))
		for t := range m.timers {
			if !t.at.After(end) {
				due = append(due, t)
			}
		}
		if len(due) == 0 {
			break
		}
		sort.Slice(due, func(i, j int) bool { return due[i].at.Before(due[j].at) })
		t := due[0]
		delete(m.timers, t)
		if t.at.After(m.now) {
			m.now = t.at
		}
		now := m.now
		m.mu.Unlock()
		t.fire(now)
		m.mu.Lock()
	}
	m.now = end
	m.mu.Unlock()
}

// Leap moves the clock forward by d as a machine that has slept does: whatever has come
// due fires once, late, seeing the end of the leap as now. What that makes due at once
// fires too.
func (m *Manual) Leap(d time.Duration) {
	m.mu.Lock()
	m.now = m.now.Add(d)
	due := make([]*manualTimer, 0, len(m.timers))
	for t := range m.timers {
		if !t.at.After(m.now) {
			due = append(due, t)
			delete(m.timers, t)
		}
	}
	m.mu.Unlock()
	sort.Slice(due, func(i, j int) bool { return due[i].at.Before(due[j].at) })
	for _, t := range due {
		t.fire(m.Now())
	}
	m.Advance(0)
}

type manualTimer struct {
	clock *Manual
	at    time.Time
	f     func()
	c     chan time.Time
}

func (t *manualTimer) fire(now time.Time) {
	if t.f != nil {
		t.f()
		return
	}
	select {
	case t.c <- now:
	default:
	}
}

func (t *manualTimer) C() <-chan time.Time { return t.c }

func (t *manualTimer) Stop() bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	_, pending := t.clock.timers[t]
	delete(t.clock.timers, t)
	return pending
}

func (t *manualTimer) Reset(d time.Duration) bool {
	t.clock.mu.Lock()
	defer t.clock.mu.Unlock()
	_, pending := t.clock.timers[t]
	t.at = t.clock.now.Add(d)
	t.clock.timers[t] = struct{}{}
	return pending
}
