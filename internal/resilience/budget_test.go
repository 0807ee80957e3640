package resilience_test

import (
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/resilience"
)

func spend(b *resilience.Budget, now time.Duration) (n int) {
	for b.Spend(now) {
		n++
	}
	return n
}

func TestBudgetOfAQuietCaller(t *testing.T) {
	t.Parallel()
	b := resilience.NewBudget(0.1)
	if n := spend(b, time.Hour); n != 30 {
		t.Errorf("a new budget allows %d", n)
	}
	if n := spend(b, time.Hour+time.Second); n != 3 {
		t.Errorf("a second later it allows %d, want the floor", n)
	}
	if n := spend(b, 2*time.Hour); n != 30 {
		t.Errorf("an hour later it allows %d, want what ten seconds give", n)
	}
}

func TestBudgetOfABusyCaller(t *testing.T) {
	t.Parallel()
	b := resilience.NewBudget(0.1)
	now := time.Duration(0)
	spend(b, now)
	for range 60 {
		for range 200 {
			b.Deposit()
		}
		now += time.Second
		if n := spend(b, now); n < 22 || n > 24 {
			t.Fatalf("after %v, 200 calls in a second allow %d, want a tenth of them and the floor", now, n)
		}
	}
	// What is saved is a tenth of the calls of ten seconds.
	for range 60 {
		for range 200 {
			b.Deposit()
		}
		now += time.Second
	}
	if n := spend(b, now); n < 180 || n > 240 {
		t.Errorf("saved: %d", n)
	}
}

func TestNoBudgetAllowsEverything(t *testing.T) {
	t.Parallel()
	var b *resilience.Budget
	b.Deposit()
	for range 1000 {
		if !b.Spend(0) {
			t.Fatal("it refuses")
		}
	}
}

func TestValidateShare(t *testing.T) {
	t.Parallel()
	for share, fine := range map[float64]bool{0: true, 0.1: true, 1: true, -0.1: false, 1.1: false} {
		if err := resilience.ValidateShare(share); (err == nil) != fine || err != nil && errs.CodeOf(err) != errs.InvalidArgument {
			t.Errorf("%v: %v", share, err)
		}
	}
}

// Whatever the order of calls and retries, retries never exceed their share, the floor
// and what is saved.
func TestBudgetKeepsItsShare(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		share := rapid.Float64Range(0, 1).Draw(t, "share")
		b := resilience.NewBudget(share)
		var now time.Duration
		calls, spent := 0, 0
		for range rapid.IntRange(1, 50).Draw(t, "steps") {
			now += time.Duration(rapid.Int64Range(0, int64(5*time.Second)).Draw(t, "later"))
			n := rapid.IntRange(0, 300).Draw(t, "calls")
			for range n {
				b.Deposit()
			}
			calls += n
			for range rapid.IntRange(0, 200).Draw(t, "tries") {
				if b.Spend(now) {
					spent++
				}
			}
			most := 30 + 3*now.Seconds() + share*float64(calls)
			if float64(spent) > most+1e-6 {
				t.Fatalf("%d retries after %d calls in %v, at most %v are allowed", spent, calls, now, most)
			}
		}
	})
}

func TestBudgetConcurrently(t *testing.T) {
	t.Parallel()
	b := resilience.NewBudget(0)
	var wg sync.WaitGroup
	got := make(chan int, 8)
	for range 8 {
		wg.Go(func() {
			for range 1000 {
				b.Deposit()
			}
			got <- spend(b, time.Second)
		})
	}
	wg.Wait()
	close(got)
	sum := 0
	for n := range got {
		sum += n
	}
	if sum != 30 {
		t.Errorf("together they spent %d", sum)
	}
}
