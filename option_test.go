package telford

import (
	"bytes"
	"context"
	"encoding/pem"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	testpb "google.golang.org/grpc/interop/grpc_testing"
)

func TestNewListsEveryBadOption(t *testing.T) {
	t.Parallel()
	_, err := New("Bad Name", WithServer("nowhere"), WithKey("tlf_secretsecret"), InstanceID("a b"), Weight(0), TTL(time.Second),
		Listen("x"), Advertise("0.0.0.0", 1), Reconnect(0, 0, -1), MaxInFlight(1000), InboundLimit(0, -1), Uses("No"), Publishes("Up.Case", "a..b"),
		Tags(""), CompatibleVersions(""), Logger(nil), TracerProvider(nil), WithMenu(MenuItem{ID: "a", Label: "b", Kind: "POPUP"}),
		CallDefaults(Timeout(-1)), Realm("a*"), nil)
	if !errors.Is(err, ErrInvalidArgument) {
		t.Fatalf("got %v", err)
	}
	for _, want := range []string{
		`"Bad Name"`, `"nowhere"`, "key", `"a b"`, "Weight: 0", "TTL: 1s", `Listen: "x"`, "0.0.0.0", "Reconnect", "MaxInFlight: 1000", "InboundLimit",
		`"No"`, `"Up.Case"`, `"a..b"`, "Tags", "CompatibleVersions", "Logger", "TracerProvider", `"POPUP"`, "Timeout: -1ns", `"a*"`, "an option is nil", "no identity",
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the error does not mention %s", want)
		}
	}
	if strings.Contains(err.Error(), "secretsecret") {
		t.Errorf("the error shows the key: %v", err)
	}
}

func TestListenOnWildcardNeedsAdvertise(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	cert, key := ca.issue(t, "echo", "in_a", "k", time.Hour)
	id := WithTLS(cert, key, ca.pem(), "")
	for _, addr := range []string{":0", "0.0.0.0:0", "[::]:80"} {
		if _, err := New("echo", id, Listen(addr)); !errors.Is(err, ErrInvalidArgument) || !strings.Contains(err.Error(), "Advertise") {
			t.Errorf("%s: %v", addr, err)
		}
		s, err := New("echo", id, Listen(addr), Advertise("host.example", 80))
		if err != nil {
			t.Errorf("%s with Advertise: %v", addr, err)
			continue
		}
		if err := s.Stop(t.Context()); err != nil {
			t.Error(err)
		}
	}
	if _, err := New("echo", id, Listen("127.0.0.1:0"), CallerOnly()); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("CallerOnly with Listen: %v", err)
	}
}

func TestWithTLSIsStrict(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	cert, key := ca.issue(t, "echo", "in_a", "k", time.Hour)
	_, otherKey := ca.issue(t, "echo", "in_b", "k", time.Hour)
	odd := pem.EncodeToMemory(&pem.Block{Type: "ODD", Bytes: []byte("x")})
	for name, test := range map[string]struct {
		cert, key, ca []byte
		want          string
	}{
		"no key":             {cert, nil, ca.pem(), "come together"},
		"no cert":            {nil, key, ca.pem(), "come together"},
		"nothing":            {nil, nil, ca.pem(), "no certificate"},
		"no ca":              {cert, key, nil, "ca: it is empty"},
		"text before":        {append([]byte("hello\n"), cert...), key, ca.pem(), "not PEM"},
		"text after":         {append(bytes.Clone(cert), "trailing"...), key, ca.pem(), "not PEM"},
		"another block":      {append(bytes.Clone(cert), odd...), key, ca.pem(), `"ODD"`},
		"damaged":            {cert[:len(cert)-40], key, ca.pem(), "damaged"},
		"key of another":     {cert, otherKey, ca.pem(), "does not match"},
		"two keys":           {cert, append(bytes.Clone(key), otherKey...), ca.pem(), "2 keys"},
		"leaf as authority":  {cert, key, cert, "not that of an authority"},
		"no DER in the leaf": {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}), key, ca.pem(), "certificate 1"},
	} {
		if _, err := New("echo", WithTLS(test.cert, test.key, test.ca, "")); !errors.Is(err, ErrInvalidArgument) || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", name, err, test.want)
		}
	}
	if _, err := New("other", WithTLS(cert, key, ca.pem(), "")); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("a certificate for another service: %v", err)
	}
	if _, err := New("echo", WithTLS(cert, key, ca.pem(), ""), InstanceID("in_z")); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("a certificate for another instance: %v", err)
	}
}

