package sdktest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"telford.dev/telford"
	"telford.dev/telford/server/internal/contracttest"
)

// The messages of two versions of one contract.
type (
	reqV1  = contracttest.RequestV1
	respV1 = contracttest.ResponseV1
	reqV2  = contracttest.RequestV2
	respV2 = contracttest.ResponseV2
)

const charge = contracttest.Method

// sideV1 and sideV2 make a service of a version that counts its calls.
func (w *world) sideV1(served *atomic.Int64) *telford.Service {
	s := w.make("payments", telford.Version("1.0.0"))
	must(w.t, telford.Handle(s, charge, func(context.Context, *reqV1) (*respV1, error) {
		served.Add(1)
		return contracttest.Set(new(respV1), contracttest.Served, "v1"), nil
	}))
	return s
}

func (w *world) sideV2(served *atomic.Int64) *telford.Service {
	s := w.make("payments", telford.Version("2.0.0"))
	must(w.t, telford.Handle(s, charge, func(_ context.Context, in *reqV2) (*respV2, error) {
		served.Add(1)
		return contracttest.Set(new(respV2), contracttest.Served, "v2"), nil
	}))
	return s
}

func callV1(ctx context.Context, s *telford.Service, opts ...telford.CallOption) (string, error) {
	resp, err := telford.Call[respV1](ctx, s, "payments", charge, contracttest.Set(new(reqV1), contracttest.Order, "o1"), opts...)
	if err != nil {
		return "", err
	}
	return contracttest.Get(resp, contracttest.Served), nil
}

func callV2(ctx context.Context, s *telford.Service, opts ...telford.CallOption) (string, error) {
	resp, err := telford.Call[respV2](ctx, s, "payments", charge, contracttest.Set(new(reqV2), contracttest.Order, "o1"), opts...)
	if err != nil {
		return "", err
	}
	return contracttest.Get(resp, contracttest.Served), nil
}

// sides waits until the caller sees n instances of payments.
func sides(t *testing.T, caller *telford.Service, n int) {
	t.Helper()
	eventually(t, fmt.Sprintf("the caller sees %d instances", n), func() bool { return len(caller.ServiceMap()["payments"].Instances) == n })
}

// post calls through the HTTP door and returns status and body.
func (w *world) post(contract string) (int, string) {
	w.t.Helper()
	req, err := http.NewRequestWithContext(w.t.Context(), http.MethodPost, w.srv.HTTP()+"/call/payments/"+charge, strings.NewReader(`{"order":"o1"}`))
	must(w.t, err)
	req.Header.Set("Authorization", "Bearer "+w.srv.AdminToken())
	if contract != "" {
		req.Header.Set("Telford-Contract", contract)
	}
	resp, err := http.DefaultClient.Do(req)
	must(w.t, err)
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	must(w.t, err)
	return resp.StatusCode, string(body)
}

// contractOf is what an instance of a version declared of a method.
func contractOf(t *testing.T, caller *telford.Service, version, method string) string {
	t.Helper()
	for _, i := range caller.ServiceMap()["payments"].Instances {
		for _, m := range i.Methods {
			if i.Version == version && m.Name == method {
				return m.Contract
			}
		}
	}
	t.Fatalf("nobody has %s in version %s", method, version)
	return ""
}

