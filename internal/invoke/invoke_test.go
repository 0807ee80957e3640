package invoke

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/direct"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/match"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/resilience"
	"telford.dev/telford/internal/view"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// runtime answers proxied calls, one after another, as the test says.
type runtime struct {
	down    bool
	ended   bool
	answers []error
	reply   *message.Reply // instead of an empty one
	calls   []message.Call
	at      []time.Time
}

func (r *runtime) Up() bool        { return !r.down }
func (r *runtime) Available() bool { return !r.ended }

func (r *runtime) Call(_ context.Context, c *message.Call) (*message.Reply, error) {
	r.calls = append(r.calls, *c)
	r.at = append(r.at, time.Now())
	if len(r.answers) == 0 {
		if r.reply != nil {
			return r.reply, nil
		}
		return &message.Reply{}, nil
	}
	err := r.answers[0]
	r.answers = r.answers[1:]
	if err != nil {
		return nil, err
	}
	return &message.Reply{}, nil
}

func (r *runtime) Stream(context.Context, *message.Call) (message.Stream, error) {
	r.calls = append(r.calls, message.Call{})
	return nil, r.answers[0]
}

// invoker knows the instances and reaches none of them.
func invoker(t *testing.T, r *runtime, list ...*catalog.Instance) *Invoker {
	t.Helper()
	v := view.New()
	v.Want("svc")
	v.Asked()
	v.Apply(&catalog.Update{Snapshot: true, Upserts: list})
	p := direct.NewPool(direct.PoolOptions{Trust: ident.NewTrust(clock.Real()), Dial: func(context.Context, string) (net.Conn, error) { return nil, io.ErrClosedPipe }})
	t.Cleanup(p.Close)
	return New(Options{View: v, Pool: p, Proxy: r, Want: func(string) {}})
}

func instance(types ...string) *catalog.Instance {
	return &catalog.Instance{ID: "in_a", Declaration: catalog.Declaration{
		Service: "svc", Status: catalog.OK, Methods: []catalog.Method{{Name: "m", ContentTypes: types}},
		Endpoints: []catalog.Endpoint{{Kind: "link", Host: "127.0.0.1", Port: 1}},
	}}
}

func call(mode Mode) *Call {
	return &Call{
		Call: message.Call{Service: "svc", Method: "m", ContentType: message.JSON, Deadline: time.Now().Add(30 * time.Second)},
		Mode: mode, Policy: resilience.Default(),
	}
}

func do(ctx context.Context, v *Invoker, c *Call) error {
	_, err := v.Call(ctx, v.Route("svc", c.Method, c.ContentType, match.Wish{}), c)
	return err
}

func unstarted(code errs.Code) error { return errs.New(code, "no").Unstarted() }

func TestAutoGoesToTheRuntimeWithoutDelay(t *testing.T) {
	t.Parallel()
	for name, list := range map[string][]*catalog.Instance{
		"nobody is known":       nil,
		"nobody is reached":     {instance("json")},
		"nobody speaks JSON":    {instance("proto")},
		"nobody has an address": {{ID: "in_b", Declaration: catalog.Declaration{Service: "svc", Status: catalog.OK, Methods: []catalog.Method{{Name: "m", ContentTypes: []string{"json"}}}}}},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := &runtime{}
			start := time.Now()
			if err := do(t.Context(), invoker(t, r, list...), call(Auto)); err != nil || len(r.calls) != 1 {
				t.Errorf("%s: %v, %d calls", name, err, len(r.calls))
			}
			if took := time.Since(start); took != 0 {
				t.Errorf("%s: it took %v", name, took)
			}
		})
	}
}

func TestDirectNeverGoesToTheRuntime(t *testing.T) {
	t.Parallel()
	for name, list := range map[string][]*catalog.Instance{"nobody": nil, "unreachable": {instance("json")}, "another type": {instance("proto")}} {
		synctest.Test(t, func(t *testing.T) {
			r := &runtime{}
			err := do(t.Context(), invoker(t, r, list...), call(Direct))
			if c := errs.CodeOf(err); c != errs.NoInstance && c != errs.Unavailable || len(r.calls) != 0 {
				t.Errorf("%s: %v, %d calls", name, err, len(r.calls))
			}
		})
	}
}

