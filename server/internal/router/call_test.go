package router_test

import (
	"context"
	"errors"
	"regexp"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/router"
)

func TestWhatAnInstanceIsGiven(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("one", methods(unary("shop.v1.Payments/Charge"))))
	deadline := time.Now().Add(time.Hour)
	in := &message.Call{
		Seq: 7, Service: "payments", Method: "Charge", ContentType: message.JSON, Body: []byte(`{"a":1}`), Deadline: deadline,
		Headers:        []message.Pair{{Key: "k-bin", Value: []byte{0, 255}}, {Key: "k-bin", Value: nil}},
		Trace:          message.Trace{TraceID: [16]byte{1}, SpanID: [8]byte{2}, Flags: 1, State: "a=b"},
		IdempotencyKey: "key", Attempt: 2,
		Caller: message.Caller{Service: "liar"}, Target: message.Target{Realm: "*", Instance: "one"},
	}
	before := *in
	caller := message.Caller{Namespace: "default", Service: "orders", Instance: "in_1", KeyID: "key_1"}
	if _, err := b.Call(t.Context(), &router.Request{Caller: caller, Call: in}); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(before, *in); d != "" {
		t.Errorf("the router changed the call that it was given (-before +after):\n%s", d)
	}
	got := b.links["one"].got()[0]
	if !regexp.MustCompile(`^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$`).MatchString(got.RequestID) {
		t.Errorf("request id %q is no random UUID", got.RequestID)
	}
	if got.ChainRoot != got.RequestID {
		t.Errorf("root %q of a first call is not its request id %q", got.ChainRoot, got.RequestID)
	}
	want := before
	want.Seq, want.Method, want.Caller, want.Target = 0, "shop.v1.Payments/Charge", caller, message.Target{}
	want.RequestID, want.ChainRoot = got.RequestID, got.RequestID
	if d := cmp.Diff(&want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}

	in.RequestID, in.ChainRoot, in.Chain = "r", "root", []string{"a/b"}
	if _, err := b.Call(t.Context(), &router.Request{Caller: caller, Call: in}); err != nil {
		t.Fatal(err)
	}
	if got := b.links["one"].got()[1]; got.RequestID != "r" || got.ChainRoot != "root" || len(got.Chain) != 1 {
		t.Errorf("request id %q, root %q, chain %v did not travel", got.RequestID, got.ChainRoot, got.Chain)
	}
}

func TestHandlerErrorsAreAnswers(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("one"))
	failed := errs.New(errs.Handler, "no funds")
	b.links["one"].call = func(context.Context, *message.Call) (*message.Reply, error) {
		return &message.Reply{Err: failed, Trailers: []message.Pair{{Key: "t", Value: []byte("v")}}}, nil
	}
	reply, err := b.Call(t.Context(), request())
	if err != nil || reply.Err != failed || len(reply.Trailers) != 1 {
		t.Errorf("reply %+v, error %v", reply, err)
	}
}

func TestRefusalsArePickedAgain(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("one"), instance("two"), instance("three"))
	b.links["one"].call = refusing(errs.Unavailable)
	// A refusal may also come as an answer.
	b.links["two"].call = func(context.Context, *message.Call) (*message.Reply, error) {
		return &message.Reply{Err: errs.New(errs.ResourceExhausted, "256 run").Unstarted()}, nil
	}
	only(t, b.picks(t, 60), "three")
	if n := len(b.links["three"].got()); n != 60 {
		t.Errorf("60 calls were begun %d times", n)
	}
	repicks := len(b.links["one"].got()) + len(b.links["two"].got())
	if s := b.stats(t, "payments"); repicks == 0 || s.Repicks != uint64(repicks) || s.Calls[""] != 60 {
		t.Errorf("%d refusals, stats %+v", repicks, s)
	}
	for _, c := range b.links["three"].got() {
		if c.Attempt != 0 {
			t.Fatal("picking again was charged as an attempt")
		}
	}
}

func (b *bench) stats(t testing.TB, service string) router.Stats {
	t.Helper()
	for _, s := range b.Stats() {
		if s.Service == service {
			return s
		}
	}
	t.Fatalf("no counters of %q", service)
	return router.Stats{}
}

