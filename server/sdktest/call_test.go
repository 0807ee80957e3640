package sdktest

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"telford.dev/telford"
)

var modes = map[string]telford.TransportMode{"direct": telford.Direct, "proxy": telford.Proxy, "auto": telford.Auto}

// each runs a test once for each transport, with a caller and an echo that knows it.
func each(t *testing.T, test func(t *testing.T, caller *telford.Service, mode telford.RPCOption)) {
	t.Helper()
	w := newWorld(t)
	w.start(w.echo())
	caller := w.start(w.make("caller", telford.CallerOnly(), telford.Uses("echo")))
	must(t, caller.WaitReady(t.Context(), "echo"))
	for name, mode := range modes {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, caller, telford.Transport(mode))
		})
	}
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, caller *telford.Service, mode telford.RPCOption) {
		start := time.Now()
		_, err := telford.Call[echoResp](t.Context(), caller, "echo", "echo", &echoReq{Sleep: time.Minute}, mode, telford.Timeout(100*time.Millisecond))
		if !errors.Is(err, telford.ErrDeadlineExceeded) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(start); took > 5*time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

func TestCancel(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, caller *telford.Service, mode telford.RPCOption) {
		ctx, cancel := context.WithCancel(t.Context())
		timer := time.AfterFunc(50*time.Millisecond, cancel)
		defer timer.Stop()
		_, err := telford.Call[echoResp](ctx, caller, "echo", "echo", &echoReq{Sleep: time.Minute}, mode)
		if !errors.Is(err, telford.ErrCanceled) || !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
	})
}

func TestLeavingStreamEndsHandler(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	ended := make(chan error, 1)
	callee := w.make("echo")
	must(t, telford.HandleStream(callee, "forever", func(ctx context.Context, _ *echoReq, out *telford.Sender[echoResp]) error {
		for i := 0; ; i++ {
			if err := out.Send(&echoResp{Text: fmt.Sprint(i)}); err != nil {
				ended <- ctx.Err()
				return err
			}
		}
	}))
	w.start(callee)
	caller := w.start(w.make("caller", telford.CallerOnly(), telford.Uses("echo")))
	must(t, caller.WaitReady(t.Context(), "echo"))
	for name, mode := range modes {
		n := 0
		for _, err := range telford.Stream[echoResp](t.Context(), caller, "echo", "forever", &echoReq{}, telford.Transport(mode)) {
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if n++; n == 10 {
				break
			}
		}
		select {
		case <-ended:
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: the handler goes on", name)
		}
	}
}

func TestPayloadLimit(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, caller *telford.Service, mode telford.RPCOption) {
		_, err := telford.Call[echoResp](t.Context(), caller, "echo", "echo", &echoReq{Text: strings.Repeat("x", 17<<20)}, mode)
		if !errors.Is(err, telford.ErrResourceExhausted) || !strings.Contains(err.Error(), "16777216") || !strings.Contains(err.Error(), "17825803") {
			t.Errorf("got %v", err)
		}
		big := strings.Repeat("y", 8<<20)
		resp, err := telford.Call[echoResp](t.Context(), caller, "echo", "echo", &echoReq{Text: big}, mode)
		if err != nil || resp.Text != big {
			t.Errorf("8 MiB: %v", err)
		}
	})
}

func TestUnknown(t *testing.T) {
	t.Parallel()
	each(t, func(t *testing.T, caller *telford.Service, mode telford.RPCOption) {
		_, err := telford.Call[echoResp](t.Context(), caller, "echo", "nothing", &echoReq{}, mode)
		if !errors.Is(err, telford.ErrMethodNotFound) {
			t.Errorf("unknown method: %v", err)
		}
		_, err = telford.Call[echoResp](t.Context(), caller, "nobody", "echo", &echoReq{}, mode, telford.MaxAttempts(1), telford.Timeout(2*time.Second))
		if !errors.Is(err, telford.ErrNoInstance) && !errors.Is(err, telford.ErrServiceNotFound) {
			t.Errorf("unknown service: %v", err)
		}
		_, err = telford.Call[echoResp](t.Context(), caller, "echo", "count", &echoReq{N: 1}, mode)
		if !errors.Is(err, telford.ErrFailedPrecondition) {
			t.Errorf("unary call of a stream: %v", err)
		}
	})
}

