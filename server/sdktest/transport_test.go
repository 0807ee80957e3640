package sdktest

import (
	"context"
	"errors"
	"testing"
	"time"

	"telford.dev/telford"
)

// Rules about the way and the time of calls reach running services, and hold for calls
// that do not say it themselves.
func TestTransportRulesAreLive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	callee := w.make("relayed")
	must(t, telford.Handle(callee, "how", func(ctx context.Context, in *echoReq) (*echoResp, error) {
		if in.Sleep > 0 {
			<-ctx.Done()
			return nil, ctx.Err()
		}
		return &echoResp{}, nil
	}))
	w.start(callee)
	caller := w.start(w.make("caller", telford.CallerOnly()))
	must(t, caller.WaitReady(t.Context(), "relayed"))
	ask := func(opts ...telford.CallOption) error {
		_, err := telford.Call[echoResp](t.Context(), caller, "relayed", "how", &echoReq{}, append([]telford.CallOption{telford.FailFast()}, opts...)...)
		return err
	}
	w.srv.SetTransport(t, "relayed", "", "proxy", "", 0)
	w.srv.SetTransport(t, "", "", "", "direct", 0)
	w.srv.SetTransport(t, "relayed", "how", "", "none", 300*time.Millisecond)
	eventually(t, "the rule gives the time", func() bool {
		begun := time.Now()
		_, err := telford.Call[echoResp](t.Context(), caller, "relayed", "how", &echoReq{Sleep: time.Hour}, telford.Timeout(2*time.Second))
		if !errors.Is(err, telford.ErrDeadlineExceeded) || time.Since(begun) < 2*time.Second {
			t.Fatalf("the option of the call does not hold: %v after %v", err, time.Since(begun))
		}
		begun = time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		defer cancel()
		_, err = telford.Call[echoResp](ctx, caller, "relayed", "how", &echoReq{Sleep: time.Hour})
		return errors.Is(err, telford.ErrDeadlineExceeded) && time.Since(begun) < 2*time.Second
	})
	// Through the runtime only: once it has stopped the rule shows.
	must(t, ask())
	w.srv.Stop(t)
	eventually(t, "calls go by the rule", func() bool { return errors.Is(ask(), telford.ErrUnavailable) })
	if err := ask(telford.Transport(telford.Auto)); err != nil {
		t.Errorf("a call that says which way it goes: %v", err)
	}
}
