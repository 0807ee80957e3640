package resilience_test

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/resilience"
)

const (
	good = resilience.Succeeded
	bad  = resilience.Failed
)

func joined() (*resilience.Health, *resilience.Tracker) {
	tr := &resilience.Tracker{Breaking: resilience.DefaultBreaking()}
	h := new(resilience.Health)
	h.Join(tr)
	return h, tr
}

func ends(h *resilience.Health, now time.Duration, n int, v resilience.Verdict) (opened int) {
	for range n {
		if h.Record(now, 0, v, 0.5) {
			opened++
		}
	}
	return opened
}

func tripped(t *testing.T) (*resilience.Health, *resilience.Tracker) {
	t.Helper()
	h, tr := joined()
	if n := ends(h, 0, 10, bad); n != 1 {
		t.Fatalf("10 failures opened it %d times", n)
	}
	return h, tr
}

func TestBreakerOpens(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		run  func(h *resilience.Health) int
		want int
	}{
		"too few":                  {func(h *resilience.Health) int { return ends(h, 0, 9, bad) }, 0},
		"enough":                   {func(h *resilience.Health) int { return ends(h, 0, 10, bad) }, 1},
		"half":                     {func(h *resilience.Health) int { return ends(h, 0, 10, good) + ends(h, 0, 10, bad) }, 1},
		"less than half":           {func(h *resilience.Health) int { return ends(h, 0, 11, good) + ends(h, 0, 10, bad) }, 0},
		"spread over the window":   {func(h *resilience.Health) int { return ends(h, 0, 5, bad) + ends(h, 9*time.Second, 5, bad) }, 1},
		"more than the window":     {func(h *resilience.Health) int { return ends(h, 0, 5, bad) + ends(h, 10*time.Second, 5, bad) }, 0},
		"old successes are gone":   {func(h *resilience.Health) int { return ends(h, 0, 1000, good) + ends(h, 11*time.Second, 10, bad) }, 1},
		"those who left are none":  {func(h *resilience.Health) int { return ends(h, 0, 100, resilience.Neither) }, 0},
		"failures after the event": {func(h *resilience.Health) int { return ends(h, 0, 100, bad) }, 1},
	} {
		h, _ := joined()
		if got := c.run(h); got != c.want {
			t.Errorf("%s: it opened %d times, want %d", name, got, c.want)
		}
	}
}

func TestBreakerIsProbedOnce(t *testing.T) {
	t.Parallel()
	h, tr := tripped(t)
	if !tr.Trouble() || h.Standing(0) != resilience.Cutoff {
		t.Fatalf("open: trouble %v, standing %v", tr.Trouble(), h.Standing(0))
	}
	soon, due := 26*time.Second, 31*time.Second
	if _, ok := h.Claim(soon, false); ok {
		t.Error("probed too early")
	}
	if h.Standing(due) != 0 {
		t.Error("nobody is offered the probe")
	}
	probe, ok := h.Claim(due, false)
	if !ok || probe == 0 {
		t.Fatalf("no probe when it is time: %v, %v", probe, ok)
	}
	if _, ok := h.Claim(due, false); ok || h.Standing(due) != resilience.Cutoff {
		t.Error("two probes at once")
	}
	// Those that began before it opened say nothing now.
	if ends(h, due, 20, bad)+ends(h, due, 20, good) != 0 || h.Standing(due) != resilience.Cutoff {
		t.Error("an old call has moved it")
	}
	if !h.Record(due, probe, bad, 0.5) {
		t.Error("a failed probe does not open it again")
	}
	if _, ok := h.Claim(due+26*time.Second, false); ok {
		t.Error("probed too early after a failed probe")
	}
	probe, ok = h.Claim(due+31*time.Second, false)
	if !ok {
		t.Fatal("no second probe")
	}
	if h.Record(due+31*time.Second, probe, good, 0.5) || h.Standing(due+31*time.Second) != 0 || tr.Trouble() {
		t.Error("a probe that succeeds does not close it")
	}
	if n := ends(h, due+31*time.Second, 9, bad); n != 0 {
		t.Error("it remembers what was before it closed")
	}
}