func TestEachInstanceIsAskedOnce(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("one"), instance("two"), instance("three"))
	for _, l := range b.links {
		l.call = func(context.Context, *message.Call) (*message.Reply, error) {
			return nil, errs.New(errs.ResourceExhausted, "%s is full", l.id).Unstarted().After(time.Second)
		}
	}
	_, err := b.Call(t.Context(), request())
	e := want(t, err, errs.ResourceExhausted, "is full")
	if !e.NotStarted || e.RetryAfter != time.Second || e.Meta["tried"] != "3" {
		t.Errorf("%+v", e)
	}
	for id, l := range b.links {
		if n := len(l.got()); n != 1 {
			t.Errorf("%s was asked %d times", id, n)
		}
	}
}

func TestWhatIsNotPickedAgain(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]*errs.Error{
		"it may have run":      errs.New(errs.Unavailable, "cut"),
		"any would refuse":     errs.New(errs.PermissionDenied, "no").Unstarted(),
		"the deadline is over": errs.New(errs.DeadlineExceeded, "late").Unstarted(),
	} {
		b := setup(t, instance("one"), instance("two"))
		for _, l := range b.links {
			l.call = func(context.Context, *message.Call) (*message.Reply, error) { return nil, c }
		}
		_, err := b.Call(t.Context(), request())
		want(t, err, c.Code, c.Message)
		if n := len(b.links["one"].got()) + len(b.links["two"].got()); n != 1 {
			t.Errorf("%s: asked %d instances", name, n)
		}
	}
}

func TestPickingAgainSeesChanges(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("one"))
	b.links["one"].call = func(context.Context, *message.Call) (*message.Reply, error) {
		b.index.set("default", "payments", instance("one"), instance("two"))
		b.attach("two")
		return nil, errs.New(errs.Unavailable, "going away").Unstarted()
	}
	only(t, b.picks(t, 1), "two")

	b.links["two"].call = func(context.Context, *message.Call) (*message.Reply, error) {
		b.index.set("default", "payments")
		return nil, errs.New(errs.Unavailable, "gone").Unstarted()
	}
	b.index.set("default", "payments", instance("two"))
	_, err := b.Call(t.Context(), request())
	want(t, err, errs.Unavailable, "gone")
}

func TestLinksThatMisbehave(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("one"))
	b.links["one"].call = func(context.Context, *message.Call) (*message.Reply, error) { return nil, nil }
	_, err := b.Call(t.Context(), request())
	want(t, err, errs.Internal, "one", "no answer")
	b.links["one"].call = func(context.Context, *message.Call) (*message.Reply, error) { return nil, errors.New("odd") }
	_, err = b.Call(t.Context(), request())
	if e := want(t, err, errs.Internal, "odd"); e.NotStarted {
		t.Error("an unknown error is taken for proof that nothing started")
	}
}

func TestAttachAndDetach(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("one"))
	older := &fakeLink{id: "older"}
	newer := &fakeLink{id: "newer"}
	detachOlder := b.Attach("", "one", older)
	only(t, b.picks(t, 1), "older")
	detachNewer := b.Attach("default", "one", newer)
	only(t, b.picks(t, 1), "newer")
	detachOlder()
	detachOlder()
	only(t, b.picks(t, 1), "newer")
	detachNewer()
	_, err := b.Call(t.Context(), request())
	want(t, err, errs.NoInstance)
	b.Attach("acme", "one", newer)
	_, err = b.Call(t.Context(), request())
	want(t, err, errs.NoInstance)
}

