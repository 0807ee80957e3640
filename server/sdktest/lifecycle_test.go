package sdktest

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"telford.dev/telford"
	"telford.dev/telford/server/telfordtest"
)

func TestStates(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.echo()
	_, err := telford.Call[echoResp](t.Context(), s, "echo", "echo", &echoReq{})
	var state *telford.StateError
	if !errors.As(err, &state) || state.State != "new" {
		t.Errorf("call before Start: %v", err)
	}
	w.start(s)
	if err := s.Start(t.Context()); !errors.As(err, &state) || state.State != "running" {
		t.Errorf("second Start: %v", err)
	}
	err = telford.Handle(s, "late", func(context.Context, *echoReq) (*echoResp, error) { return nil, nil })
	if !errors.As(err, &state) || !errors.Is(err, telford.ErrFailedPrecondition) {
		t.Errorf("handler after Start: %v", err)
	}
	w.stop(s)
	w.stop(s)
	_, err = telford.Call[echoResp](t.Context(), s, "echo", "echo", &echoReq{})
	if !errors.As(err, &state) || state.State != "stopped" {
		t.Errorf("call after Stop: %v", err)
	}
	if err := s.Start(t.Context()); !errors.As(err, &state) {
		t.Errorf("Start after Stop: %v", err)
	}
}

func TestWrongKeys(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	other := newWorld(t)
	for name, test := range map[string]struct {
		opts []telford.Option
		want error
	}{
		"key of another service": {[]telford.Option{telford.WithKey(w.srv.Key(t, "payments"))}, telford.ErrPermissionDenied},
		"key of another cluster": {[]telford.Option{telford.WithKey(other.srv.Key(t, "echo"))}, telford.ErrUnauthenticated},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := telford.New("echo", append([]telford.Option{telford.WithServer(w.srv.Addr())}, test.opts...)...)
			must(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
			defer cancel()
			err = s.Start(ctx)
			if !errors.Is(err, test.want) && !errors.Is(err, telford.ErrUnauthenticated) && !errors.Is(err, telford.ErrPermissionDenied) {
				t.Errorf("got %v", err)
			}
			if err != nil && strings.Contains(err.Error(), "tlf_") {
				t.Errorf("the error shows a key: %v", err)
			}
			must(t, s.Stop(ctx))
		})
	}
}

func TestStartWaitsForRuntime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	key := w.srv.Key(t, "echo")
	w.srv.Stop(t)
	s, err := telford.New("echo", telford.WithServer(w.srv.Addr()), telford.WithKey(key), telford.Reconnect(10*time.Millisecond, 50*time.Millisecond, 0))
	must(t, err)
	tries := make(chan telford.Reconnecting, 100)
	s.OnReconnecting(func(r telford.Reconnecting) {
		select {
		case tries <- r:
		default:
		}
	})
	short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	if err := s.Start(short); !errors.Is(err, telford.ErrUnavailable) {
		t.Errorf("Start without a runtime: %v", err)
	}
	if r := <-tries; r.Attempt != 1 || r.Cause == nil {
		t.Errorf("the first attempt was told as %+v", r)
	}
	must(t, s.Stop(t.Context()))
}

func TestExhausted(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.make("echo", telford.Reconnect(time.Millisecond, 5*time.Millisecond, 3), telford.CallerOnly())
	gone := make(chan telford.Disconnected, 1)
	s.OnDisconnected(func(d telford.Disconnected) { gone <- d })
	w.start(s)
	w.srv.Kill(t)
	if d := <-gone; d.Reason != telford.DisconnectExhausted || d.Cause == nil {
		t.Errorf("got %+v", d)
	}
}