func TestProbeThatShowsNothingIsHandedOn(t *testing.T) {
	t.Parallel()
	h, _ := tripped(t)
	due := 40 * time.Second
	first, _ := h.Claim(due, false)
	h.Record(due, first, resilience.Neither, 0)
	second, ok := h.Claim(due, false)
	if !ok || second == first {
		t.Fatalf("the next call is no probe: %v, %v", second, ok)
	}
	// One that is never heard of again does not keep the instance away for ever.
	third, ok := h.Claim(due+31*time.Second, false)
	if !ok {
		t.Fatal("a lost probe is waited for")
	}
	h.Record(due+31*time.Second, second, good, 0)
	if h.Standing(due+31*time.Second) != resilience.Cutoff {
		t.Error("a probe that was given up has closed it")
	}
	h.Record(due+31*time.Second, third, good, 0)
	if h.Standing(due+31*time.Second) != 0 {
		t.Error("it stays open")
	}
}

func TestProbedSoonWhereNobodyElseIsLeft(t *testing.T) {
	t.Parallel()
	h, _ := tripped(t)
	if h.StandingAlone(time.Second) != resilience.Cutoff || h.Next(0) != 1250*time.Millisecond {
		t.Errorf("alone: %v, next %v", h.StandingAlone(time.Second), h.Next(0))
	}
	now := 1300 * time.Millisecond
	if h.StandingAlone(now) != 0 || h.Standing(now) != resilience.Cutoff {
		t.Errorf("alone %v, with others %v", h.StandingAlone(now), h.Standing(now))
	}
	if _, ok := h.Claim(now, false); ok {
		t.Error("probed although others are left")
	}
	if _, ok := h.Claim(now, true); !ok {
		t.Error("not probed")
	}
}

func TestIdleBreakerIsForgotten(t *testing.T) {
	t.Parallel()
	h, tr := tripped(t)
	if h.Standing(2*time.Minute) != 0 || tr.Trouble() {
		t.Error("an open breaker that nobody asks is kept")
	}
	if tk, ok := h.Claim(2*time.Minute, false); tk != 0 || !ok {
		t.Error("the next call is a probe")
	}
}

func TestRenewAndReset(t *testing.T) {
	t.Parallel()
	h, _ := tripped(t)
	h.Renew(time.Second)
	if tk, ok := h.Claim(time.Second, false); !ok || tk == 0 {
		t.Error("one that has come back is not probed")
	}
	h, tr := tripped(t)
	h.SetBad(true)
	h.Eject(0, 0)
	h.Reset()
	if h.Standing(0) != resilience.Bad || !tr.Trouble() {
		t.Errorf("after a reset: %v", h.Standing(0))
	}
	h.SetBad(false)
	h.SetBad(false)
	if tr.Trouble() {
		t.Error("marks stay counted")
	}
}

func TestLeave(t *testing.T) {
	t.Parallel()
	h, tr := tripped(t)
	h.Leave()
	if tr.Trouble() {
		t.Error("one that is gone counts")
	}
	h.SetBad(true)
	h.Leave()
	if tr.Trouble() {
		t.Error("one that is gone counts again")
	}
}

func TestBreakerOff(t *testing.T) {
	t.Parallel()
	h := new(resilience.Health)
	h.Join(&resilience.Tracker{Breaking: resilience.Breaking{Off: true}})
	if ends(h, 0, 1000, bad) != 0 || h.Standing(0) != 0 {
		t.Error("it opens")
	}
}