func TestNothingIsKeptOfInstancesThatWent(t *testing.T) {
	t.Parallel()
	b := setup(t)
	b.attach("never called")()
	if n := b.Endpoints(); n != 0 {
		t.Fatalf("%d endpoints are kept of an instance that was never called", n)
	}
	for i := range 300 {
		id := string(rune('a'+i%26)) + strings.Repeat("x", i/26)
		b.index.set("default", "payments", instance(id))
		detach := b.attach(id)
		b.picks(t, 1)
		detach()
	}
	if n := b.Endpoints(); n != 1 {
		t.Errorf("%d endpoints are kept, want the last one", n)
	}
	b.index.set("default", "payments")
	if _, err := b.Call(t.Context(), request()); err == nil {
		t.Error("a call of nobody succeeded")
	}
	if n := b.Endpoints(); n != 0 {
		t.Errorf("%d endpoints are kept of a service that went", n)
	}
	// Services that nobody calls any more are swept with the views of others.
	for i := range 200 {
		name := "s" + strings.Repeat("x", i)
		b.index.set("default", name, instance(name))
		detach := b.attach(name)
		if _, err := b.Call(t.Context(), request(calling(name, "charge"))); err != nil {
			t.Fatal(err)
		}
		detach()
		b.index.set("default", name)
	}
	if n := b.Endpoints(); n > 64 {
		t.Errorf("%d endpoints are kept of services that went", n)
	}
}

func TestOutstandingCallsSteerThePick(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("busy"), instance("idle"))
	entered, release := make(chan struct{}), make(chan struct{})
	b.links["busy"].call = func(context.Context, *message.Call) (*message.Reply, error) {
		entered <- struct{}{}
		<-release
		return new(message.Reply), nil
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if _, err := b.Call(t.Context(), request(target(message.Target{Instance: "busy"}))); err != nil {
				t.Error(err)
			}
		})
		<-entered
	}
	if n := b.Outstanding("", "busy"); n != 3 {
		t.Errorf("%d calls outstanding, want 3", n)
	}
	if s := b.stats(t, "payments"); s.InFlight != 3 || b.InFlight() != 3 {
		t.Errorf("in flight %d and %d, want 3", s.InFlight, b.InFlight())
	}
	only(t, b.picks(t, 50), "idle")
	close(release)
	wg.Wait()
	if n := b.Outstanding("", "busy"); n != 0 || b.InFlight() != 0 {
		t.Errorf("%d outstanding and %d in flight at the end", n, b.InFlight())
	}
}

type permittingLink struct{ fakeLink }

func (*permittingLink) Permits() int { return 1 }

func TestFullInstancesGiveWay(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("near", locality("rack-1")), instance("far"))
	entered, release := make(chan struct{}), make(chan struct{})
	near := new(permittingLink)
	near.call = func(context.Context, *message.Call) (*message.Reply, error) {
		close(entered)
		<-release
		return new(message.Reply), nil
	}
	b.Attach("", "near", near)
	var wg sync.WaitGroup
	wg.Go(func() {
		if _, err := b.Call(t.Context(), request()); err != nil {
			t.Error(err)
		}
	})
	<-entered
	only(t, b.picks(t, 20), "far")
	close(release)
	wg.Wait()
}

func TestDeadlines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, instance("one"))
		b.links["one"].call = func(ctx context.Context, c *message.Call) (*message.Reply, error) {
			if end, ok := ctx.Deadline(); !ok || !end.Equal(c.Deadline) {
				t.Errorf("the context ends at %v, the call at %v", end, c.Deadline)
			}
			<-ctx.Done()
			return nil, errs.From(ctx.Err())
		}
		within := func(d time.Duration) (context.Context, context.CancelFunc) {
			return context.WithTimeout(t.Context(), d)
		}
		for name, c := range map[string]struct {
			context, call, want time.Duration
		}{
			"none":            {0, 0, router.DefaultDeadline},
			"of the call":     {0, time.Second, time.Second},
			"of the context":  {2 * time.Second, 0, 2 * time.Second},
			"context earlier": {time.Second, time.Minute, time.Second},
			"call earlier":    {time.Minute, time.Second, time.Second},
			"long":            {0, time.Hour, time.Hour},
			"over":            {0, -time.Second, 0},
		} {
			ctx, cancel := t.Context(), context.CancelFunc(func() {})
			if c.context != 0 {
				ctx, cancel = within(c.context)
			}
			req := request()
			start := time.Now()
			if c.call != 0 {
				req.Call.Deadline = start.Add(c.call)
			}
			_, err := b.Call(ctx, req)
			if !errors.Is(err, context.DeadlineExceeded) || errs.CodeOf(err) != errs.DeadlineExceeded {
				t.Errorf("%s: %v", name, err)
			}
			if took := time.Since(start); took != c.want {
				t.Errorf("%s: it ended after %v, want %v", name, took, c.want)
			}
			cancel()
		}
	})
}

