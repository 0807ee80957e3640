package session

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestStates(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		from State
		by   Event
		to   State // empty: refused
	}{
		{Connecting, Dialed, Handshaking},
		{Handshaking, Welcomed, Ready},
		{Ready, Began, Active},
		{Active, Idled, Ready},
		{Active, Missed, Suspended},
		{Connecting, Missed, Suspended},
		{Suspended, Retry, Connecting},
		{Active, Drain, Draining},
		{Draining, Close, Closed},
		{Active, FenceOff, Fenced},
		{Draining, FenceOff, Fenced},
		{Draining, Missed, ""},
		{Draining, Drain, ""},
		{Fenced, Retry, ""},
		{Fenced, Close, ""},
		{Closed, FenceOff, ""},
		{Ready, Welcomed, ""},
		{Ready, Retry, ""},
	} {
		to, err := c.from.Next(c.by)
		if c.to == "" && (err == nil || to != c.from) {
			t.Errorf("%s by %s became %s", c.from, c.by, to)
		}
		if c.to != "" && (err != nil || to != c.to) {
			t.Errorf("%s by %s became %s, %v; want %s", c.from, c.by, to, err, c.to)
		}
	}
}

func TestHeartbeatAdapts(t *testing.T) {
	t.Parallel()
	h := NewHeartbeat(12*time.Second, 90*time.Second)
	if h.Next() != 4*time.Second {
		t.Fatalf("base %s", h.Next())
	}
	for range 10 {
		h.OnPong(10 * time.Millisecond)
	}
	if h.Next() != 15*time.Second {
		t.Fatalf("fast and steady: %s", h.Next())
	}
	if h.OnMiss() {
		t.Fatal("suspended after one miss")
	}
	if h.Next() != 2*time.Second {
		t.Fatalf("after a miss: %s", h.Next())
	}
	h.OnReceived()
	if h.OnMiss() {
		t.Fatal("a sign of life between two misses did not count")
	}
	if !h.OnMiss() {
		t.Fatal("not suspended after two misses")
	}
	h.OnPong(10 * time.Millisecond)
	if h.Next() != 4*time.Second {
		t.Fatalf("after a recovery: %s", h.Next())
	}
	for range 50 {
		h.OnPong(400 * time.Millisecond)
	}
	if h.Next() != 4*time.Second || h.RTT() < 300*time.Millisecond {
		t.Fatalf("slow: %s, round trip %s", h.Next(), h.RTT())
	}
	if h.PongTimeout() < 4*300*time.Millisecond {
		t.Fatalf("a slow path is given %s", h.PongTimeout())
	}
}

func TestHeartbeatsOfManyDrawApart(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		plain := NewHeartbeat(0, 0)
		h := NewHeartbeat(0, 0).Spread(func() float64 { return rapid.Float64Range(0, 0.999).Draw(t, "random") })
		for range 20 {
			if d := h.Next(); d > plain.Next() || d < plain.Next()*9/10 || d != h.Next() {
				t.Fatalf("waits %s, and %s without jitter", d, plain.Next())
			}
			if rapid.Bool().Draw(t, "missed") {
				plain.OnMiss()
				h.OnMiss()
			} else {
				plain.OnPong(time.Millisecond)
				h.OnPong(time.Millisecond)
			}
		}
	})
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	full := func(n int64) int64 { return n - 1 }
	b := Backoff{Rand: full}
	var got []time.Duration
	for range 11 {
		d, _, _ := b.Next()
		got = append(got, d)
	}
	ms := time.Millisecond
	want := []time.Duration{100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 6400 * ms, 12800 * ms, 25600 * ms, 30000 * ms, 30000 * ms}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
	b.Reset()
	if d, n, _ := b.Next(); d != 100*ms || n != 1 {
		t.Fatalf("after a reset: %s, attempt %d", d, n)
	}
	// Who is asked to come back waits for that and for the jitter, and has not failed.
	asked := Backoff{Attempts: 1, Rand: full}
	for i, want := range []time.Duration{100 * time.Millisecond, 200 * time.Millisecond, 400 * time.Millisecond, 800 * time.Millisecond} {
		if d, attempt := asked.Asked(5 * time.Second); d != 5*time.Second+want || attempt != 1 {
			t.Errorf("asked %d times: attempt %d after %s", i+1, attempt, d)
		}
	}
	if d, attempt, ok := asked.Next(); !ok || attempt != 1 || d != 1600*time.Millisecond {
		t.Errorf("the first failure: attempt %d after %s, %v", attempt, d, ok)
	}
	asked.Reset()
	if d, _ := asked.Asked(0); d != 100*time.Millisecond {
		t.Errorf("after a success: %s", d)
	}
	few := Backoff{Attempts: 2, Rand: full}
	few.Next()
	few.Next()
	if _, _, ok := few.Next(); ok {
		t.Fatal("a third attempt of two")
	}
	rapid.Check(t, func(t *rapid.T) {
		b := Backoff{Min: time.Duration(rapid.Int64Range(1, 1e9).Draw(t, "min")), Max: time.Duration(rapid.Int64Range(1, 1e12).Draw(t, "max"))}
		for range rapid.IntRange(1, 80).Draw(t, "n") {
			if d, _, ok := b.Next(); !ok || d < 0 || d > max(b.Min, b.Max) {
				t.Fatalf("a delay of %s", d)
			}
		}
	})
}

func TestSetAgainstMap(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var s set
		model := map[uint64]bool{}
		floor := func() uint64 {
			n := uint64(0)
			for model[n+1] {
				n++
			}
			return n
		}
		t.Repeat(map[string]func(*rapid.T){
			"add": func(t *rapid.T) {
				n := rapid.Uint64Range(1, 700).Draw(t, "n")
				if s.add(n) == model[n] {
					t.Fatalf("add(%d) with it in: %v", n, model[n])
				}
				model[n] = true
			},
			"raise": func(t *rapid.T) {
				n := rapid.Uint64Range(0, 700).Draw(t, "n")
				s.raise(n)
				for i := uint64(1); i <= n; i++ {
					model[i] = true
				}
			},
			"": func(t *rapid.T) {
				if s.floor != floor() {
					t.Fatalf("floor %d, want %d", s.floor, floor())
				}
				var above []uint64
				for n := uint64(1); n <= 705; n++ {
					if s.has(n) != model[n] {
						t.Fatalf("has(%d) is %v", n, s.has(n))
					}
					if model[n] && n > s.floor {
						above = append(above, n)
					}
				}
				if diff := cmp.Diff(above, s.above()); diff != "" {
					t.Fatal(diff)
				}
			},
		})
	})
}
