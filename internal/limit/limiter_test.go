package limit

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

func enter(t testing.TB, m *Limiter, key string) Pass {
	t.Helper()
	p, r := m.Enter(t.Context(), key)
	if r != nil {
		t.Fatalf("key %q: %v", key, r.Err("test"))
	}
	return p
}

func refused(t testing.TB, m *Limiter, key string, why Reason) *Refusal {
	t.Helper()
	_, r := m.Enter(t.Context(), key)
	if r == nil || r.Reason != why {
		t.Fatalf("key %q: %+v, want reason %d", key, r, why)
	}
	return r
}

func TestKeysAreCountedApart(t *testing.T) {
	t.Parallel()
	m := NewLimiter(catalog.Limit{Concurrency: 1, Rate: 1, Burst: 2, Key: "caller"}, Options{})
	a := enter(t, m, "a")
	refused(t, m, "a", Full)
	b := enter(t, m, "b")
	a.Leave()
	a.Leave() // does nothing more
	a = enter(t, m, "a")
	a.Leave()
	refused(t, m, "a", Rate)
	b.Leave()
	if m.Running() != 0 || m.Waiting() != 0 {
		t.Errorf("%d run, %d wait", m.Running(), m.Waiting())
	}
}

// A call that does not begin gives its token back.
func TestTokensComeBack(t *testing.T) {
	t.Parallel()
	m := NewLimiter(catalog.Limit{Concurrency: 1, Rate: 0.001, Burst: 2}, Options{})
	a := enter(t, m, "")
	for range 5 {
		refused(t, m, "", Full)
	}
	a.Undo()
	for range 2 {
		p := enter(t, m, "")
		p.Leave()
	}
	refused(t, m, "", Rate)
}

// Beyond the bound an idle key makes room; while none is idle, new keys share one count.
func TestKeysAreBounded(t *testing.T) {
	t.Parallel()
	m := NewLimiter(catalog.Limit{Concurrency: 1, Key: "caller"}, Options{MaxKeys: 10})
	var passes []Pass
	for i := range 10 {
		passes = append(passes, enter(t, m, strconv.Itoa(i)))
	}
	shared := enter(t, m, "x")
	refused(t, m, "y", Full)
	refused(t, m, "3", Full)
	passes[3].Leave()
	y := enter(t, m, "y")
	refused(t, m, "y", Full)
	refused(t, m, "3", Full) // has no place any more, and shares that of x
	shared.Leave()
	p := enter(t, m, "3")
	p.Leave()
	y.Leave()
	for i := range passes {
		passes[i].Leave()
	}
	if m.Running() != 0 {
		t.Errorf("%d run", m.Running())
	}
	for i := range 1000 {
		p := enter(t, m, strconv.Itoa(i))
		p.Leave()
	}
	if n := len(m.keys.all); n != 10 {
		t.Errorf("%d keys are kept", n)
	}
	long := strings.Repeat("x", 5000)
	p = enter(t, m, long)
	refused(t, m, long, Full)
	enter(t, m, long+"y")
	if n := len(p.counted.key); n > maxKey {
		t.Errorf("a key of %d bytes is kept", n)
	}
}

// A key whose bucket is not full stays: it could be emptied again otherwise.
func TestKeysThatOweStay(t *testing.T) {
	t.Parallel()
	m := NewLimiter(catalog.Limit{Rate: 0.001, Burst: 1, Key: "caller"}, Options{MaxKeys: 1})
	enter(t, m, "a")
	enter(t, m, "b") // of all others
	refused(t, m, "c", Rate)
	refused(t, m, "a", Rate)
}