func TestCancellationReachesTheHandler(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("one"))
	entered := make(chan struct{})
	b.links["one"].call = func(ctx context.Context, _ *message.Call) (*message.Reply, error) {
		close(entered)
		<-ctx.Done()
		return nil, errs.From(ctx.Err())
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-entered
		cancel()
	}()
	_, err := b.Call(ctx, request())
	want(t, err, errs.Canceled)
}

func TestLocalMethods(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("one"))
	var kept *router.Request
	b.HandleLocal("telford", "telford.v1.Identity/Renew", func(ctx context.Context, req *router.Request) (*message.Reply, error) {
		if _, ok := ctx.Deadline(); !ok {
			t.Error("a local method has no deadline")
		}
		kept = req
		return &message.Reply{Body: req.Call.Body}, nil
	})
	b.HandleLocal("telford", "fail", func(context.Context, *router.Request) (*message.Reply, error) {
		return nil, errs.New(errs.PermissionDenied, "not you")
	})
	b.HandleLocal("telford", "nothing", func(context.Context, *router.Request) (*message.Reply, error) { return nil, nil })

	caller := message.Caller{Service: "orders", Instance: "in_1"}
	req := request(calling("telford", "telford.v1.Identity/Renew"))
	req.Namespace, req.Caller, req.Call.Caller = "acme", caller, message.Caller{Service: "liar"}
	reply, err := b.Call(t.Context(), req)
	if err != nil || string(reply.Body) != `{}` {
		t.Fatalf("%+v, %v", reply, err)
	}
	if kept.Namespace != "acme" || kept.Call.Caller != caller || kept.Call.RequestID == "" || req.Call.RequestID != "" {
		t.Errorf("given %+v with %+v", kept, kept.Call)
	}
	if reply, err := b.Call(t.Context(), request(calling("telford", "nothing"))); err != nil || reply == nil {
		t.Errorf("%v, %v", reply, err)
	}
	_, err = b.Call(t.Context(), request(calling("telford", "fail")))
	want(t, err, errs.PermissionDenied, "not you")
	_, err = b.Call(t.Context(), request(calling("telford", "fial")))
	want(t, err, errs.MethodNotFound, "did you mean fail?")
	_, err = b.Stream(t.Context(), request(calling("telford", "fail")))
	want(t, err, errs.FailedPrecondition, "unary")
	_, err = b.Stream(t.Context(), request(calling("telford", "fial")))
	want(t, err, errs.MethodNotFound)
	_, err = b.Call(t.Context(), request(calling("telfrod", "fail")))
	want(t, err, errs.ServiceNotFound, "did you mean telford?")
	if m, err := b.ResolveMethod("x", "telford", "fail"); err != nil || m.Kind != catalog.Unary {
		t.Errorf("%+v, %v", m, err)
	}
	_, err = b.ResolveMethod("x", "telford", "nope")
	want(t, err, errs.MethodNotFound)
	_, err = b.Call(t.Context(), request(calling("telford", "telford.v1.Identity/Renew"), func(r *router.Request) { r.Call.Body = make([]byte, 17<<20) }))
	want(t, err, errs.ResourceExhausted)
}

func TestBodiesAreTurnedOnTheWay(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("one", methods(catalog.Method{Name: "charge", Kind: catalog.Unary, ContentTypes: []string{"msgpack"}})))
	b.links["one"].call = func(_ context.Context, c *message.Call) (*message.Reply, error) {
		if c.ContentType != message.Msgpack || string(c.Body) != "\x81\xa1n\x01" {
			t.Errorf("the handler was given %s %x", c.ContentType, c.Body)
		}
		return &message.Reply{Body: []byte("\x81\xa2ok\xc3"), Headers: []message.Pair{{Key: "h"}}}, nil
	}
	req := request()
	req.Call.Body = []byte(`{"n":1}`)
	reply, err := b.Call(t.Context(), req)
	if err != nil || string(reply.Body) != `{"ok":true}` || reply.ContentType != message.JSON || len(reply.Headers) != 1 {
		t.Errorf("%+v, %v", reply, err)
	}
	if s := b.stats(t, "payments"); s.Transcoded != 2 || s.BytesIn != 7 || s.BytesOut != 11 {
		t.Errorf("counted %d turned, %d bytes in, %d out", s.Transcoded, s.BytesIn, s.BytesOut)
	}
	b.links["one"].call = func(context.Context, *message.Call) (*message.Reply, error) {
		return &message.Reply{Body: []byte("\xc1"), ContentType: message.Msgpack}, nil
	}
	_, err = b.Call(t.Context(), req)
	if e := want(t, err, errs.Internal, "cannot be given as json"); e.NotStarted {
		t.Error("the handler has run")
	}
}

