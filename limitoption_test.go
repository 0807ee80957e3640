package telford

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/interop/grpc_testing"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
)

type limitReq struct {
	Tenant string            `json:"tenant"`
	Plain  int               // named as it is
	Lines  []string          `json:"lines"`
	Hidden string            `json:"-"`
	Labels map[string]string `json:"labels"`
}

func limitService(t *testing.T) *Service {
	t.Helper()
	ca := newAuthority(t)
	cert, key := ca.issue(t, "limits", "in_a", "k", time.Hour)
	s, err := New("limits", WithTLS(cert, key, ca.pem(), ""))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Stop(context.Background()) })
	return s
}

func idle(context.Context, *limitReq) (*limitReq, error) { return &limitReq{}, nil }

func byTenant(_ context.Context, in *limitReq) string { return in.Tenant }

// declared is what others read of a method.
func declared(t *testing.T, s *Service, method string) catalog.Method {
	t.Helper()
	for _, m := range s.table.Methods() {
		if m.Name == method {
			return catalog.Method{Description: m.Description, Timeout: m.Timeout, NotRetryable: m.NotRetryable, Limits: m.Limits}
		}
	}
	t.Fatalf("there is no method %s", method)
	return catalog.Method{}
}

func TestLimitsAreDeclared(t *testing.T) {
	t.Parallel()
	s := limitService(t)
	err := Handle(s, "charge", idle, Description("Takes money."), Timeout(time.Second), Retryable(false),
		Concurrency(4), Queue(16), LimitBy(ByCaller()),
		Limit(Rate(2.5, 0), LimitPerService()), Limit(Rate(1, 5), LimitBy(ByHeader("X-Tenant"))),
		Limit(Concurrency(1), LimitBy(ByField("Tenant"))), Limit(Concurrency(1), LimitBy(ByField("Plain"))), Limit(Concurrency(2), LimitBy(ByFunc(byTenant))))
	if err != nil {
		t.Fatal(err)
	}
	want := catalog.Method{Description: "Takes money.", Timeout: time.Second, NotRetryable: true, Limits: []catalog.Limit{
		{Concurrency: 4, Queue: 16, Key: "caller"},
		{Rate: 2.5, Scope: "service"},
		{Rate: 1, Burst: 5, Key: "header:x-tenant"},
		{Concurrency: 1, Key: "field:Tenant"},
		{Concurrency: 1, Key: "field:Plain"},
		{Concurrency: 2, Key: "func"},
	}}
	if diff := cmp.Diff(want, declared(t, s, "charge")); diff != "" {
		t.Error(diff)
	}
	// Configure replaces the limits and keeps what it does not mention.
	if err := s.Configure("charge", Retryable(true), Concurrency(9)); err != nil {
		t.Fatal(err)
	}
	want.NotRetryable, want.Limits = false, []catalog.Limit{{Concurrency: 9}}
	if diff := cmp.Diff(want, declared(t, s, "charge")); diff != "" {
		t.Error(diff)
	}
	grpc_testing.RegisterTestServiceServer(s, grpc_testing.UnimplementedTestServiceServer{})
	const unary = "grpc.testing.TestService/UnaryCall"
	if err := s.Configure(unary, Description("Calls."), Timeout(time.Minute), Concurrency(1), LimitBy(ByField("responseType"))); err != nil {
		t.Fatal(err)
	}
	want = catalog.Method{Description: "Calls.", Timeout: time.Minute, Limits: []catalog.Limit{{Concurrency: 1, Key: "field:responseType"}}}
	if diff := cmp.Diff(want, declared(t, s, unary)); diff != "" {
		t.Error(diff)
	}
	if err := s.Configure("grpc.testing.TestService/StreamingInputCall", Concurrency(1)); err != nil {
		t.Errorf("a method for plain gRPC only: %v", err)
	}
	if err := s.Configure("grpc.testing.TestService/No", Concurrency(1)); !errors.Is(err, ErrMethodNotFound) || !strings.Contains(err.Error(), "TestService/No") {
		t.Errorf("an unknown method: %v", err)
	}
}