// However many keys come and go at once, each is counted right.
func TestKeysUnderLoad(t *testing.T) {
	t.Parallel()
	m := NewLimiter(catalog.Limit{Concurrency: 2, Queue: 1000, Key: "caller"}, Options{MaxKeys: 50})
	var running [100]atomic.Int64
	var wg sync.WaitGroup
	for g := range 16 {
		wg.Go(func() {
			for i := range 500 {
				k := (i*7 + g) % 40
				p, r := m.Enter(t.Context(), strconv.Itoa(k))
				if r != nil {
					t.Errorf("%+v", r)
					return
				}
				if n := running[k].Add(1); n > 2 {
					t.Errorf("%d run under one key", n)
				}
				running[k].Add(-1)
				p.Leave()
				// Strangers, which need places of their own.
				if p, r := m.Enter(t.Context(), fmt.Sprint("x", g, i)); r == nil {
					p.Leave()
				}
			}
		})
	}
	wg.Wait()
	if m.Running() != 0 || m.Waiting() != 0 || len(m.keys.all) > 50 {
		t.Errorf("%d run, %d wait, %d keys", m.Running(), m.Waiting(), len(m.keys.all))
	}
	users := int64(0)
	m.each(func(c *counted) { users += c.users.Load() })
	if users != 0 {
		t.Errorf("%d hold a key", users)
	}
}

// Tenant A has a long line; tenant B, counted apart, waits no longer than when it is alone.
func TestOneKeyDoesNotDelayAnother(t *testing.T) {
	t.Parallel()
	n := heavy(100_000)
	wait := func(t *testing.T, crowd int) (p95 time.Duration) {
		synctest.Test(t, func(t *testing.T) {
			s := NewSet(Options{})
			// Each tenant runs 4, all together 16.
			s.Replace([]catalog.Limit{{Concurrency: 16, Queue: 100}, {Concurrency: 4, Queue: n, Key: "caller"}})
			run := func(caller string) time.Duration {
				var held Held
				came := time.Now()
				if r := s.Enter(t.Context(), &Facts{Caller: caller}, &held); r != nil {
					t.Errorf("%s: %v", caller, r.Err("test"))
				}
				waited := time.Since(came)
				time.Sleep(10 * time.Millisecond)
				held.Leave()
				return waited
			}
			var wg sync.WaitGroup
			for range crowd {
				wg.Go(func() { run("a") })
			}
			synctest.Wait()
			var waits []time.Duration
			// B comes five at a time, so that it waits for itself now and then.
			for range 40 {
				time.Sleep(20 * time.Millisecond)
				var mu sync.Mutex
				var five sync.WaitGroup
				for range 5 {
					five.Go(func() {
						d := run("b")
						mu.Lock()
						defer mu.Unlock()
						waits = append(waits, d)
					})
				}
				five.Wait()
			}
			slices.Sort(waits)
			p95 = waits[len(waits)*95/100]
			wg.Wait()
		})
		return p95
	}
	idle, crowded := wait(t, 0), wait(t, n)
	if idle == 0 || crowded > 2*idle {
		t.Errorf("B waits %v alone and %v beside %d calls of A", idle, crowded, n)
	}
}

