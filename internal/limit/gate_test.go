package limit

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"pgregory.net/rapid"

	"telford.dev/telford/internal/errs"
)

// However calls come, give up and end, never more run than may, all places are given back,
// and those who wait get in in the order in which they came.
func TestGateHoldsItsBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.IntRange(1, 4).Draw(rt, "limit")
		queue := rapid.IntRange(0, 6).Draw(rt, "queue")
		type arrival struct{ at, hold, patience time.Duration }
		calls := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) arrival {
			ms := func(label string, most int) time.Duration {
				return time.Duration(rapid.IntRange(0, most).Draw(t, label)) * time.Millisecond
			}
			return arrival{ms("at", 50), ms("hold", 20), ms("patience", 40)}
		}), 1, 40).Draw(rt, "calls")
		changes := rapid.SliceOfN(rapid.IntRange(1, 4), 0, 3).Draw(rt, "changes")
		wrong := "" // told outside of the bubble
		synctest.Test(t, func(t *testing.T) {
			g := NewGate(limit, queue, Options{})
			var running, most, inLine atomic.Int64
			var allowed atomic.Int64
			allowed.Store(int64(limit))
			var mu sync.Mutex
			var came []int
			type entrance struct {
				at  time.Time
				who int
			}
			var got []entrance
			var wg sync.WaitGroup
			for i, c := range calls {
				wg.Go(func() {
					// A microsecond apart, so that the order in which they come is known.
					time.Sleep(c.at + time.Duration(i)*time.Microsecond)
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					stop := time.AfterFunc(c.patience+300*time.Nanosecond, cancel)
					mu.Lock()
					waits := g.Running() >= int(allowed.Load()) || g.Waiting() > 0
					if waits {
						came = append(came, i)
						inLine.Add(1)
					}
					mu.Unlock()
					r := g.Enter(ctx)
					if r != nil {
						if r.Reason == Canceled && (r.Place < 1 || r.Place > r.Queued) && ctx.Err() == nil {
							t.Errorf("place %d of %d", r.Place, r.Queued)
						}
						return
					}
					stop.Stop()
					mu.Lock()
					if waits {
						got = append(got, entrance{time.Now(), i})
					}
					mu.Unlock()
					most.Store(max(most.Load(), running.Add(1)))
					time.Sleep(c.hold + 700*time.Nanosecond)
					running.Add(-1)
					g.Leave()
				})
			}
			for n, c := range changes {
				wg.Go(func() {
					time.Sleep(time.Duration(15*(n+1))*time.Millisecond + 500*time.Nanosecond)
					mu.Lock()
					allowed.Store(int64(c))
					limit = max(limit, c)
					mu.Unlock()
					g.Set(c, queue)
				})
			}
			wg.Wait()
			if int(most.Load()) > limit {
				wrong = fmt.Sprintf("%d ran at once, at most %d may", most.Load(), limit)
			}
			if g.Running() != 0 || g.Waiting() != 0 {
				wrong = fmt.Sprintf("%d run and %d wait at the end", g.Running(), g.Waiting())
			}
			// Of those who got in at the same moment nobody can tell who was first.
			slices.SortFunc(got, func(a, b entrance) int {
				return cmp.Or(a.at.Compare(b.at), cmp.Compare(slices.Index(came, a.who), slices.Index(came, b.who)))
			})
			next := 0
			for _, e := range got {
				for next < len(came) && came[next] != e.who {
					next++
				}
				if next == len(came) {
					wrong = fmt.Sprintf("%v came and %v got in", came, got)
				}
			}
			if err := g.Idle(t.Context()); err != nil {
				wrong = err.Error()
			}
		})
		if wrong != "" {
			rt.Fatal(wrong)
		}
	})
}

func TestGateUnderLoad(t *testing.T) {
	t.Parallel()
	g := NewGate(4, 1000, Options{})
	var running, most, done atomic.Int64
	var wg sync.WaitGroup
	for n := range 100 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(1, uint64(n)))
			for range 50 {
				ctx, cancel := context.WithCancel(t.Context())
				if r.IntN(4) == 0 {
					cancel()
				}
				refused := g.Enter(ctx)
				cancel()
				if refused != nil {
					if refused.Reason != Canceled {
						t.Errorf("refused: %+v", refused)
					}
					continue
				}
				n := running.Add(1)
				for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
				}
				running.Add(-1)
				done.Add(1)
				g.Leave()
			}
		})
	}
	wg.Wait()
	if most.Load() > 4 || g.Running() != 0 || g.Waiting() != 0 || done.Load() == 0 {
		t.Errorf("%d at once, %d run, %d wait, %d done", most.Load(), g.Running(), g.Waiting(), done.Load())
	}
}

func TestGateSaysThePlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(1, 3, Options{})
		if r := g.Enter(t.Context()); r != nil {
			t.Fatal(r)
		}
		got := make([]*Refusal, 3)
		var wg sync.WaitGroup
		for i := range got {
			ctx, cancel := context.WithTimeout(t.Context(), time.Duration(3-i)*time.Second)
			defer cancel()
			wg.Go(func() { got[i] = g.Enter(ctx) })
			synctest.Wait()
		}
		full := g.Enter(t.Context())
		if full == nil || full.Reason != Full || full.Running != 1 || full.Queued != 3 || full.After <= 0 {
			t.Errorf("the fifth: %+v", full)
		}
		wg.Wait()
		for i, r := range got {
			if r == nil || r.Reason != Late || r.Place != i+1 || r.Queued != i+1 {
				t.Errorf("the %d. in line: %+v", i+1, r)
				continue
			}
			e := r.Err("method charge")
			if e.Code != errs.ResourceExhausted || !e.NotStarted || e.RetryAfter <= 0 || e.Meta["reason"] != "limit" || e.Meta["limit"] != "method charge" {
				t.Errorf("answer: %+v", e)
			}
		}
		g.Leave()
	})
}

func TestGateEndsWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		stop := make(chan struct{})
		g := NewGate(1, 3, Options{Stop: stop})
		g.Enter(t.Context())
		var r *Refusal
		var wg sync.WaitGroup
		wg.Go(func() { r = g.Enter(t.Context()) })
		synctest.Wait()
		idle := make(chan error, 1)
		go func() { idle <- g.Idle(t.Context()) }()
		synctest.Wait()
		close(stop)
		wg.Wait()
		if r == nil || r.Reason != Stopped || g.Waiting() != 0 {
			t.Errorf("%+v, %d wait", r, g.Waiting())
		}
		select {
		case <-idle:
			t.Error("idle while one runs")
		default:
		}
		g.Leave()
		if err := <-idle; err != nil {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		g.Enter(t.Context())
		if err := g.Idle(ctx); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		g.Leave()
	})
}

// The line says how fast it moves.
func TestGateEstimates(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		g := NewGate(1, 10, Options{})
		var wg sync.WaitGroup
		for range 11 {
			wg.Go(func() {
				if r := g.Enter(t.Context()); r != nil {
					t.Error(r)
					return
				}
				time.Sleep(200 * time.Millisecond)
				g.Leave()
			})
		}
		time.Sleep(500*time.Millisecond + 1)
		g.Set(1, 8) // as many as wait now
		r := g.Enter(t.Context())
		if r == nil || r.After != 8*200*time.Millisecond {
			t.Errorf("%+v", r)
		}
		wg.Wait()
	})
}

func TestGateLeavesNoMemoryWhereThereIsRoom(t *testing.T) {
	g := NewGate(4, 4, Options{})
	ctx := t.Context()
	if n := testing.AllocsPerRun(100, func() {
		g.Enter(ctx)
		g.Leave()
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