func TestVersionsSideBySide(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	var one, two atomic.Int64
	old := w.start(w.sideV1(&one))
	w.start(w.sideV2(&two))
	caller := w.start(w.make("caller", telford.CallerOnly(), telford.Uses("payments")))
	sides(t, caller, 2)
	v1, v2 := contractOf(t, caller, "1.0.0", charge), contractOf(t, caller, "2.0.0", charge)
	if v1 == v2 || !strings.HasPrefix(v1, "pb:") {
		t.Fatalf("the contracts are %s and %s", v1, v2)
	}
	const n = 20
	for name, mode := range modes {
		one.Store(0)
		two.Store(0)
		for range n {
			if got, err := callV1(t.Context(), caller, telford.Transport(mode)); err != nil || got != "v1" {
				t.Fatalf("%s: a caller of v1 was answered by %q, %v", name, got, err)
			}
			if got, err := callV2(t.Context(), caller, telford.Transport(mode)); err != nil || got != "v2" {
				t.Fatalf("%s: a caller of v2 was answered by %q, %v", name, got, err)
			}
		}
		if one.Load() != n || two.Load() != n {
			t.Errorf("%s: the handlers ran %d and %d times, want %d", name, one.Load(), two.Load(), n)
		}
		// Who does not say what it means gets the newest version, whatever the types.
		for range n {
			if got, err := callV1(t.Context(), caller, telford.Transport(mode), telford.AnyContract()); err != nil || got != "v2" {
				t.Fatalf("%s: any contract: %q, %v", name, got, err)
			}
			if got, err := callV2(t.Context(), caller, telford.Transport(mode), telford.Contract(v1)); err != nil || got != "v1" {
				t.Fatalf("%s: the contract of v1: %q, %v", name, got, err)
			}
			type order struct {
				Order string `json:"order"`
			}
			type served struct {
				Served string `json:"served"`
			}
			if got, err := telford.Call[served](t.Context(), caller, "payments", charge, &order{"o1"}, telford.Transport(mode)); err != nil || got.Served != "v2" {
				t.Fatalf("%s: a caller of structs: %v, %v", name, got, err)
			}
		}
		if got, err := callV1(t.Context(), caller, telford.Transport(mode), telford.Version("2.0.0"), telford.MaxAttempts(1)); !errors.Is(err, telford.ErrContract) {
			t.Errorf("%s: version 2 in the types of v1: %q, %v", name, got, err)
		}
	}
	for contract, want := range map[string]string{"": "v2", v1: "v1", v2: "v2", "js:1": "v2"} {
		if status, body := w.post(contract); status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("POST with contract %q: %d %s", contract, status, body)
		}
	}
	if status, body := w.post("latest"); status != http.StatusBadRequest || !strings.Contains(body, "telford-contract") {
		t.Errorf("POST with a contract that is none: %d %s", status, body)
	}

	w.stop(old)
	sides(t, caller, 1)
	for name, mode := range modes {
		_, err := callV1(t.Context(), caller, telford.Transport(mode), telford.MaxAttempts(1))
		var e *telford.Error
		if !errors.Is(err, telford.ErrContract) || !errors.Is(err, telford.ErrNoInstance) || !errors.As(err, &e) || !e.NotStarted {
			t.Errorf("%s: %v", name, err)
			continue
		}
		for _, says := range []string{v1[:19], v2[:19], "version 2.0.0", "1 instance: in_"} {
			if !strings.Contains(e.Message, says) {
				t.Errorf("%s: it does not say %q: %s", name, says, e.Message)
			}
		}
		if got, err := callV1(t.Context(), caller, telford.Transport(mode), telford.AnyContract()); err != nil || got != "v2" {
			t.Errorf("%s: any contract: %q, %v", name, got, err)
		}
	}
	if status, body := w.post(v1); status != http.StatusServiceUnavailable || !strings.Contains(body, "2.0.0") {
		t.Errorf("POST with a contract of nobody: %d %s", status, body)
	}
	// A caller that waits is served as soon as somebody speaks its contract.
	done := make(chan error, 1)
	go func() {
		_, err := callV1(t.Context(), caller, telford.WaitForReady())
		done <- err
	}()
	w.start(w.sideV1(&one))
	if err := <-done; err != nil {
		t.Errorf("waiting: %v", err)
	}
}

// The types of a struct handler, old and new, and of callers that have only a part of them.
type (
	quoteOld struct {
		Item string `json:"item"`
	}
	quoteNew struct {
		Item  string `json:"item"`
		Count int    `json:"count,omitempty"`
	}
	priceOld struct {
		Cents int    `json:"cents"`
		By    string `json:"by"`
	}
	priceNew struct {
		Cents    int    `json:"cents"`
		By       string `json:"by"`
		Currency string `json:"currency"`
	}
	priceBy struct {
		By string `json:"by"`
	}
)

