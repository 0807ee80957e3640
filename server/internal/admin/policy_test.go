package admin

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/policy"
	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/rules"
)

func TestPolicyIsTheSameOverBothDoors(t *testing.T) {
	t.Parallel()
	s := setup(t)
	ctx, token := s.operator(t), s.authority.OperatorToken()
	s.register(t, "default", "payments", "in-1")
	p, r := adminv1.NewPolicyClient(s.conn), adminv1.NewTransportClient(s.conn)
	rule, err := p.AddRule(ctx, &adminv1.AddPolicyRuleRequest{Service: "payments", Action: "rpc.handle", Effect: "allow", Peer: "orders"})
	if err != nil {
		t.Fatal(err)
	}
	if rule.GetRevision() != 1 || rule.GetAuthor() != operator || rule.GetNamespace() != "default" || !strings.HasPrefix(rule.GetId(), "pol_") {
		t.Errorf("%v", rule)
	}
	code, body := s.do(t, http.MethodPost, "/api/v1/policy/rules", token, `{"service":"orders","action":"event.publish","effect":"deny","target":"secret.#","shadow":true}`)
	if code != 200 {
		t.Fatalf("%d %s", code, body)
	}
	if _, err := p.SetCapability(ctx, &adminv1.SetCapabilityRequest{Service: "payments", Name: "rpc.handle"}); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Set(ctx, &adminv1.SetTransportRequest{Service: "payments", Mode: "proxy", Timeout: "2s"}); err != nil {
		t.Fatal(err)
	}
	s.rules.ReportShadow("default",
		rules.ShadowDenial{Service: "payments", Action: "rpc.handle", Caller: "orders", Callee: "payments", Target: "charge", Count: 3},
		rules.ShadowDenial{Service: "orders", Action: "rpc.call", Caller: "orders", Callee: "payments", Target: "charge", Count: 4})
	for path, call := range map[string]func() (proto.Message, error){
		"/api/v1/policy":                  func() (proto.Message, error) { return p.Get(ctx, &adminv1.GetPolicyRequest{}) },
		"/api/v1/policy?service=payments": func() (proto.Message, error) { return p.Get(ctx, &adminv1.GetPolicyRequest{Service: "payments"}) },
		"/api/v1/policy?namespace=1000":   func() (proto.Message, error) { return p.Get(ctx, &adminv1.GetPolicyRequest{}) },
		"/api/v1/policy/shadow":           func() (proto.Message, error) { return p.ListShadow(ctx, &adminv1.ListShadowRequest{}) },
		"/api/v1/policy/shadow?page_size=1": func() (proto.Message, error) {
			return p.ListShadow(ctx, &adminv1.ListShadowRequest{PageSize: 1})
		},
		"/api/v1/policy/shadow?service=orders": func() (proto.Message, error) {
			return p.ListShadow(ctx, &adminv1.ListShadowRequest{Service: "orders"})
		},
		"/api/v1/transports":                func() (proto.Message, error) { return r.List(ctx, &adminv1.ListTransportsRequest{}) },
		"/api/v1/transports?service=orders": func() (proto.Message, error) { return r.List(ctx, &adminv1.ListTransportsRequest{Service: "orders"}) },
		"/api/v1/policy:decide?from=search&to=payments&target=charge": func() (proto.Message, error) {
			return p.GetDecision(ctx, &adminv1.GetDecisionRequest{From: "search", To: "payments", Target: "charge"})
		},
	} {
		want, err := call()
		if err != nil {
			t.Errorf("%s over gRPC: %v", path, err)
			continue
		}
		code, got := s.do(t, http.MethodGet, path, token, "")
		if code != http.StatusOK {
			t.Errorf("%s answered %d: %s", path, code, got)
			continue
		}
		sameBytes(t, got, want)
	}
	state, err := p.Get(ctx, &adminv1.GetPolicyRequest{Service: "orders"})
	if err != nil || len(state.GetRules()) != 2 || len(state.GetCapabilities()) != 0 || len(state.GetWarnings()) != 0 {
		t.Errorf("of orders: %v, %v", state, err) // its own rule, and the one that names it
	}
	state, err = p.Get(ctx, &adminv1.GetPolicyRequest{Service: "payments"})
	if err != nil || len(state.GetRules()) != 1 || len(state.GetCapabilities()) != 1 || len(state.GetWarnings()) != 1 || state.GetWarnings()[0].GetInstance() != "in-1" {
		t.Errorf("of payments: %v, %v", state, err)
	}
	if !strings.Contains(s.log.String(), `"operation":"telford.admin.v1.Policy/SetCapability"`) || strings.Contains(s.log.String(), "Policy/GetDecision") {
		t.Error("the audit log does not have what changed, or has what did not")
	}
	// Removed, and forgotten.
	code, body = s.do(t, http.MethodDelete, "/api/v1/policy/rules/"+rule.GetId(), token, "")
	if code != 200 || !strings.Contains(string(body), rule.GetId()) {
		t.Errorf("%d %s", code, body)
	}
	code, body = s.do(t, http.MethodPost, "/api/v1/policy/shadow:clear", token, "{}")
	if code != 200 || !strings.Contains(string(body), `"2"`) {
		t.Errorf("%d %s", code, body)
	}
}