func TestFromEnvReadsOnlyWhenAsked(t *testing.T) {
	t.Setenv("TELFORD_SERVER", "not an address")
	t.Setenv("TELFORD_KEY", "not a key")
	ca := newAuthority(t)
	cert, key := ca.issue(t, "echo", "in_a", "k", time.Hour)
	s, err := New("echo", WithTLS(cert, key, ca.pem(), ""))
	if err != nil {
		t.Fatal(err)
	}
	if s.opt.server != DefaultServer {
		t.Errorf("the server is %s", s.opt.server)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := New("echo", FromEnv()); !errors.Is(err, ErrInvalidArgument) || !strings.Contains(err.Error(), "not an address") || strings.Contains(err.Error(), "not a key") {
		t.Errorf("got %v", err)
	}
}

func TestHandleRefusals(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.service("echo", "in_a")
	t.Cleanup(s.release)
	fine := func(context.Context, *echoReq) (*echoResp, error) { return &echoResp{}, nil }
	if err := Handle(s, "echo", fine); err != nil {
		t.Fatal(err)
	}
	if err := Handle(s, "echo", fine); !errors.Is(err, ErrAlreadyExists) {
		t.Errorf("twice: %v", err)
	}
	for _, name := range []string{"", "a b", "/a", "a/", "ä", strings.Repeat("a", 257)} {
		if err := Handle(s, name, fine); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%q: %v", name, err)
		}
	}
	if err := Handle[echoReq, echoResp](s, "nil", nil); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("nil: %v", err)
	}
	if err := Handle(s, "mixed", func(context.Context, *testpb.Empty) (*echoResp, error) { return nil, nil }); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("protobuf in, struct out: %v", err)
	}
	if err := s.AddService(&testpb.TestService_ServiceDesc, "no server"); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("an implementation that does not fit: %v", err)
	}
	testpb.RegisterTestServiceServer(s, &testServer{})
	testpb.RegisterTestServiceServer(s, &testServer{})
	if err := s.Start(t.Context()); !errors.Is(err, ErrAlreadyExists) {
		t.Errorf("Start after registering a service twice: %v", err)
	}
	callerOnly := w.service("caller", "in_b", CallerOnly())
	t.Cleanup(callerOnly.release)
	var state *StateError
	if err := Handle(callerOnly, "echo", fine); !errors.As(err, &state) {
		t.Errorf("a handler on a caller-only service: %v", err)
	}
}

func TestDeclaration(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s := w.service("echo", "in_a", Version("1"), CompatibleVersions("0.9"), Uses("b", "x", "x"), Uses("a"), UsesWorkflow("wf", "run"), Publishes("order.made"))
	if err := Handle(s, "echo", func(context.Context, *echoReq) (*echoResp, error) { return &echoResp{}, nil }, Description("says it again")); err != nil {
		t.Fatal(err)
	}
	testpb.RegisterTestServiceServer(s, &testServer{})
	w.start(s)
	d := w.describe(s).Declaration
	if len(d.Endpoints) != 1 || d.Endpoints[0].Host != "127.0.0.1" || d.Endpoints[0].Port == 0 || d.Realm != "global" || d.Weight != 1 || d.TTL != DefaultTTL {
		t.Errorf("got %+v", d)
	}
	kinds := map[string]string{}
	for _, m := range d.Methods {
		kinds[m.Name] = string(m.Kind) + " " + strings.Join(m.ContentTypes, "+")
		if m.Name == "echo" && (!strings.Contains(m.InputSchema, `"text"`) || m.Description != "says it again" || !strings.HasPrefix(m.Contract, "js:")) {
			t.Errorf("got %+v", m)
		}
		if m.Name == "grpc.testing.TestService/UnaryCall" && (m.InputMessage != "grpc.testing.SimpleRequest" || !strings.HasPrefix(m.Contract, "pb:")) {
			t.Errorf("got %+v", m)
		}
	}
	if kinds["echo"] != "unary json" || kinds["grpc.testing.TestService/StreamingOutputCall"] != "server_stream proto+json" {
		t.Errorf("got %v", kinds)
	}
	if _, ok := kinds["grpc.testing.TestService/FullDuplexCall"]; ok {
		t.Error("a method that streams from the client is declared")
	}
	var deps []string
	for _, x := range d.Dependencies {
		deps = append(deps, x.Kind+" "+x.Target+" "+strings.Join(x.Names, "+"))
	}
	if got := strings.Join(deps, "; "); got != "rpc a ; rpc b x; workflow wf run; event order.made " {
		t.Errorf("got %q", got)
	}
	if len(d.Descriptors) == 0 {
		t.Error("there are no descriptors")
	}
}

func TestStrictDeclarations(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	callee := w.service("echo", "in_a")
	if err := Handle(callee, "echo", func(context.Context, *echoReq) (*echoResp, error) { return &echoResp{}, nil }); err != nil {
		t.Fatal(err)
	}
	w.start(callee)
	caller := w.start(w.service("caller", "in_b", CallerOnly(), StrictDeclarations(), Uses("echo", "echo")))
	w.introduce()
	if _, err := Call[echoResp](testContext(t), caller, "echo", "echo", &echoReq{}); err != nil {
		t.Error(err)
	}
	if _, err := Call[echoResp](testContext(t), caller, "echo", "other", &echoReq{}); !errors.Is(err, ErrFailedPrecondition) {
		t.Errorf("an undeclared method: %v", err)
	}
	if _, err := Call[echoResp](testContext(t), caller, "another", "echo", &echoReq{}); !errors.Is(err, ErrFailedPrecondition) {
		t.Errorf("an undeclared service: %v", err)
	}
}

func TestPanicIsLoggedWithItsStack(t *testing.T) {
	t.Parallel()
	var log syncBuffer
	w := newWorld(t)
	callee := w.service("echo", "in_a", Logger(slog.New(slog.NewTextHandler(&log, nil))))
	if err := Handle(callee, "panic", func(context.Context, *echoReq) (*echoResp, error) { panic("boom") }); err != nil {
		t.Fatal(err)
	}
	w.start(callee)
	caller := w.start(w.service("caller", "in_b", CallerOnly()))
	w.introduce()
	if _, err := Call[echoResp](testContext(t), caller, "echo", "panic", &echoReq{}); !errors.Is(err, ErrInternal) {
		t.Errorf("got %v", err)
	}
	if text := log.String(); !strings.Contains(text, "boom") || !strings.Contains(text, "option_test.go") {
		t.Errorf("the log says %s", text)
	}
}
