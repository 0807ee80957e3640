package telford

import (
	"context"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/status"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/limit"
	"telford.dev/telford/internal/policy"
	"telford.dev/telford/internal/rulespb"
	"telford.dev/telford/internal/transport"
)

// policed is a world with one callee that has a handler of each sort.
func policed(t *testing.T, opts ...HandleOption) (*world, *Service) {
	t.Helper()
	w := newWorld(t)
	callee := w.service("echo", "in_a")
	must(t, Handle(callee, "echo", func(_ context.Context, in *echoReq) (*echoResp, error) {
		return &echoResp{Text: in.Text}, nil
	}, opts...))
	must(t, HandleStream(callee, "count", func(_ context.Context, _ *echoReq, out *Sender[echoResp]) error {
		return out.Send(&echoResp{})
	}, opts...))
	testpb.RegisterTestServiceServer(callee, &testServer{
		unary: echoUnary,
		stream: func(_ *testpb.StreamingOutputCallRequest, out grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
			return out.Send(&testpb.StreamingOutputCallResponse{})
		},
		input: func(in grpc.ClientStreamingServer[testpb.StreamingInputCallRequest, testpb.StreamingInputCallResponse]) error {
			return in.SendAndClose(&testpb.StreamingInputCallResponse{})
		},
	})
	for _, m := range []string{"UnaryCall", "StreamingOutputCall", "StreamingInputCall"} {
		must(t, callee.Configure("grpc.testing.TestService/"+m, opts...))
	}
	w.start(callee)
	return w, callee
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// ways are all ways from a service to the callee that pass no runtime. Those of plain
// gRPC know nothing of Telford but the certificate.
func ways(t *testing.T, caller, callee *Service) map[string]func() error {
	t.Helper()
	own := callee.Identity()
	cc, err := grpc.NewClient("passthrough:///"+callee.listener.Addr().String(),
		grpc.WithTransportCredentials(credentials.NewTLS(caller.trust.ClientConfig(ident.Expect{Instance: own.Instance}, "h2"))),
		grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}))
	must(t, err)
	t.Cleanup(func() { cc.Close() })
	plain, stub := testpb.NewTestServiceClient(cc), testpb.NewTestServiceClient(caller.Conn("echo"))
	first := func(recv func() error) error {
		if err := recv(); !errors.Is(err, io.EOF) {
			return err
		}
		return nil
	}
	return map[string]func() error{
		"call": func() error {
			_, err := Call[echoResp](testContext(t), caller, "echo", "echo", &echoReq{}, Transport(Direct))
			return err
		},
		"auto": func() error {
			_, err := Call[echoResp](testContext(t), caller, "echo", "echo", &echoReq{})
			return err
		},
		"stream": func() error {
			for _, err := range Stream[echoResp](testContext(t), caller, "echo", "count", &echoReq{}) {
				if err != nil {
					return err
				}
			}
			return nil
		},
		"stub": func() error {
			_, err := stub.UnaryCall(testContext(t), sized(1))
			return err
		},
		"stub that streams": func() error {
			st, err := stub.StreamingOutputCall(testContext(t), &testpb.StreamingOutputCallRequest{})
			if err != nil {
				return err
			}
			return first(func() error { _, err := st.Recv(); return err })
		},
		"stub that streams its requests": func() error {
			st, err := stub.StreamingInputCall(testContext(t))
			if err != nil {
				return err
			}
			_, err = st.CloseAndRecv()
			return err
		},
		"plain gRPC": func() error {
			_, err := plain.UnaryCall(testContext(t), sized(1))
			return err
		},
		"plain gRPC that streams": func() error {
			st, err := plain.StreamingOutputCall(testContext(t), &testpb.StreamingOutputCallRequest{})
			if err != nil {
				return err
			}
			return first(func() error { _, err := st.Recv(); return err })
		},
		"plain gRPC that streams its requests": func() error {
			st, err := plain.StreamingInputCall(testContext(t))
			if err != nil {
				return err
			}
			_, err = st.CloseAndRecv()
			return err
		},
	}
}

func rulesOf(rules ...policy.Rule) *rulespb.Rules {
	return &rulespb.Rules{Policy: policy.Set{Rules: rules}}
}