func TestNamespacesEnd(t *testing.T) {
	t.Parallel()
	s := setup(t)
	ctx := s.operator(t)
	n := adminv1.NewNamespacesClient(s.conn)
	if _, err := n.Create(ctx, &adminv1.CreateNamespaceRequest{Name: "blue", Account: "2000"}); err != nil {
		t.Fatal(err)
	}
	s.register(t, "blue", "payments", "in-1")
	if err := s.rules.SetCapability(ctx, "blue", "payments", "rpc.handle", false, "test"); err != nil {
		t.Fatal(err)
	}
	_, err := n.Remove(ctx, &adminv1.RemoveNamespaceRequest{Name: "2000"})
	if err == nil || !strings.Contains(err.Error(), "in-1 of payments") {
		t.Errorf("with an instance: %v", err)
	}
	if !s.rules.Handles("blue", "orders") || s.rules.Handles("blue", "payments") {
		t.Error("what was refused took the rules away")
	}
	if err := s.registry.Deregister(ctx, "blue", "in-1", catalog.Deregistered); err != nil {
		t.Fatal(err)
	}
	gone, err := n.Remove(ctx, &adminv1.RemoveNamespaceRequest{Name: "2000"})
	if err != nil || gone.GetName() != "blue" {
		t.Fatalf("%v, %v", gone, err)
	}
	if !s.rules.Handles("blue", "payments") {
		t.Error("its rules outlive it")
	}
	set, err := n.SetAccount(ctx, &adminv1.SetAccountRequest{Name: "default", Account: "2000"})
	if err != nil || set.GetAccount() != "2000" {
		t.Errorf("the account is not free: %v, %v", set, err)
	}
}

