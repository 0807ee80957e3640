package rules_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/id"
	"telford.dev/telford/internal/limit"
	"telford.dev/telford/internal/policy"
	"telford.dev/telford/internal/transport"
	"telford.dev/telford/server/internal/rules"
	"telford.dev/telford/server/internal/tx"
)

var start = time.Date(2030, 3, 1, 12, 0, 0, 0, time.UTC)

func open(t *testing.T, m *memory, change ...func(*rules.Config)) *rules.Rules {
	t.Helper()
	cfg := rules.Config{DB: m, Storage: m, Clock: clock.NewManual(start)}
	for _, f := range change {
		f(&cfg)
	}
	r, err := rules.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = r.Stop(context.Background()) })
	return r
}

func allow(service string, peer string) policy.Rule {
	return policy.Rule{Service: service, Action: policy.Handle, Effect: policy.Allow, Peer: peer}
}

func add(t *testing.T, r *rules.Rules, rule policy.Rule) rules.Stored[policy.Rule] {
	t.Helper()
	made, err := r.AddRule(t.Context(), "default", rule, "anna")
	if err != nil {
		t.Fatal(err)
	}
	return made
}

func isCode(t *testing.T, what string, err error, code errs.Code, says ...string) {
	t.Helper()
	if errs.CodeOf(err) != code {
		t.Errorf("%s: %v, want %s", what, err, code)
		return
	}
	for _, s := range says {
		if !strings.Contains(err.Error(), s) {
			t.Errorf("%s: %v does not say %q", what, err, s)
		}
	}
}

