package router_test

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/router"
)

// hinted notes who was said to be failing.
type hinted struct {
	mu    sync.Mutex
	until map[string]time.Time
}

func (h *hinted) SetFailing(namespace, id string, until time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.until == nil {
		h.until = make(map[string]time.Time)
	}
	h.until[namespace+"/"+id] = until
}

func (h *hinted) of(id string) time.Time {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.until["default/"+id]
}

// ward is a router whose instances do as they are told.
type ward struct {
	t     *testing.T
	clock *clock.Manual
	index *fakeIndex
	hints *hinted
	r     *router.Router
	links map[string]*fakeLink
	sick  map[string]*atomic.Bool
}

func newWard(t *testing.T, ids ...string) *ward {
	t.Helper()
	w := &ward{
		t: t, clock: clock.NewManual(time.Unix(1_700_000_000, 0)), index: new(fakeIndex), hints: new(hinted),
		links: make(map[string]*fakeLink), sick: make(map[string]*atomic.Bool),
	}
	w.r = router.New(router.Config{Index: w.index, Clock: w.clock, Failing: w.hints})
	var all []*catalog.Instance
	for _, id := range ids {
		all = append(all, instance(id))
		sick := new(atomic.Bool)
		l := &fakeLink{id: id}
		l.call = func(_ context.Context, c *message.Call) (*message.Reply, error) {
			if sick.Load() {
				return nil, errs.New(errs.Unavailable, "cut")
			}
			return &message.Reply{Body: []byte(id), ContentType: c.ContentType}, nil
		}
		w.links[id], w.sick[id] = l, sick
		w.r.Attach("default", id, l)
	}
	w.index.set("default", "payments", all...)
	return w
}

func (w *ward) call() (*message.Reply, error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	return w.r.Call(ctx, &router.Request{Call: &message.Call{Service: "payments", Method: "charge", ContentType: message.JSON, Body: []byte(`{}`)}})
}

// asked returns how many calls an instance got since the last time.
func (w *ward) asked(id string) int {
	l := w.links[id]
	l.mu.Lock()
	defer l.mu.Unlock()
	n := len(l.calls)
	l.calls = nil
	return n
}

