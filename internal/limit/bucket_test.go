package limit

import (
	"math"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func newBucket(rate float64, burst int) *Bucket {
	b := &Bucket{}
	b.Set(rate, burst, 0)
	return b
}

// What a bucket gives in any stretch of time is at most its rate times the stretch, and a
// burst.
func TestBucketNeverExceedsItsRate(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		rate := rapid.Float64Range(0.0001, 1e6).Draw(t, "rate")
		burst := rapid.IntRange(0, 50).Draw(t, "burst")
		b := newBucket(rate, burst)
		if burst == 0 {
			burst = max(1, int(math.Ceil(rate)))
		}
		step := time.Duration(float64(time.Second) / rate)
		now, taken := time.Duration(0), []time.Duration(nil)
		for range rapid.IntRange(1, 200).Draw(t, "n") {
			now += time.Duration(rapid.Int64Range(0, int64(2*step)).Draw(t, "pause"))
			wait, ok := b.Take(now)
			switch {
			case !ok && wait <= 0:
				t.Fatalf("refused, and come back after %v", wait)
			case !ok && rapid.Bool().Draw(t, "wait"):
				now += wait
				if w, ok := b.Take(now); !ok {
					t.Fatalf("there is no token after the %v that were said, but after %v more", wait, w)
				}
				taken = append(taken, now)
			case ok && rapid.IntRange(0, 9).Draw(t, "undo") == 0:
				b.Return()
			case ok:
				taken = append(taken, now)
			}
		}
		for i := range taken {
			for j := i; j < len(taken); j++ {
				most := rate*(taken[j]-taken[i]).Seconds() + float64(burst)
				if n := float64(j - i + 1); n > most+1e-6*n+1e-6 {
					t.Fatalf("%v tokens in %v, at most %v are allowed", n, taken[j]-taken[i], most)
				}
			}
		}
	})
}

func TestBucketLetsItsRatePass(t *testing.T) {
	t.Parallel()
	for _, rate := range []float64{0.5, 3, 7, 1000, 333_333, 999_999} {
		b := newBucket(rate, 1)
		now, n := time.Duration(0), 0
		for ; n < 1000; n++ {
			if wait, ok := b.Take(now); !ok {
				now += wait
				if _, ok = b.Take(now); !ok {
					t.Fatalf("rate %v: no token at %v", rate, now)
				}
			}
		}
		if got := float64(n) / now.Seconds(); math.Abs(got-rate) > rate*2e-3 {
			t.Errorf("rate %v: %v in a second", rate, got)
		}
	}
}

func TestBucketKeepsWhatIsMissing(t *testing.T) {
	t.Parallel()
	b := newBucket(10, 10)
	for range 4 {
		b.Take(0)
	}
	b.Set(1, 10, 0) // 6 are left, and come back one in a second
	n := 0
	for ; ; n++ {
		if _, ok := b.Take(0); !ok {
			break
		}
	}
	if n != 6 {
		t.Errorf("%d are left, want 6", n)
	}
	b.Set(1, 2, 0)
	if wait, ok := b.Take(0); ok || wait != time.Second {
		t.Errorf("a smaller bucket: %v, %v", wait, ok)
	}
	b.Set(0, 0, 0)
	if _, ok := b.Take(0); !ok {
		t.Error("no rate, and refused")
	}
	if (&Bucket{}).Full(0) != true {
		t.Error("a new bucket is not full")
	}
}

func TestBucketOfManyTakers(t *testing.T) {
	t.Parallel()
	b := newBucket(1, 500)
	var got atomic.Int64
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			for range 100 {
				if _, ok := b.Take(time.Second); ok {
					got.Add(1)
				}
			}
		})
	}
	wg.Wait()
	if got.Load() != 500 {
		t.Errorf("%d tokens of 500", got.Load())
	}
}