func TestRetriesNeedProof(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		answers []error
		calls   int
		want    errs.Code
	}{
		"proved":          {[]error{unstarted(errs.Unavailable), unstarted(errs.NoInstance), nil}, 3, ""},
		"used up":         {[]error{unstarted(errs.Unavailable), unstarted(errs.Unavailable), unstarted(errs.Unavailable)}, 3, errs.Unavailable},
		"not proved":      {[]error{errs.New(errs.Unavailable, "cut")}, 1, errs.Unavailable},
		"a final refusal": {[]error{unstarted(errs.PermissionDenied)}, 1, errs.PermissionDenied},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := &runtime{answers: test.answers}
			err := do(t.Context(), invoker(t, r), call(Proxy))
			if errs.CodeOf(err) != test.want || len(r.calls) != test.calls {
				t.Errorf("%s: %v after %d calls", name, err, len(r.calls))
			}
			for i, c := range r.calls {
				if c.Attempt != i {
					t.Errorf("%s: call %d says attempt %d", name, i, c.Attempt)
				}
			}
		})
	}
}

func TestRetriesStopAtTheDeadline(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &runtime{answers: []error{errs.New(errs.Unavailable, "come back").Unstarted().After(time.Minute)}}
		start := time.Now()
		err := do(t.Context(), invoker(t, r), call(Proxy))
		if errs.CodeOf(err) != errs.Unavailable || time.Since(start) != 0 {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestWaitForReady(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &runtime{}
		for range 10 {
			r.answers = append(r.answers, unstarted(errs.NoInstance))
		}
		c := call(Proxy)
		c.Wait = true
		if err := do(t.Context(), invoker(t, r), c); err != nil || len(r.calls) != 11 {
			t.Errorf("%v after %d calls", err, len(r.calls))
		}
	})
	synctest.Test(t, func(t *testing.T) {
		r := &runtime{}
		for range 10000 {
			r.answers = append(r.answers, unstarted(errs.NoInstance))
		}
		c := call(Proxy)
		c.Wait = true
		start := time.Now()
		err := do(t.Context(), invoker(t, r), c)
		if took := time.Since(start); errs.CodeOf(err) != errs.NoInstance || took < 28*time.Second || took > 30*time.Second {
			t.Errorf("%v after %v", err, took)
		}
	})
}

func TestFailFastAndNoRuntime(t *testing.T) {
	t.Parallel()
	r := &runtime{down: true}
	c := call(Proxy)
	c.FailFast, c.Policy.MaxAttempts = true, 1
	if err := do(t.Context(), invoker(t, r), c); errs.CodeOf(err) != errs.Unavailable || len(r.calls) != 0 {
		t.Errorf("%v, %d calls", err, len(r.calls))
	}
	r = &runtime{ended: true}
	c = call(Proxy)
	c.Policy.MaxAttempts = 1
	if err := do(t.Context(), invoker(t, r), c); errs.CodeOf(err) != errs.Unavailable || len(r.calls) != 0 {
		t.Errorf("%v, %d calls", err, len(r.calls))
	}
}

func TestStreamsAreNotRetried(t *testing.T) {
	t.Parallel()
	r := &runtime{answers: []error{unstarted(errs.Unavailable)}}
	v := invoker(t, r)
	_, err := v.Stream(t.Context(), v.Route("svc", "m", message.JSON, match.Wish{}), call(Proxy))
	if errs.CodeOf(err) != errs.Unavailable || len(r.calls) != 1 {
		t.Errorf("%v after %d calls", err, len(r.calls))
	}
}

func TestCancelledWhileWaiting(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &runtime{answers: []error{errs.New(errs.Unavailable, "later").Unstarted().After(10 * time.Second)}}
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		start := time.Now()
		err := do(ctx, invoker(t, r), call(Proxy))
		if !errors.Is(err, context.Canceled) || time.Since(start) != time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
	})
}

func TestRoutesFollowTheView(t *testing.T) {
	t.Parallel()
	v := invoker(t, &runtime{}, instance("json"))
	r := v.Route("svc", "m", message.JSON, match.Wish{})
	if v.Route("svc", "m", message.JSON, match.Wish{}) != r {
		t.Error("a route is not kept")
	}
	first := v.resolve(r, message.Target{})
	if v.resolve(r, message.Target{}) != first || len(first.candidates) != 1 {
		t.Error("a resolution is not kept")
	}
	v.opt.View.Apply(&catalog.Update{Removals: []catalog.Tombstone{{ID: "in_a"}}})
	if now := v.resolve(r, message.Target{}); now == first || now.err == nil {
		t.Errorf("a resolution outlives its instances: %+v", now)
	}
}