func TestWhatTravels(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	type seen struct {
		telford.Inbound
		Limited bool
	}
	got := make(chan seen, 1)
	inner := w.make("inner")
	must(t, telford.Handle(inner, "look", func(ctx context.Context, _ *echoReq) (*echoResp, error) {
		in, _ := telford.InboundFrom(ctx)
		_, limited := ctx.Deadline()
		got <- seen{in, limited}
		return &echoResp{}, nil
	}))
	w.start(inner)
	outer := w.make("outer", telford.Uses("inner"))
	var mode telford.TransportMode
	must(t, telford.Handle(outer, "pass", func(ctx context.Context, _ *echoReq) (*echoResp, error) {
		return telford.Call[echoResp](ctx, outer, "inner", "look", &echoReq{}, telford.Transport(mode), telford.Header("x-tag", "a", "b"), telford.Header("raw-bin", "\x00\xff"))
	}))
	w.start(outer)
	caller := w.start(w.make("caller", telford.CallerOnly(), telford.Uses("outer")))
	must(t, caller.WaitReady(t.Context(), "outer"))
	must(t, outer.WaitReady(t.Context(), "inner"))
	for name, m := range modes {
		mode = m
		if _, err := telford.Call[echoResp](t.Context(), caller, "outer", "pass", &echoReq{}, telford.RequestID("req-1"), telford.Transport(m)); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		in := <-got
		if in.Caller.Service != "outer" || in.Caller.Instance != outer.Identity().Instance {
			t.Errorf("%s: the caller is %+v", name, in.Caller)
		}
		if in.RequestID == "" || in.RequestID == "req-1" || in.ChainRoot != "req-1" {
			t.Errorf("%s: request id %q, root %q", name, in.RequestID, in.ChainRoot)
		}
		if len(in.Chain) != 1 || in.Chain[0] != "outer/pass" {
			t.Errorf("%s: the chain is %v", name, in.Chain)
		}
		if !in.Limited {
			t.Errorf("%s: there is no deadline", name)
		}
		if left := time.Until(in.Deadline); left < 20*time.Second || left > 30*time.Second {
			t.Errorf("%s: %v are left of the default of 30 s", name, left)
		}
		if v := in.Headers["x-tag"]; len(v) != 2 || v[0] != "a" || v[1] != "b" {
			t.Errorf("%s: headers %v", name, in.Headers)
		}
		if v := in.Headers["raw-bin"]; len(v) != 1 || v[0] != "\x00\xff" {
			t.Errorf("%s: headers %q", name, in.Headers)
		}
	}
}

func TestCallLoopEnds(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	loop := w.make("loop", telford.Uses("loop"), telford.InboundLimit(300, 10))
	must(t, telford.Handle(loop, "again", func(ctx context.Context, in *echoReq) (*echoResp, error) {
		return telford.Call[echoResp](ctx, loop, "loop", "again", in)
	}))
	w.start(loop)
	must(t, loop.WaitReady(t.Context(), "loop"))
	_, err := telford.Call[echoResp](t.Context(), loop, "loop", "again", &echoReq{})
	if !errors.Is(err, telford.ErrDepthExceeded) {
		t.Fatalf("got %v", err)
	}
}

func TestPanicCostsOneCall(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.make("echo")
	must(t, telford.Handle(s, "panic", func(context.Context, *echoReq) (*echoResp, error) { panic("secret") }))
	must(t, telford.Handle(s, "fine", func(context.Context, *echoReq) (*echoResp, error) { return &echoResp{Text: "fine"}, nil }))
	w.start(s)
	caller := w.start(w.make("caller", telford.CallerOnly(), telford.Uses("echo")))
	must(t, caller.WaitReady(t.Context(), "echo"))
	for name, mode := range modes {
		_, err := telford.Call[echoResp](t.Context(), caller, "echo", "panic", &echoReq{}, telford.Transport(mode))
		if !errors.Is(err, telford.ErrInternal) || strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := telford.Call[echoResp](t.Context(), caller, "echo", "fine", &echoReq{}, telford.Transport(mode)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}