// TestStructsPreferTheirOwn: callers of structs go to the version with their types where
// it runs, else to the newest, which reads what it knows; unless they insist.
func TestStructsPreferTheirOwn(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	old := w.make("payments", telford.Version("1.0.0"))
	must(t, telford.Handle(old, "quote", func(context.Context, *quoteOld) (*priceOld, error) { return &priceOld{By: "old"}, nil }))
	must(t, telford.HandleStream(old, "quotes", func(_ context.Context, _ *quoteOld, out *telford.Sender[priceOld]) error {
		return out.Send(&priceOld{By: "old"})
	}))
	w.start(old)
	next := w.make("payments", telford.Version("2.0.0"))
	must(t, telford.Handle(next, "quote", func(context.Context, *quoteNew) (*priceNew, error) { return &priceNew{By: "new"}, nil }))
	must(t, telford.HandleStream(next, "quotes", func(_ context.Context, _ *quoteNew, out *telford.Sender[priceNew]) error {
		return out.Send(&priceNew{By: "new"})
	}))
	w.start(next)
	caller := w.start(w.make("caller", telford.CallerOnly(), telford.Uses("payments")))
	sides(t, caller, 2)

	ask := func(t *testing.T, want string, opts ...telford.CallOption) {
		t.Helper()
		if got, err := telford.Call[priceOld](t.Context(), caller, "payments", "quote", quoteOld{"tea"}, opts...); err != nil || got.By != want {
			t.Errorf("the old types: %v, %v, want %s", got, err, want)
		}
	}
	for name, mode := range modes {
		m := telford.Transport(mode)
		for range 10 {
			ask(t, "old", m)
			ask(t, "old", m, telford.ExactContract())
			ask(t, "new", m, telford.AnyContract())
			if got, err := telford.Call[priceNew](t.Context(), caller, "payments", "quote", &quoteNew{Item: "tea"}, m); err != nil || got.By != "new" {
				t.Errorf("%s: the new types: %v, %v", name, got, err)
			}
			if got, err := telford.Call[priceBy](t.Context(), caller, "payments", "quote", &quoteOld{"tea"}, m); err != nil || got.By != "new" {
				t.Errorf("%s: a part of the types: %v, %v", name, got, err)
			}
			if got, err := telford.Call[priceBy](t.Context(), caller, "payments", "quote", map[string]any{"item": "tea"}, m); err != nil || got.By != "new" {
				t.Errorf("%s: a map: %v, %v", name, got, err)
			}
			for got, err := range telford.Stream[priceOld](t.Context(), caller, "payments", "quotes", &quoteOld{"tea"}, m) {
				if err != nil || got.By != "old" {
					t.Errorf("%s: a stream of the old types: %v, %v", name, got, err)
				}
			}
		}
		if _, err := telford.Call[priceBy](t.Context(), caller, "payments", "quote", &quoteOld{"tea"}, m, telford.ExactContract(), telford.MaxAttempts(1)); !errors.Is(err, telford.ErrContract) {
			t.Errorf("%s: a part of the types, exactly: %v", name, err)
		}
		if _, err := telford.Call[priceOld](t.Context(), caller, "payments", "quote", nil, m, telford.ExactContract()); !errors.Is(err, telford.ErrInvalidArgument) || !strings.Contains(err.Error(), "empty request") {
			t.Errorf("%s: exactly what nobody can tell: %v", name, err)
		}
		if _, err := telford.Call[priceOld](t.Context(), caller, "payments", "quote", quoteOld{}, m, telford.Contract("newest")); !errors.Is(err, telford.ErrInvalidArgument) {
			t.Errorf("%s: a contract that is none: %v", name, err)
		}
	}
	w.stop(old)
	sides(t, caller, 1)
	for name, mode := range modes {
		ask(t, "new", telford.Transport(mode))
		if _, err := telford.Call[priceOld](t.Context(), caller, "payments", "quote", &quoteOld{"tea"}, telford.Transport(mode), telford.ExactContract(), telford.MaxAttempts(1)); !errors.Is(err, telford.ErrContract) {
			t.Errorf("%s: exactly what is gone: %v", name, err)
		}
	}
}
