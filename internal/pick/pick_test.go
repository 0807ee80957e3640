package pick_test

import (
	"math"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"telford.dev/telford/internal/pick"
)

// warm is a time long after every start in these tests that does not set one.
const warm = time.Hour

func candidates(n int) []pick.Candidate {
	cs := make([]pick.Candidate, n)
	for i := range cs {
		cs[i] = pick.Candidate{Load: new(pick.Load)}
	}
	return cs
}

func TestPickReturnsMinusOneWhenNothingIsLeft(t *testing.T) {
	t.Parallel()
	if i := pick.Pick(nil, pick.Exclusions{}, warm, 1); i != -1 {
		t.Errorf("pick from nothing = %d", i)
	}
	cs := candidates(2)
	ex := pick.Exclusions{Tried: []*pick.Load{cs[0].Load, cs[1].Load}}
	if i := pick.Pick(cs, ex, warm, 1); i != -1 {
		t.Errorf("pick from tried ones = %d", i)
	}
}

func TestPickPrefersTiersInOrder(t *testing.T) {
	t.Parallel()
	// The order from best to worst: local, elsewhere, local and full, elsewhere and
	// full, local and avoided, elsewhere and avoided.
	cs := candidates(6)
	for i := range cs {
		cs[i].Load.SetLimit(2)
		cs[i].Local = i%2 == 0
	}
	for range 2 {
		cs[2].Load.Begin()
		cs[3].Load.Begin()
	}
	ex := pick.Exclusions{Avoid: []*pick.Load{cs[4].Load, cs[5].Load}}
	for want := range cs {
		for range 100 {
			if got := pick.Pick(cs, ex, warm, rand.Uint64()); got != want {
				t.Fatalf("with %d tried: picked %d, want %d", want, got, want)
			}
		}
		ex.Tried = append(ex.Tried, cs[want].Load)
	}
}

func TestPickAvoidsTheBusier(t *testing.T) {
	t.Parallel()
	cs := candidates(2)
	for range 5 {
		cs[0].Load.Begin()
	}
	for range 200 {
		if got := pick.Pick(cs, pick.Exclusions{}, warm, rand.Uint64()); got != 1 {
			t.Fatal("the busier of two was picked")
		}
	}
	// Twice the weight carries twice the calls.
	cs[0].Weight, cs[1].Weight = 10, 1
	cs[1].Load.Begin()
	for range 200 {
		if got := pick.Pick(cs, pick.Exclusions{}, warm, rand.Uint64()); got != 0 {
			t.Fatal("5 calls at weight 10 were taken for more than 1 call at weight 1")
		}
	}
}

func TestIdleInstancesShareByWeight(t *testing.T) {
	t.Parallel()
	cs := candidates(3)
	cs[0].Weight, cs[1].Weight, cs[2].Weight = 1, 2, 5
	r := rand.New(rand.NewPCG(1, 2))
	const n = 80_000
	var got [3]int
	for range n {
		got[pick.Pick(cs, pick.Exclusions{}, warm, r.Uint64())]++
	}
	for i, share := range []float64{1.0 / 8, 2.0 / 8, 5.0 / 8} {
		if f := float64(got[i]) / n; math.Abs(f-share) > 0.01 {
			t.Errorf("instance %d of weight %d got %.3f of the calls, want %.3f", i, cs[i].Weight, f, share)
		}
	}
}

func TestSlowStartGrowsTheShare(t *testing.T) {
	t.Parallel()
	cs := candidates(4)
	cs[3].Load.Start(warm)
	r := rand.New(rand.NewPCG(3, 4))
	share := func(at time.Duration) float64 {
		const n = 40_000
		got := 0
		for range n {
			if pick.Pick(cs, pick.Exclusions{}, at, r.Uint64()) == 3 {
				got++
			}
		}
		return float64(got) / n
	}
	for _, c := range []struct {
		at       time.Duration
		min, max float64
	}{
		{warm, 0.02, 0.05},
		{warm - time.Minute, 0.02, 0.05}, // a start in the future counts as fresh
		{warm + pick.SlowStart/2, 0.12, 0.17},
		{warm + pick.SlowStart, 0.24, 0.26},
		{warm + time.Hour, 0.24, 0.26},
	} {
		if got := share(c.at); got < c.min || got > c.max {
			t.Errorf("%v after the start the fourth of four gets %.3f of the calls, want %.2f to %.2f", c.at-warm, got, c.min, c.max)
		}
	}
}

// TestFourthInstanceUnderLoad runs calls of equal length and adds an instance: within
// three seconds it carries its part, and never more than half of the calls on the way.
func TestFourthInstanceUnderLoad(t *testing.T) {
	t.Parallel()
	cs := candidates(4)
	r := rand.New(rand.NewPCG(5, 6))
	const tick = time.Millisecond
	var running [20][]int // by the tick in which they end
	run := func(from, to time.Duration, among []pick.Candidate) (share float64) {
		total, fourth := 0, 0
		for now := from; now < to; now += tick {
			slot := int(now/tick) % len(running)
			for _, i := range running[slot] {
				cs[i].Load.End()
			}
			running[slot] = running[slot][:0]
			for range 4 {
				i := pick.Pick(among, pick.Exclusions{}, now, r.Uint64())
				cs[i].Load.Begin()
				end := (slot + 5 + r.IntN(10)) % len(running)
				running[end] = append(running[end], i)
				total++
				if i == 3 {
					fourth++
				}
			}
		}
		return float64(fourth) / float64(total)
	}
	run(warm, warm+time.Second, cs[:3])
	cs[3].Load.Start(warm + time.Second)
	if s := run(warm+time.Second, warm+1100*time.Millisecond, cs); s > 0.5 {
		t.Errorf("the fresh instance was flooded with %.2f of the calls", s)
	}
	run(warm+1100*time.Millisecond, warm+3*time.Second, cs)
	if s := run(warm+3*time.Second, warm+5*time.Second, cs); s < 0.2 || s > 0.3 {
		t.Errorf("after two seconds the fourth instance gets %.2f of the calls, want 0.20 to 0.30", s)
	}
}

