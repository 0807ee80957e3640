package linkdoor_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/proto"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/limit"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/policy"
	"telford.dev/telford/internal/rulespb"
	"telford.dev/telford/internal/transport"
	"telford.dev/telford/server/internal/door/doortest"
	"telford.dev/telford/server/internal/door/sessions"
	"telford.dev/telford/server/internal/rules"
)

// live is how soon a change of the rules has to be everywhere.
const live = 2 * time.Second

// rulesOf waits for the next rules that an instance is told.
func rulesOf(t *testing.T, w *doortest.Wire) *rulespb.Rules {
	t.Helper()
	start := time.Now()
	m := doortest.Next[*telfordv1.ServerMessage_Rules](w)
	if m == nil {
		t.Fatalf("the connection ended: %v", w.Err())
	}
	if took := time.Since(start); took > live {
		t.Errorf("the rules took %s", took)
	}
	return rulespb.FromProto(m.Rules)
}

// ruled starts an instance and returns the rules that follow HelloAck.
func ruled(t *testing.T, r *runtime, service, instance string) (*doortest.Instance, *doortest.Wire, *rulespb.Rules) {
	t.Helper()
	key, _ := r.Key(t, service)
	in := doortest.NewInstance(r.addr, r.Certify(t, key, service, instance), doortest.Echo())
	w := in.Connect(t, nil)
	at := rulesOf(t, w)
	if refused := w.Register(doortest.Declaration(service, "charge")).GetRefused(); refused != nil {
		t.Fatalf("registration refused: %v", refused)
	}
	return in, w, at
}

func allow(service string, action policy.Action, peer, target string) policy.Rule {
	return policy.Rule{Service: service, Action: action, Effect: policy.Allow, Peer: peer, Target: target}
}

func (r *runtime) add(t *testing.T, rule policy.Rule) policy.Rule {
	t.Helper()
	made, err := r.Rules.AddRule(t.Context(), "default", rule, "test")
	if err != nil {
		t.Fatal(err)
	}
	return made.Rule
}

func TestRulesArePushed(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	first := r.add(t, allow("payments", policy.Handle, "orders", ""))
	_, payments, at := ruled(t, r, "payments", "pay-1")
	_, search, other := ruled(t, r, "search", "s-1")
	if diff := cmp.Diff([]policy.Rule{first}, at.Policy.Rules); diff != "" || at.Revision == 0 {
		t.Errorf("behind HelloAck (-want +got):\n%s", diff)
	}
	if len(other.Policy.Rules) != 0 || len(other.Policy.Restricted) != 1 {
		t.Errorf("another service is told %+v, want that payments has a list and none of its rules", other.Policy)
	}

	// What does not concern an instance does not reach it; what does, does so alone and once.
	second := r.add(t, allow("payments", policy.Handle, "cart*", "charge"))
	next := rulesOf(t, payments)
	if diff := cmp.Diff([]policy.Rule{first, second}, next.Policy.Rules); diff != "" || next.Revision <= at.Revision {
		t.Errorf("after a change: revision %d behind %d (-want +got):\n%s", next.Revision, at.Revision, diff)
	}
	if _, err := r.Rules.SetLimit(t.Context(), "default", limit.Rule{Service: "payments", Method: "charge", Limit: catalog.Limit{Concurrency: 3}}, "test"); err != nil {
		t.Fatal(err)
	}
	if next = rulesOf(t, payments); len(next.Limits) != 1 || next.Limits[0].Limit.Concurrency != 3 || len(next.Policy.Rules) != 2 {
		t.Errorf("with a limit: %+v", next)
	}
	if _, err := r.Rules.SetTransport(t.Context(), "default", transport.Rule{Service: "payments", Mode: transport.Proxy}, "test"); err != nil {
		t.Fatal(err)
	}
	for _, w := range []*doortest.Wire{payments, search} {
		// It is the next that search hears: the rules of payments alone are none of its.
		if next = rulesOf(t, w); len(next.Transports) != 1 || next.Transports[0].Mode != transport.Proxy {
			t.Errorf("with a transport rule: %+v", next)
		}
	}
	if _, err := r.Rules.RemoveRule(t.Context(), "default", second.ID, "test"); err != nil {
		t.Fatal(err)
	}
	if next = rulesOf(t, payments); len(next.Policy.Rules) != 1 {
		t.Errorf("after a removal: %+v", next)
	}
}

func TestManyChangesAreOneMessage(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	_, w, _ := ruled(t, r, "payments", "pay-1")
	const n = 30
	for i := range n {
		r.add(t, allow("payments", policy.Handle, "peer-"+string(rune('a'+i%26))+string(rune('a'+i/26)), ""))
	}
	messages := 0
	for {
		messages++
		if got := rulesOf(t, w); len(got.Policy.Rules) == n {
			break
		}
	}
	if messages > n/2 {
		t.Errorf("%d changes came in %d messages", n, messages)
	}
}