func TestBreakerOfAnInstance(t *testing.T) {
	t.Parallel()
	w := newWard(t, "in_a", "in_b")
	w.sick["in_a"].Store(true)
	for range 100 {
		_, _ = w.call()
	}
	if until := w.hints.of("in_a"); !until.Equal(w.clock.Now().Add(time.Minute)) {
		t.Errorf("others were told to avoid it until %v", until)
	}
	w.asked("in_a")
	for range 50 {
		if _, err := w.call(); err != nil {
			t.Fatalf("the other one is fine: %v", err)
		}
	}
	if n := w.asked("in_a"); n != 0 {
		t.Errorf("%d calls went to an instance that is cut off", n)
	}
	// When it is time exactly one call probes it, and its success brings it back.
	w.sick["in_a"].Store(false)
	w.clock.Advance(34 * time.Second)
	for range 100 {
		if _, err := w.call(); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.asked("in_a"); n < 10 {
		t.Errorf("%d calls reach it after it is well again", n)
	}
}

func TestAllAreCutOff(t *testing.T) {
	t.Parallel()
	w := newWard(t, "in_a", "in_b")
	w.sick["in_a"].Store(true)
	w.sick["in_b"].Store(true)
	for range 100 {
		_, _ = w.call()
	}
	w.asked("in_a")
	w.asked("in_b")
	_, err := w.call()
	var e *errs.Error
	if !errors.As(err, &e) || e.Code != errs.Unavailable || !e.NotStarted || e.Meta["reason"] != "breaker_open" || e.Component != "router" ||
		e.Meta["instances"] != "in_a,in_b" || e.RetryAfter <= 0 || e.RetryAfter > 2*time.Second {
		t.Fatalf("got %+v", err)
	}
	if w.asked("in_a")+w.asked("in_b") != 0 {
		t.Error("somebody was asked")
	}
	// Nobody else is left, so that they are probed soon; one call each while that is out.
	w.clock.Advance(1600 * time.Millisecond)
	release := make(chan struct{})
	var out atomic.Int64
	for id, l := range w.links {
		l.call = func(_ context.Context, c *message.Call) (*message.Reply, error) {
			out.Add(1)
			<-release
			return &message.Reply{Body: []byte(id), ContentType: c.ContentType}, nil
		}
	}
	const calls = 64
	var wg sync.WaitGroup
	var refused atomic.Int64
	all := make(chan struct{})
	for range calls {
		wg.Go(func() {
			if _, err := w.call(); errs.From(err) != nil && errs.From(err).Meta["reason"] == "breaker_open" {
				if refused.Add(1) == calls-2 {
					close(all)
				}
			}
		})
	}
	<-all
	if n := out.Load(); n != 2 {
		t.Errorf("%d probes of two instances", n)
	}
	close(release)
	wg.Wait()
	if _, err := w.call(); err != nil {
		t.Errorf("after the probes: %v", err)
	}
}

// A call that its caller gives up says nothing, and neither does what a handler answers.
func TestWhatIsNoFailureOfAnInstance(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func() (*message.Reply, error){
		"cancelled": func() (*message.Reply, error) { return nil, errs.New(errs.Canceled, "gone") },
		"answered":  func() (*message.Reply, error) { return &message.Reply{Err: errs.New(errs.Unavailable, "later")}, nil },
		"limited": func() (*message.Reply, error) {
			return nil, errs.New(errs.ResourceExhausted, "slower").Unstarted().With("reason", "limit")
		},
		"denied": func() (*message.Reply, error) { return nil, errs.New(errs.PermissionDenied, "no").Unstarted() },
	} {
		w := newWard(t, "in_a")
		w.links["in_a"].call = func(context.Context, *message.Call) (*message.Reply, error) { return answer() }
		for range 50 {
			_, _ = w.call()
		}
		if n := w.asked("in_a"); n != 50 {
			t.Errorf("%s: only %d of 50 calls reached it", name, n)
		}
	}
}

func TestHintsOfOthers(t *testing.T) {
	t.Parallel()
	w := newWard(t, "in_a", "in_b")
	failing := func(in *catalog.Instance) { in.FailingUntil = w.clock.Now().Add(time.Minute) }
	w.index.set("default", "payments", instance("in_a", failing), instance("in_b"))
	for range 50 {
		if _, err := w.call(); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.asked("in_a"); n != 0 {
		t.Errorf("%d calls went to one that others found failing", n)
	}
	// When that would leave nobody it is ignored.
	w.index.set("default", "payments", instance("in_a", failing), instance("in_b", failing))
	w.asked("in_b")
	for range 100 {
		if _, err := w.call(); err != nil {
			t.Fatal(err)
		}
	}
	if a, b := w.asked("in_a"), w.asked("in_b"); a < 10 || b < 10 {
		t.Errorf("all are hinted: %d and %d", a, b)
	}
	// Nor does it hold for ever.
	w.index.set("default", "payments", instance("in_a", failing), instance("in_b"))
	w.clock.Advance(61 * time.Second)
	for range 100 {
		if _, err := w.call(); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.asked("in_a"); n < 10 {
		t.Errorf("after its end: %d", n)
	}
}

func TestOutliersAreAvoided(t *testing.T) {
	t.Parallel()
	w := newWard(t, "in_a", "in_b", "in_c")
	w.sick["in_a"].Store(true)
	failed := 0
	for range 60 {
		if _, err := w.call(); err != nil {
			failed++
		}
		w.clock.Advance(110 * time.Millisecond)
	}
	// It takes five failures in a row, half of what a breaker needs; after ten seconds it
	// is tried again.
	if failed > 5 {
		t.Errorf("%d of 60 calls failed", failed)
	}
}

func TestARestartedInstanceIsProbedAtOnce(t *testing.T) {
	t.Parallel()
	w := newWard(t, "in_a", "in_b")
	w.sick["in_a"].Store(true)
	for range 100 {
		_, _ = w.call()
	}
	w.asked("in_a")
	w.sick["in_a"].Store(false)
	w.r.Attach("default", "in_a", w.links["in_a"])
	for range 100 {
		if _, err := w.call(); err != nil {
			t.Fatal(err)
		}
	}
	if n := w.asked("in_a"); n == 0 {
		t.Error("it waits for the time of its breaker")
	}
}

// Instances that are all too busy see a call only as often as the budget allows.
func TestRepicksAreBounded(t *testing.T) {
	t.Parallel()
	ids := []string{"in_0", "in_1", "in_2", "in_3", "in_4", "in_5", "in_6", "in_7", "in_8", "in_9"}
	for name, c := range map[string]struct {
		refusal *errs.Error
		calls   int
		most    int
	}{
		"too busy": {errs.New(errs.ResourceExhausted, "busy").Unstarted().With("reason", "limit"), 100, 100 + 30 + 10},
		"leaving":  {errs.New(errs.Unavailable, "bye").Unstarted(), 1, 8},
	} {
		w := newWard(t, ids...)
		for _, l := range w.links {
			l.call = func(context.Context, *message.Call) (*message.Reply, error) { return nil, c.refusal }
		}
		for range c.calls {
			if _, err := w.call(); errs.CodeOf(err) != c.refusal.Code {
				t.Fatal(err)
			}
		}
		asked := 0
		for _, id := range ids {
			asked += w.asked(id)
		}
		if asked > c.most {
			t.Errorf("%s: %d calls made %d requests, want at most %d", name, c.calls, asked, c.most)
		}
	}
}

// What is lost behind the router is told from what a handler has answered.
func TestLostCallsAreMarked(t *testing.T) {
	t.Parallel()
	w := newWard(t, "in_a")
	w.sick["in_a"].Store(true)
	if _, err := w.call(); errs.From(err).Meta["outcome"] != "unknown" || errs.From(err).Meta["retry"] != "" {
		t.Errorf("got %+v", err)
	}
	w.index.set("default", "payments", instance("in_a", methods(catalog.Method{Name: "charge", Kind: catalog.Unary, NotRetryable: true})))
	if _, err := w.call(); errs.From(err).Meta["retry"] != "never" {
		t.Errorf("of a method that is not to be repeated: %+v", err)
	}
}
