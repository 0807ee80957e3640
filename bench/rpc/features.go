package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"telford.dev/telford"
	"telford.dev/telford/bench/internal/measure"
	echov1 "telford.dev/telford/bench/rpc/echo/v1"
	"telford.dev/telford/server/runtime"
)

// feature is something that every call passes by, so that it must cost next to nothing.
type feature struct {
	name, about string
	// rules are laid down by the operator.
	rules bool
	// limits are declared with the handler. They do not bind.
	limits bool
	// resilience is the retry budget and the breakers of the caller.
	resilience bool
	// contracts are those of the caller's types.
	contracts bool
}

// features are measured one by one, and then all at once.
func features() []feature {
	return []feature{
		{name: "policy", about: "20 rules of caller and callee, allow-lists of both", rules: true},
		{name: "limits", about: "a concurrency and a rate of each caller, far above the load", limits: true},
		{name: "resilience", about: "the retry budget and the circuit breakers of the caller", resilience: true},
		{name: "contracts", about: "calls that insist on the caller's types", contracts: true},
		{name: "all", about: "all of these", rules: true, limits: true, resilience: true, contracts: true},
	}
}

func featureNames() []string {
	var names []string
	for _, f := range features() {
		names = append(names, f.name)
	}
	return names
}

// nothing is what each of them is compared with.
var nothing = feature{name: "off", about: "none of these"}

// echoMethod is what the stubs of echo.v1 call.
const echoMethod = "echo.v1.Echo/Call"

// bed is a runtime and, for each feature, a namespace of its own with a caller and a
// callee: all in this process.
type bed struct {
	rt   *runtime.Runtime
	http *http.Client
	ends map[string]*ends
	stop []func()
}

// ends are the two ends of the calls with one feature.
type ends struct{ caller, callee *telford.Service }

// makeBed starts everything. What it returns is to be closed, also beside an error.
func makeBed(ctx context.Context, dir string, with []feature) (*bed, error) {
	b := &bed{http: &http.Client{Timeout: 10 * time.Second}, ends: map[string]*ends{}}
	b.stop = append(b.stop, b.http.CloseIdleConnections)
	data := filepath.Join(dir, "pairs")
	if err := os.MkdirAll(data, 0o700); err != nil {
		return b, err
	}
	rt, err := runtime.New(runtime.Config{Data: data, GRPC: "127.0.0.1:0", HTTP: "127.0.0.1:0", HTTPPlain: "on"})
	if err != nil {
		return b, err
	}
	if err := rt.Start(ctx); err != nil {
		return b, err
	}
	b.rt = rt
	b.stop = append(b.stop, func() { _ = rt.Stop(context.Background()) })
	for _, f := range with {
		if err := b.add(ctx, f); err != nil {
			return b, fmt.Errorf("%s: %w", f.name, err)
		}
	}
	return b, nil
}

// close ends everything, in the reverse order.
func (b *bed) close() {
	for i := len(b.stop) - 1; i >= 0; i-- {
		b.stop[i]()
	}
	b.stop = nil
}

// add makes the namespace of a feature and starts both its ends.
func (b *bed) add(ctx context.Context, f feature) error {
	if err := b.post(ctx, "/api/v1/namespaces", map[string]any{"name": f.name}, nil); err != nil {
		return err
	}
	if f.rules {
		if err := b.layDown(ctx, f.name); err != nil {
			return err
		}
	}
	callee, err := b.join(ctx, f.name, "echo", telford.InboundLimit(4096, 4096))
	if err != nil {
		return err
	}
	var declared []telford.HandleOption
	if f.limits {
		declared = append(declared,
			telford.Limit(telford.Concurrency(4096), telford.Queue(64), telford.LimitBy(telford.ByCaller())),
			telford.Limit(telford.Rate(1e6, 1e6), telford.LimitBy(telford.ByCaller())))
	}
	err = telford.Handle(callee, echoMethod, func(_ context.Context, in *echov1.Blob) (*echov1.Blob, error) { return in, nil }, declared...)
	if err != nil {
		return err
	}
	if err := b.start(ctx, callee); err != nil {
		return err
	}
	opts := []telford.Option{telford.CallerOnly(), telford.Uses("echo")}
	if !f.resilience {
		opts = append(opts, telford.NoRetryBudget(), telford.NoCircuitBreaker())
	}
	if !f.contracts {
		opts = append(opts, telford.CallDefaults(telford.AnyContract()))
	}
	caller, err := b.join(ctx, f.name, callerName, opts...)
	if err != nil {
		return err
	}
	if err := b.start(ctx, caller); err != nil {
		return err
	}
	b.ends[f.name] = &ends{caller: caller, callee: callee}
	return caller.WaitReady(ctx, "echo")
}

// layDown makes ten rules for each end: what they allow includes the calls, what they
// deny does not.
func (b *bed) layDown(ctx context.Context, namespace string) error {
	for _, side := range []struct{ service, action, peer string }{{callerName, "rpc.call", "echo"}, {"echo", "rpc.handle", callerName}} {
		for i := range 10 {
			rule := map[string]any{
				"namespace": namespace, "service": side.service, "action": side.action, "effect": "allow",
				"peer": fmt.Sprintf("other-%d*", i), "target": "*",
			}
			switch {
			case i == 9:
				rule["peer"], rule["target"] = side.peer, "echo.*"
			case i%3 == 2:
				rule["effect"], rule["target"] = "deny", fmt.Sprintf("echo.v1.Echo/Other%d*", i)
			}
			if err := b.post(ctx, "/api/v1/policy/rules", rule, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// join makes a service with a key of its own.
func (b *bed) join(ctx context.Context, namespace, name string, opts ...telford.Option) (*telford.Service, error) {
	var made struct{ Key string }
	err := b.post(ctx, "/api/v1/keys", map[string]any{"namespace": namespace, "service": name, "kind": "service"}, &made)
	if err != nil {
		return nil, err
	}
	return telford.New(name, append([]telford.Option{telford.WithServer(b.rt.GRPCAddr()), telford.WithKey(made.Key)}, opts...)...)
}

func (b *bed) start(ctx context.Context, s *telford.Service) error {
	b.stop = append(b.stop, func() { _ = s.Stop(context.Background()) })
	return s.Start(ctx)
}

// post asks the runtime as an operator does.
func (b *bed) post(ctx context.Context, path string, body, answer any) error {
	text, err := json.Marshal(body)
	if err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, b.rt.HTTPURL()+path, bytes.NewReader(text))
	if err != nil {
		return err
	}
	req.Header.Set("Authorization", "Bearer "+b.rt.Authority().OperatorToken())
	req.Header.Set("Content-Type", "application/json")
	resp, err := b.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	var got bytes.Buffer
	if _, err := got.ReadFrom(resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("POST %s: %s: %s", path, resp.Status, got.Bytes())
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(got.Bytes(), answer)
}

// call returns the calls of one caller of a feature, on a path.
func (e *ends) call(mode telford.TransportMode, size int) measure.Call {
	return within(unaryStub(echov1.NewEchoClient(e.caller.Conn("echo", telford.Transport(mode))), size))
}