func TestSetReplacesLive(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := NewSet(Options{})
		in := func(caller string) (*Held, *Refusal) {
			h := new(Held)
			return h, s.Enter(t.Context(), &Facts{Caller: caller}, h)
		}
		if h, r := in("a"); r != nil || h.n != 0 || s.Binds() || s.Limits() != nil {
			t.Fatal("a set without limits holds something")
		}
		s.Replace([]catalog.Limit{{Concurrency: 2}, {Concurrency: 1, Queue: 5, Key: "caller"}})
		if got := s.Limits(); len(got) != 2 || got[0].Key != "caller" {
			t.Errorf("the order is %+v", got)
		}
		first, _ := in("a")
		var order []int
		var wg sync.WaitGroup
		for i := range 3 {
			wg.Go(func() {
				h, r := in("a")
				if r != nil {
					t.Error(r)
				}
				order = append(order, i)
				h.Leave()
			})
			synctest.Wait()
		}
		s.Replace([]catalog.Limit{{Concurrency: 1, Queue: 1, Key: "caller"}})
		if _, r := in("a"); r == nil || r.Queued != 3 {
			t.Errorf("a shorter line: %+v", r)
		}
		synctest.Wait()
		first.Leave()
		wg.Wait()
		if !slices.Equal(order, []int{0, 1, 2}) {
			t.Errorf("the order is %v", order)
		}
		// Without limits all who wait get in.
		first, _ = in("a")
		wg.Go(func() {
			if h, r := in("a"); r == nil {
				h.Leave()
			} else {
				t.Error(r)
			}
		})
		synctest.Wait()
		s.Replace(nil)
		wg.Wait()
		s.Replace([]catalog.Limit{{Concurrency: 1, Key: "caller"}})
		if _, r := in("a"); r == nil || r.Running != 1 {
			t.Errorf("who ran before is not counted: %+v", r)
		}
		first.Leave()
		if h, r := in("a"); r != nil {
			t.Error(r)
		} else {
			h.Undo()
		}
		s.Replace(nil)
		s.Replace(nil)
		if len(s.idle) != 0 {
			t.Errorf("%d limiters are kept for nothing", len(s.idle))
		}
	})
}

// Many limits at once hold nothing when one of them refuses.
func TestRefusalHoldsNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := NewSet(Options{})
		var limits []catalog.Limit
		for i := range rapid.IntRange(1, 6).Draw(t, "limits") {
			limits = append(limits, catalog.Limit{Concurrency: rapid.IntRange(1, 3).Draw(t, "c"), Rate: 1000, Burst: 100, Key: fmt.Sprint("header:h", i)})
		}
		s.Replace(limits)
		least := 3
		for _, l := range limits {
			least = min(least, l.Concurrency)
		}
		var in []*Held
		for range rapid.IntRange(1, 10).Draw(t, "calls") {
			h := new(Held)
			if s.Enter(context.Background(), &Facts{}, h) == nil {
				in = append(in, h)
			} else if h.n != 0 {
				t.Fatalf("%d are held", h.n)
			}
		}
		if len(in) > least {
			t.Fatalf("%d are in, at most %d may", len(in), least)
		}
		for _, h := range in {
			h.Leave()
		}
		for _, m := range *s.active.Load() {
			if m.Running() != 0 {
				t.Fatalf("%d run", m.Running())
			}
		}
	})
}

func TestRefusalsSayWhy(t *testing.T) {
	t.Parallel()
	r := &Refusal{Reason: Rate, Limit: catalog.Limit{Rate: 2.5, Burst: 5, Key: "caller"}, Key: "orders", Running: 1, After: 400 * time.Millisecond}
	e := r.Err("method charge")
	want := map[string]string{"reason": "limit", "limit": "method charge, key caller=orders", "running": "1", "queued": "0"}
	if diff := cmp.Diff(want, e.Meta); diff != "" || e.Message != "method charge, key caller=orders: more calls than 2.5 in a second with bursts of 5; come back in 400ms" {
		t.Errorf("%v %s", e, diff)
	}
	if e.Code != errs.ResourceExhausted || !e.NotStarted || !e.Retryable || e.RetryAfter != 400*time.Millisecond {
		t.Errorf("%+v", e)
	}
	late := &Refusal{Reason: Canceled, cause: context.DeadlineExceeded, Place: 3, Queued: 4, Running: 1}
	if e := late.Err("instance"); e.Code != errs.DeadlineExceeded || e.Meta["place"] != "3" || !strings.Contains(e.Message, "the deadline of the call came while it waited in line at place 3: 1 call runs and 4 calls wait") {
		t.Errorf("%v", e)
	}
}