func TestWrongLimits(t *testing.T) {
	t.Parallel()
	s := limitService(t)
	grpc_testing.RegisterTestServiceServer(s, grpc_testing.UnimplementedTestServiceServer{})
	const unary = "grpc.testing.TestService/UnaryCall"
	for name, c := range map[string]struct {
		opts []HandleOption
		says []string
	}{
		"numbers": {
			[]HandleOption{Concurrency(0), Queue(-1), Rate(-1, -1), Timeout(0)},
			[]string{"Concurrency: 0", "Queue: -1", "Rate: -1", "burst -1", "Timeout: 0s"},
		},
		"large numbers":   {[]HandleOption{Concurrency(1e9), Queue(1e9), Rate(1e9, 1e9), Timeout(1e6 * time.Hour)}, []string{"Concurrency: 1000000000", "Queue: 1000000000", "Rate: 1e+09", "burst 1000000000", "Timeout: 1000000h"}},
		"nothing":         {[]HandleOption{Limit()}, []string{"bounds nothing"}},
		"scope only":      {[]HandleOption{LimitPerService()}, []string{"bounds nothing"}},
		"queue only":      {[]HandleOption{Queue(5), Rate(1, 1)}, []string{"queue 5 means nothing without concurrency"}},
		"nil":             {[]HandleOption{nil, Limit(nil)}, []string{"an option is nil", "Limit: an option is nil"}},
		"no key":          {[]HandleOption{Concurrency(1), LimitBy(LimitKey{})}, []string{"LimitBy: want ByCaller"}},
		"header":          {[]HandleOption{Concurrency(1), LimitBy(ByHeader("a b"))}, []string{`key "header:a b"`}},
		"empty header":    {[]HandleOption{Concurrency(1), LimitBy(ByHeader(""))}, []string{`key "header:"`}},
		"field":           {[]HandleOption{Concurrency(1), LimitBy(ByField("a.b"))}, []string{`key "field:a.b"`}},
		"absent field":    {[]HandleOption{Concurrency(1), LimitBy(ByField("colour"))}, []string{`no field "colour"`}},
		"hidden field":    {[]HandleOption{Concurrency(1), LimitBy(ByField("Hidden"))}, []string{`no field "Hidden"`}},
		"list":            {[]HandleOption{Concurrency(1), LimitBy(ByField("lines"))}, []string{`no field "lines"`}},
		"map":             {[]HandleOption{Concurrency(1), LimitBy(ByField("labels"))}, []string{`no field "labels"`}},
		"no func":         {[]HandleOption{Concurrency(1), LimitBy(ByFunc[limitReq](nil))}, []string{"ByFunc: the function is nil"}},
		"another request": {[]HandleOption{Concurrency(1), LimitBy(ByFunc(func(context.Context, *int) string { return "" }))}, []string{"takes a *int", "is a *telford.limitReq"}},
		"two funcs": {
			[]HandleOption{Limit(Concurrency(1), LimitBy(ByFunc(byTenant))), Limit(Rate(1, 1), LimitBy(ByFunc(byTenant)))},
			[]string{"has a function already"},
		},
		"too many": {
			[]HandleOption{
				Limit(Rate(1, 1)), Limit(Rate(1, 1)), Limit(Rate(1, 1)), Limit(Rate(1, 1)), Limit(Rate(1, 1)),
				Limit(Rate(1, 1)), Limit(Rate(1, 1)), Limit(Rate(1, 1)), Limit(Rate(1, 1)),
			},
			[]string{"9 limits"},
		},
	} {
		for what, err := range map[string]error{
			"Handle":       Handle(s, "charge", idle, c.opts...),
			"HandleStream": HandleStream(s, "watch", func(context.Context, *limitReq, *Sender[limitReq]) error { return nil }, c.opts...),
		} {
			for _, text := range c.says {
				if !errors.Is(err, ErrInvalidArgument) || !strings.Contains(err.Error(), text) {
					t.Errorf("%s, %s: %v does not say %q", name, what, err, text)
				}
			}
		}
	}
	for text, o := range map[string]LimitOption{
		`no field "payload"`:    LimitBy(ByField("payload")),
		`no field "colour"`:     LimitBy(ByField("colour")),
		"is a *grpc_testing.Si": LimitBy(ByFunc(byTenant)),
	} {
		if err := s.Configure(unary, Concurrency(1), o); !errors.Is(err, ErrInvalidArgument) || !strings.Contains(err.Error(), text) {
			t.Errorf("Configure: %v does not say %q", err, text)
		}
	}
	if len(declared(t, s, unary).Limits) != 0 {
		t.Error("a wrong option has changed something")
	}
	if _, err := New("x", InboundLimit(0, 0), InboundStreams(2_000_000, -1)); !strings.Contains(err.Error(), "InboundLimit: want") || !strings.Contains(err.Error(), "InboundStreams: want") {
		t.Errorf("bounds of the instance: %v", err)
	}
	if errs.CodeOf(s.Configure("", Concurrency(1))) != errs.MethodNotFound {
		t.Error("the empty method")
	}
}
