package rules_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/policy"
	"telford.dev/telford/server/internal/router"
	"telford.dev/telford/server/internal/rules"
)

var _ router.Policy = (*rules.Rules)(nil)

func stats(r *rules.Rules, namespace string) rules.Stats {
	for _, s := range r.Stats() {
		if s.Namespace == namespace {
			return s
		}
	}
	return rules.Stats{}
}

func TestMayCall(t *testing.T) {
	t.Parallel()
	r := open(t, newMemory())
	m := &catalog.Method{Name: "charge"}
	call := func(namespace, caller string) *errs.Error {
		return r.MayCall(namespace, &message.Caller{Namespace: namespace, Service: caller}, "payments", m)
	}
	if err := call("default", "orders"); err != nil {
		t.Fatal(err)
	}
	rule := add(t, r, policy.Rule{Service: "payments", Action: policy.Handle, Effect: policy.Deny, Peer: "orders"}).Rule
	err := call("default", "orders")
	if err == nil || err.Code != errs.PermissionDenied || !err.NotStarted {
		t.Fatalf("%+v", err)
	}
	want := map[string]string{
		"rule": rule.ID, "side": "peer_acceptance", "caller": "orders", "service": "payments", "method": "charge",
		"nearest": "telford policy rm " + rule.ID,
	}
	if diff := cmp.Diff(want, err.Meta); diff != "" {
		t.Errorf("meta (-want +got):\n%s", diff)
	}
	if err := call("other", "orders"); err != nil {
		t.Errorf("in another namespace: %v", err)
	}
	if err := r.MayCall("default", &message.Caller{Service: policy.Operator}, "payments", m); err != nil {
		t.Errorf("the operator: %v", err)
	}
	if err := r.MayCall("default", &message.Caller{Namespace: policy.SystemNamespace, Service: "orders"}, "payments", m); err != nil {
		t.Errorf("the runtime: %v", err)
	}
	if err := r.SetCapability(t.Context(), "default", "search", "rpc.call", false, "anna"); err != nil {
		t.Fatal(err)
	}
	if err := call("default", "search"); err == nil || err.Meta["side"] != "capability" || err.Meta["rule"] != "capability" {
		t.Errorf("a capability: %v", err)
	}
	add(t, r, policy.Rule{Service: "cart", Action: policy.Call, Effect: policy.Allow, Peer: "search"})
	if err := call("default", "cart"); err == nil || err.Meta["side"] != "self_egress" {
		t.Errorf("egress: %v", err)
	}
	r.ReportDenied("default", policy.Pair{Service: "payments", Action: policy.Handle}, 4)
	r.ReportDenied("default", policy.Pair{Service: "cart", Action: policy.Call}, 5)
	r.ReportDenied("default", policy.Pair{Service: "search", Action: policy.Call}, 6)
	got := stats(r, "default")
	if diff := cmp.Diff(map[string]uint64{"capability": 7, "self_egress": 6, "self_acceptance": 0, "peer_acceptance": 5}, got.Denied); diff != "" {
		t.Errorf("counted (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]int{"policy": 2, "capability": 1, "limit": 0, "transport": 0}, got.Rules); diff != "" {
		t.Errorf("rules (-want +got):\n%s", diff)
	}
}

func TestAllowedCallersNarrow(t *testing.T) {
	t.Parallel()
	r := open(t, newMemory())
	m := &catalog.Method{Name: "charge", AllowedCallers: []string{"orders", "cart"}}
	call := func(namespace, caller string) *errs.Error {
		return r.MayCall(namespace, &message.Caller{Namespace: namespace, Service: caller}, "payments", m)
	}
	if err := call("default", "orders"); err != nil {
		t.Error(err)
	}
	err := call("nowhere yet", "search")
	if err == nil || err.Meta["rule"] != policy.ByAllowedCallers || err.Meta["side"] != policy.SidePeerAcceptance {
		t.Errorf("another caller: %v", err)
	}
	if n := stats(r, "nowhere yet").Denied[policy.SidePeerAcceptance]; n != 1 {
		t.Errorf("counted %d", n)
	}
	// A rule does not widen it, and may narrow it further.
	add(t, r, allow("payments", "search"))
	for _, caller := range []string{"search", "orders"} {
		if call("default", caller) == nil {
			t.Errorf("%s may call", caller)
		}
	}
}

func TestShadowDenialsAreCountedAndServed(t *testing.T) {
	t.Parallel()
	m := newMemory()
	hands := clock.NewManual(start)
	r := open(t, m, func(c *rules.Config) { c.Clock = hands })
	add(t, r, policy.Rule{Service: "payments", Action: policy.Handle, Effect: policy.Deny, Peer: "orders", Shadow: true})
	call := func(caller string) {
		t.Helper()
		if err := r.MayCall("default", &message.Caller{Service: caller}, "payments", &catalog.Method{Name: "charge"}); err != nil {
			t.Error(err)
		}
	}
	for range 3 {
		call("orders")
		call("search")
		hands.Advance(time.Second)
	}
	want := []rules.ShadowDenial{{
		Namespace: "default", Service: "payments", Action: "rpc.handle", Caller: "orders", Callee: "payments", Target: "charge",
		Count: 3, First: start, Last: start.Add(2 * time.Second),
	}}
	list := func() []rules.ShadowDenial {
		t.Helper()
		got, err := r.Shadow(t.Context(), "default")
		if err != nil {
			t.Fatal(err)
		}
		return got
	}
	if diff := cmp.Diff(want, list()); diff != "" {
		t.Errorf("before it is written (-want +got):\n%s", diff)
	}
	if err := r.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	call("orders") // after the last writing
	want[0].Count, want[0].Last = 4, start.Add(3*time.Second)
	if diff := cmp.Diff(want, list()); diff != "" {
		t.Errorf("written, and counted on (-want +got):\n%s", diff)
	}
	again := open(t, m)
	if got, err := again.Shadow(t.Context(), "default"); err != nil || len(got) != 1 || got[0].Count != 3 {
		t.Errorf("after a start: %+v, %v", got, err)
	}
	if n, err := r.ClearShadow(t.Context(), "default"); n != 1 || err != nil {
		t.Errorf("cleared %d, %v", n, err)
	}
	if got := list(); len(got) != 0 {
		t.Errorf("after clearing: %+v", got)
	}
	if s := stats(r, "default"); s.ShadowDenied != 4 {
		t.Errorf("counted %d since the start", s.ShadowDenied)
	}
}

func TestShadowDenialsAreBounded(t *testing.T) {
	t.Parallel()
	m := newMemory()
	bounded := func(c *rules.Config) { c.MaxShadow = 3 }
	r := open(t, m, bounded)
	report := func(r *rules.Rules, target string) {
		r.ReportShadow("default", rules.ShadowDenial{Service: "payments", Action: "rpc.handle", Caller: "orders", Callee: "payments", Target: target, Count: 2})
	}
	for i := range 10 {
		report(r, fmt.Sprint("m", i))
	}
	r.ReportShadow("default", rules.ShadowDenial{Service: "payments", Count: -1})
	check := func(r *rules.Rules, other int64) {
		t.Helper()
		got, err := r.Shadow(t.Context(), "default")
		if err != nil || len(got) != 4 {
			t.Fatalf("%+v, %v", got, err)
		}
		if got[0].Service != rules.Other || got[0].Count != other {
			t.Errorf("beyond the bound: %+v, want %d", got[0], other)
		}
	}
	check(r, 14)
	if err := r.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	// The bound is that of what is stored, too.
	r = open(t, m, bounded)
	report(r, "another")
	report(r, "m0")
	check(r, 16)
}

// TestFlush: written about every ten seconds, not at all when nothing happens, and again
// after a failure.
func TestFlush(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		r, err := rules.Open(t.Context(), rules.Config{DB: m, Storage: m})
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			if err := r.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		count := func() {
			r.ReportShadow("default", rules.ShadowDenial{Service: "payments", Action: "rpc.handle", Caller: "orders", Callee: "payments", Target: "x", Count: 1})
		}
		after := func(d time.Duration) int {
			time.Sleep(d) // of the bubble
			synctest.Wait()
			return m.written()
		}
		if n := after(time.Hour); n != 0 {
			t.Errorf("%d writes while nothing happened", n)
		}
		count()
		count()
		if n := after(9 * time.Second); n != 0 {
			t.Errorf("%d writes after 9 s", n)
		}
		if n := after(4 * time.Second); n != 1 {
			t.Errorf("%d writes after 13 s", n)
		}
		if n := after(time.Hour); n != 1 {
			t.Errorf("%d writes after an hour", n)
		}
		m.failing(errors.New("no disk"), false)
		count()
		if n := after(13 * time.Second); n != 2 {
			t.Errorf("%d writes", n)
		}
		m.failing(nil, false)
		after(13 * time.Second)
		if got, err := r.Shadow(t.Context(), "default"); err != nil || len(got) != 1 || got[0].Count != 3 {
			t.Errorf("%+v, %v", got, err)
		}
		count()
		for range 2 {
			if err := r.Stop(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
		for _, d := range m.state.shadow {
			if d.Count != 4 {
				t.Errorf("stored at the end: %+v", d)
			}
		}
		if err := r.Start(t.Context()); errs.CodeOf(err) != errs.Unavailable {
			t.Errorf("started again: %v", err)
		}
	})
}

// A policy that is not used costs a call no memory, and one that is used none either once
// the question is known.
func TestMayCallTakesNoMemory(t *testing.T) {
	r := open(t, newMemory())
	caller, m := &message.Caller{Namespace: "default", Service: "orders"}, &catalog.Method{Name: "charge"}
	ask := func() {
		if err := r.MayCall("default", caller, "payments", m); err != nil {
			t.Error(err)
		}
	}
	if n := testing.AllocsPerRun(100, ask); n != 0 {
		t.Errorf("%v allocations without rules", n)
	}
	add(t, r, allow("payments", "orders"))
	if n := testing.AllocsPerRun(100, ask); n != 0 {
		t.Errorf("%v allocations with rules", n)
	}
}

func BenchmarkMayCall(b *testing.B) {
	m := newMemory()
	r, err := rules.Open(b.Context(), rules.Config{DB: m, Storage: m})
	if err != nil {
		b.Fatal(err)
	}
	caller, method := &message.Caller{Namespace: "default", Service: "orders"}, &catalog.Method{Name: "charge"}
	run := func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			_ = r.MayCall("default", caller, "payments", method)
		}
	}
	b.Run("without rules", run)
	if _, err := r.AddRule(b.Context(), "default", allow("payments", "orders"), "anna"); err != nil {
		b.Fatal(err)
	}
	b.Run("with rules", run)
}