func TestBytesThatFitPassUntouched(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("one"))
	body := []byte("not even json")
	answer := []byte("nor this")
	b.links["one"].call = func(_ context.Context, c *message.Call) (*message.Reply, error) {
		if &c.Body[0] != &body[0] {
			t.Error("the body was copied")
		}
		return &message.Reply{Body: answer}, nil
	}
	req := request()
	req.Call.Body = body
	reply, err := b.Call(t.Context(), req)
	if err != nil || &reply.Body[0] != &answer[0] || reply.ContentType != message.JSON {
		t.Errorf("%+v, %v", reply, err)
	}
}

func TestStatsCountByCode(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("one"))
	b.picks(t, 3)
	b.links["one"].call = refusing(errs.Unavailable)
	_, _ = b.Call(t.Context(), request())
	_, _ = b.Call(t.Context(), request(calling("payments", "nope")))
	_, _ = b.Call(t.Context(), request(calling("nope", "nope")))
	b.links["one"].call = func(context.Context, *message.Call) (*message.Reply, error) {
		return &message.Reply{Err: &errs.Error{Code: "of the future"}}, nil
	}
	_, _ = b.Call(t.Context(), request())
	s := b.stats(t, "payments")
	if d := cmp.Diff(map[errs.Code]uint64{"": 3, errs.Unavailable: 1, errs.MethodNotFound: 1, errs.Internal: 1}, s.Calls); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	n := uint64(0)
	for _, c := range s.Latency.Counts {
		n += c
	}
	if n != 4 || len(s.Latency.Counts) != len(s.Latency.Bounds)+1 || !slices.IsSorted(s.Latency.Bounds) {
		t.Errorf("the histogram has %d calls: %+v", n, s.Latency)
	}
	if d := cmp.Diff(map[errs.Code]uint64{errs.ServiceNotFound: 1}, b.stats(t, "").Calls); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

// TestCallsWhileEverythingChanges: whatever comes and goes, a call either runs on one
// instance or fails with a reason, and the books balance.
func TestCallsWhileEverythingChanges(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("fixed"))
	var ran atomic.Int64
	link := &fakeLink{call: func(context.Context, *message.Call) (*message.Reply, error) {
		ran.Add(1)
		return new(message.Reply), nil
	}}
	b.Attach("", "fixed", link)
	done := make(chan struct{})
	var changes, calls sync.WaitGroup
	changes.Go(func() {
		for i := 0; ; i++ {
			select {
			case <-done:
				return
			default:
			}
			id := "in" + string(rune('a'+i%5))
			detach := b.Attach("", id, link)
			b.index.set("default", "payments", instance("fixed"), instance(id, version("1")))
			if i%3 == 0 {
				detach()
				b.index.set("default", "payments", instance("fixed"))
			} else {
				defer detach()
			}
		}
	})
	var answered atomic.Int64
	for range 4 {
		calls.Go(func() {
			for range 500 {
				if _, err := b.Call(t.Context(), request()); err != nil {
					t.Errorf("a call failed although one instance always runs: %v", err)
					return
				}
				answered.Add(1)
			}
		})
	}
	calls.Wait()
	close(done)
	changes.Wait()
	if ran.Load() != answered.Load() {
		t.Errorf("%d calls ran and %d were answered", ran.Load(), answered.Load())
	}
	if b.InFlight() != 0 {
		t.Errorf("%d calls in flight at the end", b.InFlight())
	}
}