func TestPickNeverTakesTheExcluded(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 40).Draw(t, "n")
		cs := candidates(n)
		var ex pick.Exclusions
		left, best := 0, 6
		for i := range cs {
			c := &cs[i]
			c.Local = rapid.Bool().Draw(t, "local")
			c.Weight = rapid.IntRange(-1, 2*pick.MaxWeight).Draw(t, "weight")
			limit, out := rapid.IntRange(0, 3).Draw(t, "limit"), rapid.IntRange(0, 4).Draw(t, "outstanding")
			c.Load.SetLimit(limit)
			for range out {
				c.Load.Begin()
			}
			if rapid.Bool().Draw(t, "fresh") {
				c.Load.Start(warm)
			}
			switch rapid.IntRange(0, 4).Draw(t, "fate") {
			case 0:
				ex.Tried = append(ex.Tried, c.Load)
				continue
			case 4:
				c.Load.SetAway(true)
				continue
			case 1:
				ex.Avoid = append(ex.Avoid, c.Load)
			}
			left++
			best = min(best, tierOf(c, ex))
		}
		i := pick.Pick(cs, ex, warm+rapid.Custom(func(t *rapid.T) time.Duration {
			return time.Duration(rapid.Int64Range(-int64(time.Second), int64(2*time.Second)).Draw(t, "age"))
		}).Draw(t, "now"), rapid.Uint64().Draw(t, "random"))
		switch {
		case left == 0 && i != -1:
			t.Fatalf("picked %d although all are excluded", i)
		case left == 0:
			return
		case i < 0 || i >= n:
			t.Fatalf("picked %d of %d with %d left", i, n, left)
		case slices.Contains(ex.Tried, cs[i].Load), cs[i].Load.Away():
			t.Fatalf("picked %d, which is excluded", i)
		case tierOf(&cs[i], ex) != best:
			t.Fatalf("picked %d of tier %d although tier %d has one", i, tierOf(&cs[i], ex), best)
		}
	})
}

func tierOf(c *pick.Candidate, ex pick.Exclusions) int {
	t := 1
	switch {
	case slices.Contains(ex.Avoid, c.Load):
		t = 5
	case c.Load.Full():
		t = 3
	}
	if c.Local {
		t--
	}
	return t
}

// TestFairness bounds how far equal instances drift apart under any order of ends.
func TestFairness(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(2, 8).Draw(t, "n")
		cs := candidates(n)
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 7))
		for range 2000 {
			cs[pick.Pick(cs, pick.Exclusions{}, warm, r.Uint64())].Load.Begin()
		}
		least, most := int64(math.MaxInt64), int64(0)
		for i := range cs {
			least, most = min(least, cs[i].Load.Outstanding()), max(most, cs[i].Load.Outstanding())
		}
		// With two choices the spread is logarithmic in the logarithm of the number of
		// instances; with one it would be in the dozens.
		if most-least > 10 {
			t.Fatalf("of %d equal instances one has %d calls and another %d", n, most, least)
		}
	})
}

func TestPickWhileLoadsChange(t *testing.T) {
	t.Parallel()
	cs := candidates(5)
	for i := range cs {
		cs[i].Load.SetLimit(2)
	}
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 8))
			for range 5000 {
				i := pick.Pick(cs, pick.Exclusions{Tried: []*pick.Load{cs[0].Load}}, warm, r.Uint64())
				if i <= 0 {
					t.Errorf("picked %d", i)
					return
				}
				cs[i].Load.Begin()
				cs[i].Load.End()
			}
		})
	}
	wg.Wait()
	for i := range cs {
		if n := cs[i].Load.Outstanding(); n != 0 {
			t.Errorf("instance %d has %d calls outstanding at the end", i, n)
		}
	}
}

// TestPickDoesNotAllocate is not parallel: allocations are counted process-wide.
func TestPickDoesNotAllocate(t *testing.T) {
	cs := candidates(3)
	ex := pick.Exclusions{Avoid: []*pick.Load{cs[0].Load}, Tried: []*pick.Load{cs[1].Load}}
	if n := testing.AllocsPerRun(100, func() { pick.Pick(cs, ex, warm, 42) }); n != 0 {
		t.Errorf("a pick makes %v allocations", n)
	}
}

func BenchmarkPick(b *testing.B) {
	for _, n := range []int{1, 3, 16, 256} {
		b.Run(map[int]string{1: "1", 3: "3", 16: "16", 256: "256"}[n], func(b *testing.B) {
			cs := candidates(n)
			b.ReportAllocs()
			r := uint64(1)
			for b.Loop() {
				r = r*6364136223846793005 + 1442695040888963407
				i := pick.Pick(cs, pick.Exclusions{}, warm, r)
				cs[i].Load.Begin()
				cs[i].Load.End()
			}
		})
	}
}
