package accept

import (
	"container/heap"
	"testing"
	"time"

	"pgregory.net/rapid"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestRampIsNotNoticedByAFew(t *testing.T) {
	t.Parallel()
	var r ramp
	now := noon
	for range 10 {
		for range rampStart {
			if park, away := r.admit(now, false); park != 0 || away != 0 {
				t.Fatalf("held up for %s, sent away for %s", park, away)
			}
		}
		now = now.Add(time.Second)
	}
}

func TestRampParksThenSendsAway(t *testing.T) {
	t.Parallel()
	var r ramp
	var now, parked, away int
	var last time.Duration
	for range 5000 {
		p, a := r.admit(noon, false)
		switch {
		case a > 0:
			away++
			if a < last {
				t.Fatalf("one that comes later is to be back after %s, one before it after %s", a, last)
			}
			last = a
		case p > 0:
			parked++
			if p > maxPark {
				t.Fatalf("parked for %s", p)
			}
		default:
			now++
		}
	}
	if now != rampStart || parked != rampStart || away != 5000-2*rampStart {
		t.Fatalf("%d at once, %d parked, %d sent away", now, parked, away)
	}
	if last < 5*time.Second || last > 10*time.Second {
		t.Fatalf("the last one is to be back after %s", last)
	}
}

func TestRampGrowsOnlyWhileThereIsAQueueThatMoves(t *testing.T) {
	t.Parallel()
	var r ramp
	surge := func(at time.Duration, behind bool) float64 {
		for range 3000 {
			r.admit(noon.Add(at), behind)
		}
		return r.rate
	}
	for _, c := range []struct {
		at     time.Duration
		behind bool
		rate   float64
	}{
		{0, false, 200},
		{500 * time.Millisecond, false, 200},
		{time.Second, false, 400},
		{1900 * time.Millisecond, false, 400},
		{2 * time.Second, false, 800},
		{2900 * time.Millisecond, false, 800},
		{3 * time.Second, true, 400},
		{3900 * time.Millisecond, true, 400},
		{4 * time.Second, true, 200},
		{4900 * time.Millisecond, true, 200},
		{5 * time.Second, true, 100},
		{5900 * time.Millisecond, true, 100},
		{6 * time.Second, true, 100},
		{8 * time.Second, false, 100}, // there was no queue for a while
		{18 * time.Second, false, 200},
	} {
		if got := surge(c.at, c.behind); got != c.rate {
			t.Fatalf("after %s the rate is %v, want %v", c.at, got, c.rate)
		}
	}
	for at := 19 * time.Second; at < 30*time.Second; at += 100 * time.Millisecond {
		surge(at, false)
	}
	if park, away := r.admit(noon.Add(30*time.Second), false); park != 0 || away != 0 {
		t.Fatalf("still held up for %s, sent away for %s", park, away)
	}
}

// arrivals is a queue of clients by when they come.
type arrivals []time.Duration

func (a *arrivals) Len() int           { return len(*a) }
func (a *arrivals) Less(i, j int) bool { return (*a)[i] < (*a)[j] }
func (a *arrivals) Swap(i, j int)      { (*a)[i], (*a)[j] = (*a)[j], (*a)[i] }
func (a *arrivals) Push(x any)         { *a = append(*a, x.(time.Duration)) }
func (a *arrivals) Pop() any {
	last := (*a)[len(*a)-1]
	*a = (*a)[:len(*a)-1]
	return last
}

// TestRampTakesEverybodyBack plays 5,000 clients that come together, and come back when
// they are told to, against machines of any speed that makes it possible.
func TestRampTakesEverybodyBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var r ramp
		clients := rapid.IntRange(1, 5000).Draw(t, "clients")
		speed := rapid.IntRange(300, 5000).Draw(t, "handshakes a second")
		within := time.Duration(rapid.IntRange(0, 5000).Draw(t, "come within")) * time.Millisecond
		var come arrivals
		for i := range clients {
			come = append(come, within*time.Duration(i)/time.Duration(clients))
		}
		heap.Init(&come)
		jitter := func() time.Duration {
			return time.Duration(rapid.IntRange(0, 999).Draw(t, "jitter")) * time.Millisecond
		}
		if clients > 500 {
			n := 0
			jitter = func() time.Duration { n += 379; return time.Duration(n%1000) * time.Millisecond }
		}
		each := time.Second / time.Duration(speed)
		var free, last time.Duration // when the machine has no handshake left, and the end of the last
		tries := 0
		for len(come) > 0 {
			now := heap.Pop(&come).(time.Duration)
			tries++
			behind := free-now > 256*each
			park, away := r.admit(noon.Add(now), behind)
			if away > 0 {
				heap.Push(&come, now+away.Truncate(time.Second)+jitter())
				continue
			}
			free = max(free, now+park) + each
			last = max(last, free)
			if free-(now+park) > 10*time.Second {
				t.Fatalf("a handshake would wait for %s", free-(now+park))
			}
		}
		if last > 30*time.Second {
			t.Fatalf("the last of %d is back after %s, with %d tries", clients, last, tries)
		}
		if tries > 8*clients {
			t.Fatalf("%d clients needed %d tries", clients, tries)
		}
	})
}