// The callee refuses who may not call it on every way, whatever the caller knows, and
// serves again once the rule is gone.
func TestPolicyOfTheCallee(t *testing.T) { //nolint:tparallel // its parts change the rules of one callee
	t.Parallel()
	w, callee := policed(t)
	caller := w.start(w.service("caller", "in_b"))
	w.introduce()
	for name, call := range ways(t, caller, callee) {
		t.Run(name, func(t *testing.T) {
			if err := call(); err != nil {
				t.Fatalf("without rules: %v", err)
			}
			callee.obey(rulesOf(
				policy.Rule{ID: "pol_1", Service: "echo", Action: policy.Handle, Effect: policy.Allow, Peer: "others"},
			))
			err := call()
			if status.Code(err) != codes.PermissionDenied && errs.CodeOf(err) != errs.PermissionDenied {
				t.Errorf("against the rules: %v", err)
			}
			for _, word := range []string{"caller", "echo", "telford policy allow echo rpc.handle --peer caller"} {
				if err == nil || !strings.Contains(err.Error(), word) {
					t.Errorf("%v does not say %q", err, word)
				}
			}
			callee.obey(rulesOf(policy.Rule{ID: "pol_2", Service: "caller", Action: policy.Call, Effect: policy.Deny, Peer: "echo"}))
			if err := call(); err == nil || !strings.Contains(err.Error(), "pol_2") {
				t.Errorf("against its own rules: %v", err)
			}
			callee.obey(rulesOf())
			if err := call(); err != nil {
				t.Errorf("without rules again: %v", err)
			}
		})
	}
	list := callee.guard.Take()
	if len(list) == 0 {
		t.Error("nothing was counted")
	}
	for _, d := range list {
		if d.Caller != "caller" || d.Service != "echo" || d.Shadow || d.Count == 0 {
			t.Errorf("counted %+v", d)
		}
	}
}

func TestNobodyIsLetInBeforeTheRules(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	callee := w.service("echo", "in_a")
	must(t, Handle(callee, "echo", func(context.Context, *echoReq) (*echoResp, error) { return &echoResp{}, nil }))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	callee.serveDirect(ln)
	callee.table.Freeze()
	w.all = append(w.all, callee)
	t.Cleanup(callee.release)
	caller := w.start(w.service("caller", "in_b"))
	w.introduce()
	_, err = Call[echoResp](testContext(t), caller, "echo", "echo", &echoReq{}, Transport(Direct), MaxAttempts(1))
	var e *Error
	if !errors.As(err, &e) || e.Code != CodeUnavailable || !e.NotStarted || !strings.Contains(e.Message, "rules") {
		t.Errorf("got %+v", e)
	}
	callee.obey(rulesOf())
	if _, err = Call[echoResp](testContext(t), caller, "echo", "echo", &echoReq{}, Transport(Direct)); err != nil {
		t.Error(err)
	}
}