// An instance that resumes is told all of it, as its knowledge may be old.
func TestRulesFollowAResume(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	in, w, _ := ruled(t, r, "payments", "pay-1")
	w.Close(nil)
	doortest.Eventually(t, "the instance is unreachable", func() bool { return !r.reachable("pay-1") })
	rule := r.add(t, allow("payments", policy.Handle, "orders", ""))
	w = in.Connect(t, nil)
	if !w.Ack.GetResumed() {
		t.Fatal("the session is a new one")
	}
	if got := rulesOf(t, w); len(got.Policy.Rules) != 1 || got.Policy.Rules[0].ID != rule.ID {
		t.Errorf("%+v", got)
	}
}

func TestWarningsAndCapabilities(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	off := func(name string, on bool) {
		t.Helper()
		if err := r.Rules.SetCapability(t.Context(), "default", "payments", name, on, "test"); err != nil {
			t.Fatal(err)
		}
	}
	methods := func() int {
		in, err := r.Registry.Get("default", "pay-1")
		if err != nil {
			t.Fatal(err)
		}
		return len(in.Declaration.Methods)
	}
	off("rpc.handle", false)
	key, _ := r.Key(t, "payments")
	w := doortest.NewInstance(r.addr, r.Certify(t, key, "payments", "pay-1"), doortest.Echo()).Connect(t, nil)
	rulesOf(t, w)
	d := doortest.Declaration("payments", "charge")
	d.Dependencies = []*telfordv1.Dependency{{Kind: "rpc", Target: "bank", Names: []string{"transfer"}}}
	registered := w.Register(d)
	if registered.GetRefused() != nil || len(registered.GetWarnings()) != 1 || registered.GetWarnings()[0].GetSide() != policy.SideCapability {
		t.Fatalf("a registration while the capability is off: %v", registered)
	}
	if got := rulesOf(t, w); len(got.Warnings) != 1 || got.Warnings[0].Value != "charge" {
		t.Errorf("the rules after it: %+v", got.Warnings)
	}
	if n := methods(); n != 0 {
		t.Errorf("%d methods are on the map", n)
	}
	if _, err := r.charge(t.Context(), `{}`); errs.CodeOf(err) != errs.PermissionDenied || errs.From(err).Meta["side"] != policy.SideCapability {
		t.Errorf("a call: %v", err)
	}

	off("rpc.handle", true)
	if got := rulesOf(t, w); len(got.Warnings) != 0 || len(got.Policy.Off) != 0 {
		t.Errorf("the rules with the capability back: %+v", got)
	}
	if n := methods(); n != 1 {
		t.Errorf("%d methods came back", n)
	}
	r.add(t, policy.Rule{Service: "payments", Action: policy.Call, Effect: policy.Deny, Peer: "bank"})
	if got := rulesOf(t, w); len(got.Warnings) != 1 || got.Warnings[0].Value != "bank/transfer" || got.Warnings[0].Side != policy.SideSelfEgress {
		t.Errorf("a dependency that is forbidden: %+v", got.Warnings)
	}
	off("rpc.handle", false)
	if got := rulesOf(t, w); len(got.Warnings) != 2 || methods() != 0 {
		t.Errorf("the capability off while it runs: %+v, %d methods", got.Warnings, methods())
	}
}

func TestSharesFollowTheInstances(t *testing.T) {
	t.Parallel()
	var instances atomic.Int64
	r := start(t, doortest.Options{Sessions: sessions.Config{Shares: func(_, _ string, list []limit.Rule) ([]limit.Rule, bool) {
		for i := range list {
			list[i].Limit.Concurrency /= int(instances.Load())
		}
		return list, len(list) > 0
	}}})
	if _, err := r.Rules.SetLimit(t.Context(), "default", limit.Rule{Service: "payments", Limit: catalog.Limit{Concurrency: 12, Scope: catalog.LimitService}}, "test"); err != nil {
		t.Fatal(err)
	}
	is := func(got *rulespb.Rules, want int) {
		t.Helper()
		if len(got.Limits) != 1 || got.Limits[0].Limit.Concurrency != want {
			t.Errorf("a limit of the service: %+v, want %d", got.Limits, want)
		}
	}
	instances.Store(1)
	_, first, at := ruled(t, r, "payments", "pay-1")
	is(at, 12)
	instances.Store(2)
	_, second, _ := ruled(t, r, "payments", "pay-2")
	is(rulesOf(t, first), 6)
	instances.Store(1)
	second.Close(nil)
	is(rulesOf(t, first), 12)
	instances.Store(3)
	r.Sessions.Counted("default", "payments")
	is(rulesOf(t, first), 4)
}