func TestBreakingValidate(t *testing.T) {
	t.Parallel()
	d := resilience.DefaultBreaking()
	with := func(f func(*resilience.Breaking)) resilience.Breaking { b := d; f(&b); return b }
	for name, c := range map[string]struct {
		b    resilience.Breaking
		fine bool
	}{
		"default":      {d, true},
		"off":          {resilience.Breaking{Off: true}, true},
		"no calls":     {with(func(b *resilience.Breaking) { b.Calls = 0 }), false},
		"no share":     {with(func(b *resilience.Breaking) { b.Share = 0 }), false},
		"too much":     {with(func(b *resilience.Breaking) { b.Share = 1.5 }), false},
		"no time":      {with(func(b *resilience.Breaking) { b.Open = 0 }), false},
		"alone longer": {with(func(b *resilience.Breaking) { b.Alone = time.Hour }), false},
	} {
		if err := c.b.Validate(); (err == nil) != c.fine || err != nil && errs.CodeOf(err) != errs.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// Of many calls at one moment exactly one is let through as the probe, and all once it
// has succeeded.
func TestOneProbeAmongMany(t *testing.T) {
	t.Parallel()
	h, _ := tripped(t)
	due := 40 * time.Second
	for range 50 {
		var through atomic.Int64
		var ticket atomic.Uint32
		var wg sync.WaitGroup
		for range 16 {
			wg.Go(func() {
				if tk, ok := h.Claim(due, false); ok {
					through.Add(1)
					ticket.Store(uint32(tk))
				}
			})
		}
		wg.Wait()
		if n := through.Load(); n != 1 {
			t.Fatalf("%d calls were let through", n)
		}
		h.Record(due, resilience.Ticket(ticket.Load()), bad, 0)
		due += 40 * time.Second
	}
}

// The breaker against the words of its definition.
func TestBreakerAgainstItsDefinition(t *testing.T) {
	t.Parallel()
	type end struct {
		slot int64
		v    resilience.Verdict
	}
	rapid.Check(t, func(t *rapid.T) {
		h, tr := joined()
		var now time.Duration
		var seen []end
		for range rapid.IntRange(1, 200).Draw(t, "calls") {
			now += time.Duration(rapid.Int64Range(0, int64(800*time.Millisecond)).Draw(t, "later"))
			v := rapid.SampledFrom([]resilience.Verdict{good, good, bad, bad, resilience.Neither}).Draw(t, "end")
			opened := h.Record(now, 0, v, 0)
			seen = append(seen, end{int64(now / time.Second), v})
			ok, failed := 0, 0
			for _, e := range seen {
				if e.slot > int64(now/time.Second)-10 {
					switch e.v {
					case good:
						ok++
					case bad:
						failed++
					}
				}
			}
			want := v == bad && ok+failed >= 10 && 2*failed >= ok+failed
			if opened != want || tr.Trouble() != want {
				t.Fatalf("after %d good and %d bad within the window: opened %v", ok, failed, opened)
			}
			if !opened {
				continue
			}
			if s := h.Standing(now + 26*time.Second); s != resilience.Cutoff {
				t.Fatalf("open, and yet %v", s)
			}
			return
		}
	})
}

func TestHealthConcurrently(t *testing.T) {
	t.Parallel()
	h, tr := joined()
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 1))
			for i := range 5000 {
				now := time.Duration(i) * 10 * time.Millisecond
				h.Standing(now)
				tk, ok := h.Claim(now, r.IntN(2) == 0)
				if ok {
					h.Record(now, tk, resilience.Verdict(r.IntN(3)), r.Float64())
				}
				switch r.IntN(50) {
				case 0:
					h.SetBad(r.IntN(2) == 0)
				case 1:
					h.Eject(now, r.Float64())
				case 2:
					h.Reset()
				}
			}
		})
	}
	wg.Wait()
	h.SetBad(false)
	h.Reset()
	if tr.Trouble() || h.Standing(time.Hour) != 0 {
		t.Error("marks are left over")
	}
}

func BenchmarkSuccess(b *testing.B) {
	h := new(resilience.Health)
	tr := &resilience.Tracker{Breaking: resilience.DefaultBreaking()}
	h.Join(tr)
	budget := resilience.NewBudget(0.1)
	b.ReportAllocs()
	for b.Loop() {
		budget.Deposit()
		if tr.Trouble() {
			b.Fatal("trouble")
		}
		tk, _ := h.Claim(time.Second, false)
		h.Record(time.Second, tk, resilience.Succeeded, 0)
	}
}