func TestAllowedCallers(t *testing.T) {
	t.Parallel()
	w, callee := policed(t, AllowedCallers("others", "friend"))
	caller, friend := w.start(w.service("caller", "in_b")), w.start(w.service("friend", "in_c"))
	w.introduce()
	for name, call := range ways(t, caller, callee) {
		if err := call(); err == nil || !strings.Contains(err.Error(), "others, friend only") {
			t.Errorf("%s: %v", name, err)
		}
	}
	for name, call := range ways(t, friend, callee) {
		if err := call(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// It widens nothing.
	callee.obey(rulesOf(policy.Rule{ID: "pol_1", Service: "echo", Action: policy.Handle, Effect: policy.Deny, Peer: "friend"}))
	for name, call := range ways(t, friend, callee) {
		if err := call(); err == nil || !strings.Contains(err.Error(), "pol_1") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if d, err := callee.declaration(callee.listener.Addr()); err != nil || !cmp.Equal(d.Methods[0].AllowedCallers, []string{"others", "friend"}) {
		t.Errorf("declared %+v, %v", d, err)
	}
	s := w.service("x", "in_d")
	t.Cleanup(s.release)
	fn := func(context.Context, *echoReq) (*echoResp, error) { return nil, nil }
	for says, opt := range map[string]HandleOption{`"Bad Name"`: AllowedCallers("a", "Bad Name"), "no service is named": AllowedCallers()} {
		if err := Handle(s, "m", fn, opt); errs.CodeOf(err) != errs.InvalidArgument || !strings.Contains(err.Error(), says) {
			t.Errorf("%s: %v", says, err)
		}
	}
}

// What a service may not call it does not see, and a call is answered without asking
// anybody.
func TestPolicyOfTheCaller(t *testing.T) {
	t.Parallel()
	w, callee := policed(t)
	caller := w.start(w.service("caller", "in_b"))
	w.introduce()
	violations := make(chan PolicyViolation, 100)
	caller.OnPolicyViolation(func(v PolicyViolation) { violations <- v })
	all := ways(t, caller, callee)
	caller.obey(rulesOf(policy.Rule{ID: "pol_1", Service: "caller", Action: policy.Call, Effect: policy.Allow, Peer: "echo", Target: "count"}))
	methods := caller.ServiceMap()["echo"].Instances[0].Methods
	if len(methods) != 1 || methods[0].Name != "count" {
		t.Errorf("shown %+v", methods)
	}
	must(t, all["stream"]())
	for _, name := range []string{"call", "auto", "stub", "stub that streams", "stub that streams its requests"} {
		err := all[name]()
		if err == nil || !strings.Contains(err.Error(), "the nearest, pol_1") {
			t.Errorf("%s: %v", name, err)
		}
		select {
		case v := <-violations:
			if v.Declaration != "rpc.call" || v.Side != policy.SideSelfEgress || !strings.HasPrefix(v.Value, "echo/") || !strings.Contains(v.Reason, "pol_1") {
				t.Errorf("%s: told %+v", name, v)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: nobody was told", name)
		}
	}
	var e *Error
	if err := all["call"](); !errors.As(err, &e) || !e.NotStarted || e.Meta["rule"] != policy.ByAllowList || e.Meta["nearest"] != "pol_1" {
		t.Errorf("got %+v", e)
	}
	if n := len(callee.guard.Take()); n != 0 {
		t.Errorf("the callee was asked %d times", n)
	}
	caller.obey(rulesOf(policy.Rule{ID: "pol_2", Service: "caller", Action: policy.Call, Effect: policy.Deny, Peer: "echo"}))
	if list := caller.ServiceMap()["echo"].Instances; len(list) != 0 {
		t.Errorf("shown %+v", list)
	}
	if err := all["auto"](); err == nil || !strings.Contains(err.Error(), "pol_2") {
		t.Errorf("auto: %v", err)
	}
}

func TestPolicyEvaluation(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.start(w.service("orders", "in_a"))
	if diff := cmp.Diff(PolicyEvaluation{}, s.PolicyEvaluation()); diff != "" {
		t.Errorf("before the rules: %s", diff)
	}
	warnings, violations := make(chan Warning, 100), make(chan PolicyViolation, 100)
	s.OnWarning(func(v Warning) { warnings <- v })
	s.OnPolicyViolation(func(v PolicyViolation) { violations <- v })
	s.OnPolicyViolation(nil)
	r := rulesOf(
		policy.Rule{ID: "pol_1", Service: "orders", Action: policy.Call, Effect: policy.Allow, Peer: "payments"},
		policy.Rule{ID: "pol_2", Service: "orders", Action: policy.HandleEvent, Effect: policy.Deny, Target: "a.#", Shadow: true},
		policy.Rule{ID: "pol_3", Service: "audit", Action: policy.Call, Effect: policy.Deny, Peer: "orders"},
	)
	r.Policy.Off = []policy.Pair{{Service: "orders", Action: policy.HandleJob}, {Service: "audit", Action: policy.Handle}}
	r.Limits = []limit.Rule{{ID: "lim_1", Service: "orders", Limit: catalog.Limit{Concurrency: 3}}}
	r.Transports = []transport.Rule{{ID: "tr_1", Mode: transport.Proxy}}
	s.obey(r)
	one := catalog.DeclarationWarning{Declaration: "rpc.call", Value: "mail/send", Side: "self_egress", Reason: "no rule allows it"}
	two := catalog.DeclarationWarning{Declaration: "event.publish", Value: "a", Side: "self_egress", Reason: "no rule allows it"}
	s.warned([]catalog.DeclarationWarning{{Declaration: "tags", Value: "x", Side: "declaration"}, one})
	s.forbidden([]catalog.DeclarationWarning{one, two, two})
	s.forbidden([]catalog.DeclarationWarning{two})
	s.warned([]catalog.DeclarationWarning{two})
	want := PolicyEvaluation{
		Egress:     []PolicyRule{{ID: "pol_1", Action: "rpc.call", Effect: "allow", Peer: "payments"}},
		Acceptance: []PolicyRule{{ID: "pol_2", Action: "event.handle", Effect: "deny", Target: "a.#", Shadow: true}},
		Warnings:   []Warning{Warning(two)},
	}
	for _, a := range policy.Actions() {
		want.Capabilities = append(want.Capabilities, PolicyCapability{string(a), a != policy.HandleJob})
	}
	if diff := cmp.Diff(want, s.PolicyEvaluation()); diff != "" {
		t.Error(diff)
	}
	s.forbidden(nil)
	s.forbidden([]catalog.DeclarationWarning{one}) // forbidden again
	s.events.settle()
	var told []string
	for len(warnings) > 0 {
		told = append(told, (<-warnings).Value)
	}
	if diff := cmp.Diff([]string{"x", "mail/send", "a", "mail/send"}, told); diff != "" {
		t.Error(diff)
	}
	if n := len(violations); n != 3 {
		t.Errorf("%d violations", n)
	}
}

func TestViolationsAreNotTheHandlers(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	callee := w.service("echo", "in_a")
	denial := errs.New(errs.PermissionDenied, "elsewhere").With("rule", "pol_9").With("side", "self_egress").Unstarted()
	must(t, Handle(callee, "echo", func(context.Context, *echoReq) (*echoResp, error) { return nil, denial }))
	w.start(callee)
	caller := w.start(w.service("caller", "in_b"))
	w.introduce()
	violations := make(chan PolicyViolation, 100)
	caller.OnPolicyViolation(func(v PolicyViolation) { violations <- v })
	if _, err := Call[echoResp](testContext(t), caller, "echo", "echo", &echoReq{}); errs.CodeOf(err) != errs.PermissionDenied {
		t.Errorf("got %v", err)
	}
	caller.events.settle()
	if len(violations) != 0 {
		t.Errorf("told %+v, which was about a call of the handler", <-violations)
	}
}
