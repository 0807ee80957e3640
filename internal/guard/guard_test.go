package guard

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/policy"
	"telford.dev/telford/internal/rulespb"
)

func caller(service string) *message.Caller {
	return &message.Caller{Namespace: "default", Service: service}
}

func guarded(rules ...policy.Rule) *Guard {
	g := New("payments")
	g.Set(policy.Compile(&policy.Set{Rules: rules}))
	return g
}

func TestRefusesBeforeItHasAPolicy(t *testing.T) {
	t.Parallel()
	g := New("payments")
	if err := g.Ready(); err == nil || err.Code != errs.Unavailable || !err.NotStarted {
		t.Errorf("ready: %v", err)
	}
	if err := g.Allow(caller("orders"), &catalog.Method{Name: "charge"}, false); err == nil || err.Code != errs.Unavailable || !err.NotStarted {
		t.Errorf("allowed: %v", err)
	}
	g.Set(nil)
	if err := g.Allow(caller("orders"), &catalog.Method{Name: "charge"}, false); err != nil || g.Ready() != nil {
		t.Errorf("without rules: %v", err)
	}
}

func TestDecidesByPolicyThenByTheHandler(t *testing.T) {
	t.Parallel()
	g := guarded(
		policy.Rule{ID: "r1", Service: "payments", Action: policy.Handle, Effect: policy.Deny, Peer: "mail"},
		policy.Rule{ID: "r2", Service: "audit", Action: policy.Call, Effect: policy.Deny, Peer: "payments"},
	)
	m := &catalog.Method{Name: "charge", AllowedCallers: []string{"orders", "mail"}}
	for _, test := range []struct {
		who  *message.Caller
		rule string // empty: let in
	}{
		{caller("orders"), ""},
		{caller("mail"), "r1"},
		{caller("audit"), "r2"},
		{caller("users"), policy.ByAllowedCallers},
		{caller(policy.Operator), ""},
		{&message.Caller{Namespace: policy.SystemNamespace, Service: "runtime"}, ""},
	} {
		err := g.Allow(test.who, m, false)
		if test.rule == "" {
			if err != nil {
				t.Errorf("%+v: %v", test.who, err)
			}
			continue
		}
		if err == nil || err.Code != errs.PermissionDenied || !err.NotStarted || err.Meta["rule"] != test.rule {
			t.Errorf("%+v: %+v", test.who, err)
		}
	}
}

func TestCountsWhatItDenies(t *testing.T) {
	t.Parallel()
	g := guarded(
		policy.Rule{ID: "r1", Service: "payments", Action: policy.Handle, Effect: policy.Deny, Peer: "mail"},
		policy.Rule{ID: "r2", Service: "orders", Action: policy.Call, Effect: policy.Deny, Peer: "payments", Shadow: true},
	)
	m := &catalog.Method{Name: "charge"}
	for range 3 {
		_ = g.Allow(caller("mail"), m, false)
	}
	_ = g.Allow(caller("mail"), m, true) // the runtime has counted it
	_ = g.Allow(caller("users"), m, false)
	if err := g.Allow(caller("orders"), m, false); err != nil {
		t.Errorf("a rule that is only counted: %v", err)
	}
	want := map[string]rulespb.Denial{
		"mail":   {Caller: "mail", Service: "payments", Method: "charge", By: policy.Pair{Service: "payments", Action: policy.Handle}, Count: 3},
		"orders": {Caller: "orders", Service: "payments", Method: "charge", By: policy.Pair{Service: "orders", Action: policy.Call}, Shadow: true, Count: 1},
	}
	list := g.Take()
	got := make(map[string]rulespb.Denial)
	for _, d := range list {
		got[d.Caller] = d
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if again := g.Take(); again != nil {
		t.Errorf("counted twice: %v", again)
	}
	g.Return(list)
	g.Return(list[:1])
	if n := len(g.Take()); n != 2 {
		t.Errorf("%d sorts after a return", n)
	}
}

func TestCountsAreBounded(t *testing.T) {
	t.Parallel()
	g := guarded(policy.Rule{ID: "r1", Service: "payments", Action: policy.Handle, Effect: policy.Deny})
	const n = 5 * maxCounts
	for i := range n {
		_ = g.Allow(caller(fmt.Sprintf("s%d", i)), &catalog.Method{Name: "charge"}, false)
	}
	var total uint64
	list := g.Take()
	for _, d := range list {
		total += d.Count
	}
	if total != n || len(list) > 2*maxCounts+1 {
		t.Errorf("%d denials in %d sorts", total, len(list))
	}
}

func BenchmarkAllow(b *testing.B) {
	g := guarded(
		policy.Rule{ID: "r1", Service: "payments", Action: policy.Handle, Effect: policy.Allow, Peer: "orders"},
		policy.Rule{ID: "r2", Service: "orders", Action: policy.Call, Effect: policy.Allow, Peer: "pay*"},
	)
	who, m := caller("orders"), &catalog.Method{Name: "shop.v1.Payments/Charge"}
	b.ReportAllocs()
	for b.Loop() {
		if err := g.Allow(who, m, false); err != nil {
			b.Fatal(err)
		}
	}
}