func TestCallbacks(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.make("echo", telford.InstanceID("in-1"), telford.CallerOnly())
	events := make(chan string, 10)
	s.OnConnected(func(c telford.Connected) { events <- "connected " + c.Service + " " + c.Instance })
	s.OnDraining(func(d telford.Draining) { events <- "draining " + d.Reason })
	s.OnDisconnected(func(d telford.Disconnected) { events <- "disconnected " + string(d.Reason) })
	w.start(s)
	w.stop(s)
	for _, want := range []string{"connected echo in-1", "draining stopped", "disconnected stopped"} {
		if got := <-events; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestFencing(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.echo(telford.InstanceID("in-1"))
	gone := make(chan telford.Disconnected, 1)
	first.OnDisconnected(func(d telford.Disconnected) { gone <- d })
	w.start(first)
	w.start(w.echo(telford.InstanceID("in-1")))
	if d := <-gone; d.Reason != telford.DisconnectFenced {
		t.Errorf("got %+v", d)
	}
	if _, err := telford.Call[echoResp](t.Context(), first, "echo", "echo", &echoReq{}); err == nil {
		t.Error("a fenced service calls")
	}
}

func TestMapAndStatus(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	callee := w.echo(telford.Version("1.2"), telford.Realm("eu"), telford.Tags("blue"), telford.Metadata(map[string]string{"team": "a"}), telford.Weight(3), telford.Locality("rack-1"))
	w.start(callee)
	caller := w.start(w.make("caller", telford.CallerOnly(), telford.Uses("echo"), telford.Uses("absent")))
	must(t, caller.WaitReady(t.Context(), "echo"))
	find := func() (telford.InstanceInfo, bool) {
		list := caller.ServiceMap()["echo"].Instances
		if len(list) != 1 {
			return telford.InstanceInfo{}, false
		}
		return list[0], true
	}
	i, ok := find()
	if !ok || i.ID != callee.Identity().Instance || i.Version != "1.2" || i.Realm != "eu" || i.Weight != 3 || i.Locality != "rack-1" ||
		len(i.Tags) != 1 || i.Metadata["team"] != "a" || i.Address == "" || len(i.Methods) != 3 || i.Status != telford.StatusOK {
		t.Errorf("the map says %+v", i)
	}
	if info, ok := caller.ServiceMap()["absent"]; !ok || !info.Declared || len(info.Instances) != 0 {
		t.Errorf("absent: %+v", info)
	}
	must(t, callee.SetStatus(telford.StatusSuspended, "taking a break"))
	eventually(t, "the status is seen", func() bool {
		i, ok := find()
		return ok && i.Status == telford.StatusSuspended && i.StatusMessage == "taking a break"
	})
	_, err := telford.Call[echoResp](t.Context(), caller, "echo", "echo", &echoReq{}, telford.MaxAttempts(1))
	if !errors.Is(err, telford.ErrNoInstance) {
		t.Errorf("a suspended instance was called: %v", err)
	}
	must(t, callee.SetStatus(telford.StatusWarning, ""))
	eventually(t, "the status is seen", func() bool { i, ok := find(); return ok && i.Status == telford.StatusWarning })
	if _, err := telford.Call[echoResp](t.Context(), caller, "echo", "echo", &echoReq{}); err != nil {
		t.Error(err)
	}
	for _, test := range []struct {
		opts []telford.CallOption
		ok   bool
	}{
		{[]telford.CallOption{telford.Realm("e*"), telford.Version("1.2")}, true},
		{[]telford.CallOption{telford.Realm("us")}, false},
		{[]telford.CallOption{telford.Version("2.0")}, false},
		{[]telford.CallOption{telford.Instance(callee.Identity().Instance)}, true},
		{[]telford.CallOption{telford.Instance("in-other")}, false},
	} {
		_, err := telford.Call[echoResp](t.Context(), caller, "echo", "echo", &echoReq{}, append(test.opts, telford.MaxAttempts(1))...)
		if test.ok && err != nil || !test.ok && !errors.Is(err, telford.ErrNoInstance) {
			t.Errorf("%+v: %v", test, err)
		}
	}
}

func TestRevocation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start(w.echo())
	key := w.srv.Key(t, "caller")
	caller := w.make("caller", telford.CallerOnly(), telford.Uses("echo"), telford.WithKey(key))
	gone := make(chan telford.Disconnected, 1)
	caller.OnDisconnected(func(d telford.Disconnected) { gone <- d })
	w.start(caller)
	must(t, caller.WaitReady(t.Context(), "echo"))
	if _, err := telford.Call[echoResp](t.Context(), caller, "echo", "echo", &echoReq{}, telford.Transport(telford.Direct)); err != nil {
		t.Fatal(err)
	}
	_, err := w.srv.Runtime().Authority().RevokeKey(t.Context(), caller.Identity().KeyID, "test", "lost")
	must(t, err)
	start := time.Now()
	for name, mode := range modes {
		for {
			_, err := telford.Call[echoResp](t.Context(), caller, "echo", "echo", &echoReq{}, telford.Transport(mode), telford.MaxAttempts(1), telford.Timeout(time.Second))
			if err != nil {
				break
			}
			if time.Since(start) > 2*time.Second {
				t.Fatalf("%s: still served 2 s after the revocation", name)
			}
		}
	}
	if d := <-gone; d.Reason != telford.DisconnectError || !errors.Is(d.Cause, telford.ErrPermissionDenied) && !errors.Is(d.Cause, telford.ErrUnauthenticated) {
		t.Errorf("the revoked caller was told %+v", d)
	}
}

func TestRenewal(t *testing.T) {
	t.Parallel()
	w := newWorld(t, telfordtest.LeafLife(soak(3*time.Second, 20*time.Second)))
	s := w.start(w.make("caller", telford.CallerOnly()))
	first := s.Identity()
	eventually(t, "the certificate is renewed", func() bool { return s.Identity().NotAfter.After(first.NotAfter) })
	if s.Identity().Instance != first.Instance {
		t.Error("the renewal has changed the instance")
	}
}

func TestStopLetsHandlersFinish(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start(w.echo())
	began, goOn := make(chan struct{}, 2), make(chan struct{})
	s := w.make("slow", telford.Uses("echo"))
	must(t, telford.Handle(s, "wait", func(ctx context.Context, in *echoReq) (*echoResp, error) {
		began <- struct{}{}
		<-goOn
		for _, mode := range modes {
			if _, err := telford.Call[echoResp](ctx, s, "echo", "echo", in, telford.Transport(mode)); err != nil {
				return nil, err
			}
		}
		return &echoResp{Text: in.Text}, nil
	}))
	must(t, telford.Handle(s, "ping", func(context.Context, *echoReq) (*echoResp, error) { return &echoResp{}, nil }))
	w.start(s)
	caller := w.start(w.make("caller", telford.CallerOnly(), telford.Uses("slow")))
	must(t, caller.WaitReady(t.Context(), "slow"))
	must(t, s.WaitReady(t.Context(), "echo"))
	results := make(chan error, 2)
	for _, mode := range []telford.TransportMode{telford.Direct, telford.Proxy} {
		go func() {
			_, err := telford.Call[echoResp](t.Context(), caller, "slow", "wait", &echoReq{Text: "x"}, telford.Transport(mode))
			results <- err
		}()
	}
	<-began
	<-began
	stopped := make(chan error, 1)
	go func() { stopped <- s.Stop(context.Background()) }()
	eventually(t, "nobody picks it any more", func() bool {
		_, err := telford.Call[echoResp](t.Context(), caller, "slow", "ping", &echoReq{}, telford.MaxAttempts(1))
		return errors.Is(err, telford.ErrNoInstance) || errors.Is(err, telford.ErrUnavailable)
	})
	close(goOn)
	for range 2 {
		if err := <-results; err != nil {
			t.Errorf("a call that was running: %v", err)
		}
	}
	if err := <-stopped; err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestStopBudget(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.make("slow")
	began := make(chan struct{})
	ended := make(chan struct{})
	must(t, telford.Handle(s, "hang", func(ctx context.Context, _ *echoReq) (*echoResp, error) {
		close(began)
		<-ctx.Done()
		close(ended)
		return nil, ctx.Err()
	}))
	must(t, s.Start(t.Context()))
	caller := w.start(w.make("caller", telford.CallerOnly(), telford.Uses("slow")))
	must(t, caller.WaitReady(t.Context(), "slow"))
	failed := make(chan error, 1)
	go func() {
		_, err := telford.Call[echoResp](t.Context(), caller, "slow", "hang", &echoReq{}, telford.Transport(telford.Direct))
		failed <- err
	}()
	<-began
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	first := s.Stop(ctx)
	if !errors.Is(first, telford.ErrDeadlineExceeded) {
		t.Errorf("stop: %v", first)
	}
	<-ended // its context is cancelled
	if err := <-failed; !errors.Is(err, telford.ErrUnavailable) {
		t.Errorf("the call that was cut off: %v", err)
	}
	if again := s.Stop(t.Context()); !errors.Is(again, telford.ErrDeadlineExceeded) {
		t.Errorf("stopping again: %v", again)
	}
}