func TestReports(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	_, w := payments(t, r, "pay-1", doortest.Echo())
	for service, id := range map[string]string{"bank": "bank-1", "post": "post-1"} {
		key, _ := r.Key(t, service)
		in := doortest.NewInstance(r.addr, r.Certify(t, key, service, id), doortest.Echo()).Connect(t, nil)
		in.Register(doortest.Declaration(service, "run"))
	}
	send := func(m *telfordv1.Report) {
		w.Send(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Report{Report: m}})
	}
	denial := func(caller, service, by string, action policy.Action, shadow bool, count uint64) *telfordv1.Denial {
		return rulespb.DenialToProto(rulespb.Denial{
			Caller: caller, Service: service, Method: "charge", By: policy.Pair{Service: by, Action: action}, Shadow: shadow, Count: count,
		})
	}
	w.Send(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Watch{Watch: &telfordv1.WatchRequest{Services: []string{"bank"}}}})
	send(&telfordv1.Report{
		Denials: []*telfordv1.Denial{
			denial("orders", "payments", "payments", policy.Handle, true, 3),
			denial("orders", "payments", "orders", policy.Call, true, 2),
			denial("orders", "payments", "payments", policy.Handle, false, 5),
			denial("orders", "payments", "orders", policy.Call, false, 7),
			// Not believed:
			denial("orders", "bank", "bank", policy.Handle, true, 100),            // of another callee
			denial("orders", "payments", "bank", policy.Handle, false, 100),       // by another's rules
			denial("orders", "payments", "payments", "event.publish", false, 100), // by no rules of calls
			denial("Or ders", "payments", "payments", policy.Handle, true, 100),   // by nobody
			denial("orders", "payments", "payments", policy.Handle, true, 0),
		},
		Failing: []string{"bank-1", "post-1", "pay-1", "nobody"},
	})
	failing := func(id string) bool {
		in, err := r.Registry.Get("default", id)
		return err == nil && in.FailingUntil.After(time.Now())
	}
	doortest.Eventually(t, "the instance that is watched is known to fail", func() bool { return failing("bank-1") })
	for _, id := range []string{"post-1", "pay-1"} {
		if failing(id) {
			t.Errorf("%s is said to fail by one who does not watch it", id)
		}
	}
	got, err := r.Rules.Shadow(t.Context(), "default")
	if err != nil {
		t.Fatal(err)
	}
	counts := map[string]int64{}
	for _, d := range got {
		counts[d.Service+" "+d.Action+" "+d.Caller+" "+d.Callee+" "+d.Target] = d.Count
	}
	want := map[string]int64{"payments rpc.handle orders payments charge": 3, "orders rpc.call orders payments charge": 2}
	if diff := cmp.Diff(want, counts); diff != "" {
		t.Errorf("shadow denials (-want +got):\n%s", diff)
	}
	var stats rules.Stats
	for _, s := range r.Rules.Stats() {
		if s.Namespace == "default" {
			stats = s
		}
	}
	if stats.Denied[policy.SidePeerAcceptance] != 5 || stats.Denied[policy.SideSelfEgress] != 7 || stats.ShadowDenied != 5 {
		t.Errorf("counted: %+v", stats)
	}

	big := &telfordv1.Report{Failing: make([]string, 5000)}
	send(big)
	<-w.Done()
	if err := w.Err(); err == nil || !contains(err.Error(), "invalid_argument") {
		t.Errorf("a report without bounds: %v", err)
	}
}

// The router goes by the policy for callers that come through it.
func TestThePolicyHoldsForProxiedCalls(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	_, _ = payments(t, r, "pay-1", doortest.Echo())
	key, _ := r.Key(t, "orders")
	orders := doortest.NewInstance(r.addr, r.Certify(t, key, "orders", "o-1"), doortest.Echo())
	w := orders.Connect(t, nil)
	rulesOf(t, w)
	call := func() *errs.Error {
		reply, err := orders.Peer.Call(t.Context(), &message.Call{Service: "payments", Method: "charge", ContentType: message.JSON, Body: []byte(`{}`)})
		if err == nil && reply.Err != nil {
			return reply.Err
		}
		return errs.From(err)
	}
	if err := call(); err != nil {
		t.Fatal(err)
	}
	rule := r.add(t, policy.Rule{Service: "payments", Action: policy.Handle, Effect: policy.Deny, Peer: "orders"})
	err := call()
	if err == nil || err.Code != errs.PermissionDenied || !err.NotStarted || err.Meta["rule"] != rule.ID || err.Meta["side"] != policy.SidePeerAcceptance {
		t.Fatalf("%v %v", err, err.Meta)
	}
	if _, e := r.Rules.SetShadow(t.Context(), "default", rule.ID, true, "test"); e != nil {
		t.Fatal(e)
	}
	if err := call(); err != nil {
		t.Fatal(err)
	}
	got, e := r.Rules.Shadow(t.Context(), "default")
	if e != nil || len(got) != 1 || got[0].Count != 1 || got[0].Caller != "orders" {
		t.Errorf("counted: %+v, %v", got, e)
	}
}

func TestRulesMessageIsWhatItIsMadeOf(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	r.add(t, allow("payments", policy.Handle, "orders", ""))
	key, _ := r.Key(t, "payments")
	w := doortest.NewInstance(r.addr, r.Certify(t, key, "payments", "pay-1"), doortest.Echo()).Connect(t, nil)
	m := doortest.Next[*telfordv1.ServerMessage_Rules](w).Rules
	if back := rulespb.ToProto(rulespb.FromProto(m)); !proto.Equal(m, back) {
		t.Errorf("unknown fields or duplicates: %v and %v", m, back)
	}
}
