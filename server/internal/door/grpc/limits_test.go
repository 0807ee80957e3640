package grpcdoor_test

import (
	"context"
	"testing"
	"time"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/limit"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/door/doortest"
	"telford.dev/telford/server/internal/router"
)

// An instance in another language only answers calls: the runtime keeps it to what it
// declares, and to what operators have laid down.
func TestLimitsOfAWorker(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	cc, ctx := r.byKey(t, "payments")
	c := r.open(ctx, t, cc).hello(&telfordv1.Hello{Instance: "py-1"})
	d := shop("payments")
	d.Methods[0].Limits = []*telfordv1.Limit{{Concurrency: 1, Key: "caller"}}
	d.Methods[0].TimeoutUs = (300 * time.Millisecond).Microseconds()
	c.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Register{Register: d}})
	if m, ok := next[*telfordv1.ServerMessage_Registered](c); !ok || m.Registered.GetRefused() != nil {
		t.Fatalf("registration: %v %v", m, c.err)
	}
	call := func(caller string) error {
		reply, err := r.Router.Call(context.WithoutCancel(t.Context()), &router.Request{
			Namespace: "default", Caller: message.Caller{Namespace: "default", Service: caller},
			Call: &message.Call{Service: "payments", Method: "shop.v1.Payments/Charge", ContentType: message.Proto},
		})
		if err == nil && reply.Err != nil {
			return reply.Err
		}
		return err
	}
	answer := func(m *telfordv1.ServerMessage_Call) {
		c.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Result{Result: &telfordv1.Result{Seq: m.Call.GetSeq(), ContentType: "proto"}}})
	}
	done := make(chan error, 9)
	begin := func(caller string) *telfordv1.ServerMessage_Call {
		t.Helper()
		go func() { done <- call(caller) }()
		m, ok := next[*telfordv1.ServerMessage_Call](c)
		if !ok || m.Call.GetCallerService() != caller || m.Call.GetTimeoutUs() > d.Methods[0].GetTimeoutUs() {
			t.Fatalf("command %v", m)
		}
		return m
	}
	limited := func(caller, name string) {
		t.Helper()
		if e := errs.From(call(caller)); e == nil || e.Code != errs.ResourceExhausted || !e.NotStarted || e.Meta["limit"] != name {
			t.Errorf("%s: %+v", caller, e)
		}
	}
	first := begin("a")
	limited("a", "method shop.v1.Payments/Charge, key caller=a")
	second := begin("b")
	r.Router.SetLimits("default", []limit.Rule{{Service: "payments", Method: "shop.v1.Payments/Charge", Limit: catalog.Limit{Concurrency: 2, Key: "caller"}}})
	third := begin("a")
	limited("a", "method shop.v1.Payments/Charge, key caller=a")
	for _, m := range []*telfordv1.ServerMessage_Call{first, second, third} {
		answer(m)
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	// One that is never answered ends by the timeout of its method.
	begin("a")
	if e := errs.From(<-done); e == nil || e.Code != errs.DeadlineExceeded || e.Meta["timeout"] != "300ms" {
		t.Errorf("got %+v", e)
	}
	if m, _ := next[*telfordv1.ServerMessage_Cancel](c); m.Cancel.GetSeq() == 0 {
		t.Error("the worker is not told")
	}
}