func TestARuleComesAndGoes(t *testing.T) {
	t.Parallel()
	m := newMemory()
	r := open(t, m)
	var told []string
	cancel := r.OnChange(func(namespace string) {
		told = append(told, fmt.Sprintf("%s %d", namespace, len(r.PolicyRules(namespace)))) // readers see it already
	})
	made := add(t, r, allow("payments", "orders"))
	if !id.Valid("pol", made.Rule.ID) || made.Revision != 1 || made.Author != "anna" || !made.Updated.Equal(start) {
		t.Errorf("made %+v", made)
	}
	if r.Policy("default").MayCall("search", "payments", "charge") || !r.Policy("default").MayCall("orders", "payments", "charge") {
		t.Error("the rule is not in force")
	}
	if r.Policy("other") != nil || r.Revision("other") != 0 || r.Revision("default") != 1 {
		t.Error("another namespace has something of it")
	}
	shadow, err := r.SetShadow(t.Context(), "default", made.Rule.ID, true, "bob")
	if err != nil || !shadow.Rule.Shadow || shadow.Revision != 2 || shadow.Author != "bob" {
		t.Errorf("shadow: %+v, %v", shadow, err)
	}
	again, err := r.SetShadow(t.Context(), "default", made.Rule.ID, true, "carl")
	if diff := cmp.Diff(shadow, again); diff != "" || err != nil {
		t.Errorf("what is so already is written: %v\n%s", err, diff)
	}
	// Another start finds the same.
	if diff := cmp.Diff(r.PolicyRules("default"), open(t, m).PolicyRules("default")); diff != "" {
		t.Errorf("after a start:\n%s", diff)
	}
	gone, err := r.RemoveRule(t.Context(), "default", made.Rule.ID, "anna")
	if diff := cmp.Diff(shadow, gone); diff != "" || err != nil {
		t.Errorf("removed: %v\n%s", err, diff)
	}
	_, err = r.RemoveRule(t.Context(), "default", made.Rule.ID, "anna")
	isCode(t, "removed again", err, errs.NotFound, made.Rule.ID, "default", "telford policy show")
	_, err = r.SetShadow(t.Context(), "default", "pol_x", true, "anna")
	isCode(t, "set nothing", err, errs.NotFound, "pol_x")
	cancel()
	add(t, r, allow("payments", "orders"))
	if diff := cmp.Diff([]string{"default 1", "default 1", "default 0"}, told); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

func TestDuplicatesNameTheirLike(t *testing.T) {
	t.Parallel()
	r := open(t, newMemory())
	first := add(t, r, allow("payments", "orders"))
	_, err := r.AddRule(t.Context(), "default", allow("payments", "orders"), "bob")
	isCode(t, "the same", err, errs.AlreadyExists, first.Rule.ID)
	same := allow("payments", "orders")
	same.Shadow = true
	_, err = r.AddRule(t.Context(), "default", same, "bob")
	isCode(t, "the same as a shadow", err, errs.AlreadyExists, first.Rule.ID, "telford policy shadow on")
	any1 := add(t, r, allow("payments", ""))
	_, err = r.AddRule(t.Context(), "default", allow("payments", "*"), "bob")
	isCode(t, "any in other words", err, errs.AlreadyExists, any1.Rule.ID)
	word := policy.Rule{Service: "payments", Action: policy.Publish, Effect: policy.Allow, Target: "*"}
	add(t, r, word) // one word
	word.Target = ""
	every := add(t, r, word)
	word.Target = "#"
	_, err = r.AddRule(t.Context(), "default", word, "bob")
	isCode(t, "any topic in other words", err, errs.AlreadyExists, every.Rule.ID)
	if _, err := r.AddRule(t.Context(), "other", allow("payments", "orders"), "bob"); err != nil {
		t.Errorf("in another namespace: %v", err)
	}
}

func TestTargetsKeepTheirIDs(t *testing.T) {
	t.Parallel()
	m := newMemory()
	r := open(t, m)
	set := func(service, method string, concurrency int) rules.Stored[limit.Rule] {
		t.Helper()
		l, err := r.SetLimit(t.Context(), "default", limit.Rule{
			Service: service, Method: method, Limit: catalog.Limit{Concurrency: concurrency},
		}, "anna")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	a, b, quota := set("payments", "charge", 3), set("payments", "", 30), set("", "", 300)
	again := set("payments", "charge", 4)
	if again.Rule.ID != a.Rule.ID || again.Revision != 2 || !id.Valid("lim", a.Rule.ID) {
		t.Errorf("set again: %+v after %+v", again, a)
	}
	writes := m.written()
	if same := set("payments", "charge", 4); m.written() != writes || same.Revision != 2 {
		t.Errorf("the same again was written: %+v", same)
	}
	if diff := cmp.Diff([]rules.Stored[limit.Rule]{again, b, quota}, r.Limits("default")); diff != "" {
		t.Errorf("limits (-want +got):\n%s", diff)
	}
	tr, err := r.SetTransport(t.Context(), "default", transport.Rule{Service: "payments", Mode: transport.Direct, Timeout: time.Second}, "anna")
	if err != nil || !id.Valid("trn", tr.Rule.ID) {
		t.Fatal(err)
	}
	tr2, err := r.SetTransport(t.Context(), "default", transport.Rule{Service: "payments", Mode: transport.Proxy}, "bob")
	if err != nil || tr2.Rule.ID != tr.Rule.ID || tr2.Rule.Timeout != 0 {
		t.Errorf("%+v, %v", tr2, err)
	}
	other := open(t, m)
	if diff := cmp.Diff(r.Limits("default"), other.Limits("default")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(r.Transports("default"), other.Transports("default")); diff != "" {
		t.Error(diff)
	}
	if gone, err := r.RemoveTransport(t.Context(), "default", tr.Rule.ID, "anna"); err != nil || gone.Rule != tr2.Rule {
		t.Errorf("%+v, %v", gone, err)
	}
	if _, err := r.RemoveLimit(t.Context(), "default", a.Rule.ID, "anna"); err != nil {
		t.Error(err)
	}
	_, err = r.RemoveLimit(t.Context(), "default", tr.Rule.ID, "anna")
	isCode(t, "a limit by the id of something else", err, errs.NotFound, tr.Rule.ID, "telford limits show")
	_, err = r.RemoveTransport(t.Context(), "default", tr.Rule.ID, "anna")
	isCode(t, "removed again", err, errs.NotFound, "telford transport show")
}

func TestCapabilities(t *testing.T) {
	t.Parallel()
	m := newMemory()
	r := open(t, m)
	set := func(name string, on bool) error {
		return r.SetCapability(t.Context(), "default", "payments", name, on, "anna")
	}
	for range 2 {
		if err := set("rpc.handle", false); err != nil {
			t.Fatal(err)
		}
	}
	if writes := m.written(); writes != 1 {
		t.Errorf("%d writes", writes)
	}
	if r.Handles("default", "payments") || !r.Handles("default", "orders") || !r.Handles("other", "payments") {
		t.Error("the switch is not where it should be")
	}
	d := &catalog.Declaration{Service: "payments", Methods: []catalog.Method{{Name: "charge"}}}
	if w := r.Warnings("default", d); len(w) != 1 || w[0].Side != policy.SideCapability {
		t.Errorf("warnings %+v", w)
	}
	if off := r.Off("default"); len(off) != 1 || off[0].Rule != (policy.Pair{Service: "payments", Action: policy.Handle}) || off[0].Author != "anna" {
		t.Errorf("off: %+v", off)
	}
	if open(t, m).Handles("default", "payments") {
		t.Error("it is not kept")
	}
	for range 2 {
		if err := set("rpc.handle", true); err != nil {
			t.Fatal(err)
		}
	}
	if !r.Handles("default", "payments") || r.Policy("default") != nil {
		t.Error("it is still off")
	}
	isCode(t, "an unknown one", set("rpc.fly", false), errs.InvalidArgument, "rpc.fly", "job.handle")
	isCode(t, "nobody's", r.SetCapability(t.Context(), "default", "pay*", "rpc.handle", false, "anna"), errs.InvalidArgument, "pay*")
}

func TestInvalidRulesAreRefused(t *testing.T) {
	t.Parallel()
	m := newMemory()
	r := open(t, m)
	_, err := r.AddRule(t.Context(), "default", policy.Rule{Service: "payments", Action: "fly", Effect: policy.Allow}, "anna")
	isCode(t, "policy", err, errs.InvalidArgument, "fly")
	_, err = r.SetLimit(t.Context(), "default", limit.Rule{Method: "charge", Limit: catalog.Limit{Concurrency: 1}}, "anna")
	isCode(t, "limit", err, errs.InvalidArgument, "charge")
	_, err = r.SetTransport(t.Context(), "default", transport.Rule{Mode: "fly"}, "anna")
	isCode(t, "transport", err, errs.InvalidArgument, "fly")
	if m.written() != 0 {
		t.Error("something was written")
	}
}

func TestThereIsRoomForSoMany(t *testing.T) {
	t.Parallel()
	r := open(t, newMemory(), func(c *rules.Config) { c.MaxRules = 4 })
	add(t, r, allow("payments", "orders"))
	l, err := r.SetLimit(t.Context(), "default", limit.Rule{Service: "payments", Limit: catalog.Limit{Concurrency: 1}}, "anna")
	if err != nil {
		t.Fatal(err)
	}
	if err := r.SetCapability(t.Context(), "default", "payments", "job.handle", false, "anna"); err != nil {
		t.Fatal(err)
	}
	if _, err := r.SetTransport(t.Context(), "default", transport.Rule{Mode: transport.Proxy}, "anna"); err != nil {
		t.Fatal(err)
	}
	_, err = r.AddRule(t.Context(), "default", allow("payments", "search"), "anna")
	isCode(t, "a rule", err, errs.ResourceExhausted, "4 rules", "default")
	_, err = r.SetLimit(t.Context(), "default", limit.Rule{Service: "orders", Limit: catalog.Limit{Concurrency: 1}}, "anna")
	isCode(t, "a limit", err, errs.ResourceExhausted)
	_, err = r.SetTransport(t.Context(), "default", transport.Rule{Service: "orders", Mode: transport.Proxy}, "anna")
	isCode(t, "a transport", err, errs.ResourceExhausted)
	isCode(t, "a capability", r.SetCapability(t.Context(), "default", "payments", "rpc.call", false, "anna"), errs.ResourceExhausted)
	// What is there can be changed and removed.
	if _, err := r.SetLimit(t.Context(), "default", limit.Rule{Service: "payments", Limit: catalog.Limit{Concurrency: 2}}, "anna"); err != nil {
		t.Error(err)
	}
	if _, err := r.RemoveLimit(t.Context(), "default", l.Rule.ID, "anna"); err != nil {
		t.Error(err)
	}
	add(t, r, allow("payments", "search"))
	if _, err := r.AddRule(t.Context(), "other", allow("payments", "search"), "anna"); err != nil {
		t.Errorf("in another namespace: %v", err)
	}
}

// Two nodes that share a store do not overwrite each other: who finds that the other was
// first looks again.
func TestTwoNodes(t *testing.T) {
	t.Parallel()
	m := newMemory()
	a, b := open(t, m), open(t, m)
	first := add(t, a, allow("payments", "orders"))
	_, err := b.AddRule(t.Context(), "default", allow("payments", "orders"), "bob")
	isCode(t, "what the other node has added", err, errs.AlreadyExists, first.Rule.ID)

	// Changed between the look and the write.
	var inside error
	m.before = func() { _, inside = a.SetShadow(t.Context(), "default", first.Rule.ID, true, "anna") }
	set, err := b.SetShadow(t.Context(), "default", first.Rule.ID, false, "bob")
	if err != nil || inside != nil {
		t.Fatal(err, inside)
	}
	if set.Rule.Shadow {
		t.Errorf("%+v", set)
	}
	m.before = func() { _, inside = a.RemoveRule(t.Context(), "default", first.Rule.ID, "anna") }
	_, err = b.SetShadow(t.Context(), "default", first.Rule.ID, true, "bob")
	if inside != nil {
		t.Fatal(inside)
	}
	isCode(t, "removed meanwhile", err, errs.NotFound, first.Rule.ID)
}

func TestUnknownOutcomes(t *testing.T) {
	t.Parallel()
	for _, lost := range []bool{true, false} {
		m := newMemory()
		r := open(t, m)
		kept := add(t, r, allow("payments", "orders"))
		m.failing(fmt.Errorf("power: %w", tx.ErrOutcomeUnknown), lost)
		_, err := r.AddRule(t.Context(), "default", allow("payments", "search"), "anna")
		isCode(t, "the write", err, errs.Unavailable, "unknown")
		if len(r.PolicyRules("default")) != 1 {
			t.Error("memory runs ahead of the store")
		}
		m.failing(nil, false)
		told := 0
		r.OnChange(func(string) { told++ })
		if err := r.Reload(t.Context()); err != nil {
			t.Fatal(err)
		}
		want := 1
		if lost {
			want = 2
		}
		if got := r.PolicyRules("default"); len(got) != want || got[0].Rule.ID != kept.Rule.ID || told != want-1 {
			t.Errorf("after the store was read again, lost %t: %+v, told %d times", lost, got, told)
		}
		if r.Policy("default").MayCall("search", "payments", "x") != lost {
			t.Error("the policy is not the one that is stored")
		}
	}
}

func TestStoreErrorsAreExplained(t *testing.T) {
	t.Parallel()
	m := newMemory()
	r := open(t, m)
	for _, c := range []struct {
		err  error
		code errs.Code
	}{
		{tx.ErrFull, errs.ResourceExhausted},
		{tx.ErrReadOnly, errs.FailedPrecondition},
		{tx.ErrClosed, errs.Unavailable},
		{tx.ErrBusy, errs.Unavailable},
		{tx.ErrUnavailable, errs.Unavailable},
		{tx.ErrInvalid, errs.InvalidArgument},
		{errors.New("what"), errs.Internal},
	} {
		m.failing(fmt.Errorf("write: %w", c.err), false)
		_, err := r.AddRule(t.Context(), "default", allow("payments", "orders"), "anna")
		isCode(t, c.err.Error(), err, c.code)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := r.AddRule(ctx, "default", allow("payments", "orders"), "anna")
	isCode(t, "nobody waits", err, errs.Canceled)
	if n := len(r.PolicyRules("default")); n != 0 {
		t.Errorf("%d rules", n)
	}
}

func TestUnreadableRulesKeepTheDoorShut(t *testing.T) {
	t.Parallel()
	m := newMemory()
	row := rules.Row{Namespace: "default", Kind: "policy", ID: "pol_bad", Target: "x", Spec: []byte("{"), Revision: 1}
	m.state.rules[ruleKey(&row)] = row
	_, err := rules.Open(t.Context(), rules.Config{DB: m, Storage: m})
	isCode(t, "open", err, errs.Internal, "pol_bad", "default")
	delete(m.state.rules, ruleKey(&row))
	newer := rules.Row{Namespace: "default", Kind: "weather", ID: "wea_1", Target: "x", Spec: []byte("?"), Revision: 1}
	m.state.rules[ruleKey(&newer)] = newer
	r := open(t, m)
	if r.Policy("default") != nil {
		t.Error("a kind of a newer program is read as something")
	}
	if _, err := rules.Open(t.Context(), rules.Config{}); errs.CodeOf(err) != errs.InvalidArgument {
		t.Errorf("without a store: %v", err)
	}
}

func TestNamespaces(t *testing.T) {
	t.Parallel()
	m := newMemory()
	m.spaces = map[string]bool{"default": true, "blue": true}
	r := open(t, m, func(c *rules.Config) { c.Namespaces = m })
	_, err := r.AddRule(t.Context(), "red", allow("payments", "orders"), "anna")
	isCode(t, "nowhere", err, errs.NotFound, "red")
	add(t, r, allow("payments", "orders"))
	if _, err := r.AddRule(t.Context(), "blue", allow("payments", "orders"), "anna"); err != nil {
		t.Fatal(err)
	}
	r.ReportShadow("blue", rules.ShadowDenial{Service: "payments", Action: "rpc.handle", Caller: "orders", Callee: "payments", Target: "x", Count: 2})
	var told []string
	r.OnChange(func(ns string) { told = append(told, fmt.Sprint(ns, r.Policy(ns) != nil)) })
	if err := r.RemoveNamespace(t.Context(), "blue"); err != nil {
		t.Fatal(err)
	}
	delete(m.spaces, "blue")
	if r.Policy("blue") != nil || len(r.PolicyRules("default")) != 1 || len(told) != 1 || told[0] != "bluefalse" {
		t.Errorf("what is left: %v, told %v", r.PolicyRules("blue"), told)
	}
	// What is counted of one that is gone is not written.
	r.ReportShadow("blue", rules.ShadowDenial{Service: "payments", Action: "rpc.handle", Caller: "orders", Callee: "payments", Target: "x", Count: 2})
	r.ReportShadow("default", rules.ShadowDenial{Service: "payments", Action: "rpc.handle", Caller: "orders", Callee: "payments", Target: "x", Count: 3})
	if err := r.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if len(m.state.shadow) != 1 || len(m.state.rules) != 1 {
		t.Errorf("stored: %v %v", m.state.shadow, m.state.rules)
	}
}

// Readers beside writers see whole snapshots.
func TestReadersBesideWriters(t *testing.T) {
	t.Parallel()
	r := open(t, newMemory())
	stop := make(chan struct{})
	var readers sync.WaitGroup
	for range 4 {
		readers.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				n := len(r.PolicyRules("default"))
				set := r.PolicySet("default")
				if later := len(r.PolicyRules("default")); len(set.Rules) < n || later < len(set.Rules) {
					t.Errorf("rules are %d, then %d, then %d", n, len(set.Rules), later)
					return
				}
			}
		})
	}
	for i := range 50 {
		add(t, r, allow("payments", fmt.Sprintf("peer-%d", i)))
	}
	close(stop)
	readers.Wait()
}