// TestDecisionsAreWhatIsEnforced: whatever the rules, the answer to a question is what
// becomes of the call.
func TestDecisionsAreWhatIsEnforced(t *testing.T) {
	t.Parallel()
	s := setup(t)
	ctx := s.operator(t)
	p := adminv1.NewPolicyClient(s.conn)
	methods := []catalog.Method{
		{Name: "shop.v1.Payments/Charge", Kind: catalog.Unary, ContentTypes: []string{"json"}},
		{Name: "refund", Kind: catalog.Unary, ContentTypes: []string{"json"}, AllowedCallers: []string{"orders"}},
	}
	_, _, err := s.registry.Register(ctx, registry.Owner{Namespace: "default", Instance: "in-1", Service: "payments", Door: "link"},
		&catalog.Declaration{Service: "payments", Realm: "global", Status: catalog.OK, Methods: methods})
	if err != nil {
		t.Fatal(err)
	}
	services := rapid.SampledFrom([]string{"orders", "payments", "search"})
	rapid.Check(t, func(r *rapid.T) {
		for _, old := range s.rules.PolicyRules("default") {
			if _, err := s.rules.RemoveRule(ctx, "default", old.Rule.ID, "test"); err != nil {
				r.Fatal(err)
			}
		}
		for range rapid.IntRange(0, 4).Draw(r, "rules") {
			rule := policy.Rule{
				Service: services.Draw(r, "service"),
				Action:  rapid.SampledFrom([]policy.Action{policy.Call, policy.Handle}).Draw(r, "action"),
				Effect:  rapid.SampledFrom([]policy.Effect{policy.Allow, policy.Deny}).Draw(r, "effect"),
				Peer:    rapid.SampledFrom([]string{"", "orders", "pay*", "search"}).Draw(r, "peer"),
				Target:  rapid.SampledFrom([]string{"", "Charge", "refund", "shop.*"}).Draw(r, "target"),
				Shadow:  rapid.Bool().Draw(r, "shadow"),
			}
			if _, err := s.rules.AddRule(ctx, "default", rule, "test"); err != nil && errs.CodeOf(err) != errs.AlreadyExists {
				r.Fatal(err)
			}
		}
		off := rapid.Bool().Draw(r, "off")
		if err := s.rules.SetCapability(ctx, "default", "search", "rpc.call", !off, "test"); err != nil {
			r.Fatal(err)
		}
		for _, caller := range []string{"orders", "payments", "search", "telford.operator"} {
			for i, asked := range []string{"Charge", "refund"} {
				d, err := p.GetDecision(ctx, &adminv1.GetDecisionRequest{From: caller, To: "payments", Target: asked})
				if err != nil {
					r.Fatal(err)
				}
				before := shadows(s)
				e := s.rules.MayCall("default", &message.Caller{Namespace: "default", Service: caller}, "payments", &methods[i])
				if d.GetAllowed() != (e == nil) {
					r.Fatalf("%s calls %s: asked %v, enforced %v", caller, asked, d, e)
				}
				if e != nil && (e.Meta["rule"] != d.GetRule() || e.Meta["side"] != d.GetSide() || e.Meta["nearest"] != d.GetNearest() || e.Message != d.GetReason()) {
					r.Fatalf("%s calls %s: asked %v, enforced %v %v", caller, asked, d, e, e.Meta)
				}
				if counted := shadows(s) > before; counted != d.GetShadowDenied() {
					r.Fatalf("%s calls %s: asked %v, counted %t", caller, asked, d, counted)
				}
			}
		}
	})
}

func shadows(s *suite) (n uint64) {
	for _, st := range s.rules.Stats() {
		n += st.ShadowDenied
	}
	return n
}

func TestDecisionsAboutNamesThatMeanSeveralMethods(t *testing.T) {
	t.Parallel()
	s := setup(t)
	_, _, err := s.registry.Register(t.Context(), registry.Owner{Namespace: "default", Instance: "in-1", Service: "payments", Door: "link"},
		&catalog.Declaration{Service: "payments", Realm: "global", Status: catalog.OK, Methods: []catalog.Method{
			{Name: "a.v1.A/Run", Kind: catalog.Unary, ContentTypes: []string{"json"}}, {Name: "b.v1.B/Run", Kind: catalog.Unary, ContentTypes: []string{"json"}},
		}})
	if err != nil {
		t.Fatal(err)
	}
	code, body := s.do(t, http.MethodGet, "/api/v1/policy:decide?from=orders&to=payments&target=Run", s.authority.OperatorToken(), "")
	if code != 400 || !strings.Contains(string(body), "a.v1.A/Run") {
		t.Errorf("%d %s", code, body)
	}
	var d struct{ Allowed bool }
	code, body = s.do(t, http.MethodGet, "/api/v1/policy:decide?from=orders&to=absent&target=Run", s.authority.OperatorToken(), "")
	if err := json.Unmarshal(body, &d); err != nil || code != 200 || !d.Allowed {
		t.Errorf("of a service that is away: %d %s", code, body)
	}
}