func TestShare(t *testing.T) {
	t.Parallel()
	l := catalog.Limit{Concurrency: 10, Queue: 2, Rate: 9, Burst: 1, Scope: catalog.LimitService}
	for n, want := range map[int]catalog.Limit{
		0: l, 1: l,
		3:  {Concurrency: 3, Queue: 1, Rate: 3, Burst: 1, Scope: catalog.LimitService},
		90: {Concurrency: 1, Queue: 1, Rate: 0.1, Burst: 1, Scope: catalog.LimitService},
	} {
		if diff := cmp.Diff(want, Share(l, n)); diff != "" {
			t.Errorf("%d instances: %s", n, diff)
		}
	}
	l.Scope = ""
	if diff := cmp.Diff(l, Share(l, 3)); diff != "" {
		t.Errorf("a limit of the instance: %s", diff)
	}
}

func TestRules(t *testing.T) {
	t.Parallel()
	some := catalog.Limit{Concurrency: 1}
	for _, r := range []Rule{
		{Service: "pay", Method: "shop.v1.Pay/Charge", Limit: some},
		{Service: "pay", Limit: some},
		{Limit: some},
		{Instances: 5},
		{Limit: catalog.Limit{Rate: 1, Key: "caller"}, Instances: 5},
	} {
		if err := r.Validate(); err != nil {
			t.Errorf("%+v: %v", r, err)
		}
	}
	for _, c := range []struct {
		rule Rule
		says []string
	}{
		{Rule{Service: "P!", Method: "a b", Limit: catalog.Limit{Rate: -1, Queue: 2}}, []string{"limit of P!/a b", `service "P!"`, `method "a b"`, "rate -1", "queue 2"}},
		{Rule{Method: "charge", Limit: some}, []string{"without its service"}},
		{Rule{Instances: -1}, []string{"instances -1"}},
		{Rule{Service: "pay", Limit: some, Instances: 1}, []string{"leave the service out"}},
		{Rule{Service: "pay"}, []string{"bounds nothing"}},
		{Rule{}, []string{"bounds nothing"}},
		{Rule{Service: "pay", Limit: catalog.Limit{Rate: 1, Key: "func"}}, []string{"name the method"}},
		{Rule{Limit: catalog.Limit{Rate: 1, Scope: "service"}}, []string{"means nothing in a quota"}},
	} {
		err := c.rule.Validate()
		for _, s := range c.says {
			if errs.CodeOf(err) != errs.InvalidArgument || !strings.Contains(err.Error(), s) {
				t.Errorf("%+v: %v does not say %q", c.rule, err, s)
			}
		}
	}
}

// What a limit costs that does not bind.
func BenchmarkNotBinding(b *testing.B) {
	ctx := context.Background()
	none := NewSet(Options{})
	set := func(l catalog.Limit) *Set {
		s := NewSet(Options{})
		s.Replace([]catalog.Limit{l})
		return s
	}
	for _, c := range []struct {
		name string
		set  *Set
	}{
		{"none", none},
		{"concurrency", set(catalog.Limit{Concurrency: 1000})},
		{"rate", set(catalog.Limit{Rate: 1e6, Burst: 1e6})},
		{"caller", set(catalog.Limit{Concurrency: 1000, Key: "caller"})},
		{"header", set(catalog.Limit{Concurrency: 1000, Key: "header:x-tenant"})},
		{"field", set(catalog.Limit{Concurrency: 1000, Key: "field:tenant"})},
	} {
		b.Run(c.name, func(b *testing.B) {
			b.ReportAllocs()
			f := Facts{
				Caller: "orders", Headers: []message.Pair{{Key: "x-tenant", Value: []byte("blue")}},
				ContentType: message.JSON, Body: []byte(`{"amount":12,"tenant":"blue","lines":[{"id":1},{"id":2}]}`),
			}
			for b.Loop() {
				var held Held
				if r := c.set.Enter(ctx, &f, &held); r != nil {
					b.Fatal(r.Err("test"))
				}
				held.Undo() // so that a rate does not bind after a million
			}
		})
	}
}
