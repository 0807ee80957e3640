package main

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"

	"go.opentelemetry.io/otel/trace"

	"telford.dev/telford"
	"telford.dev/telford/bench/internal/measure"
	echov1 "telford.dev/telford/bench/rpc/echo/v1"
	"telford.dev/telford/server/runtime"
)

// callerName is who calls.
const callerName = "caller"

// callee is the service under test. The stacks share a runtime, and calls go to all
// instances of a name, so that each stack has a name of its own.
func callee(e env) string { return "echo-" + e.Stack }

// textBlob is what the handlers of Go structs take and answer.
type textBlob struct {
	Data string `json:"data"`
}

func telfordStacks() []stack {
	const on = "mTLS, deadline, trace context, request id, call chain"
	return []stack{
		{
			name: "telford-stub", about: "Telford direct, generated stubs: " + on, shared: "runtime",
			serve: serveTelford, dial: func(ctx context.Context, e env) (client, error) { return dialStub(ctx, e, telford.Direct, unaryStub) },
		},
		{
			name: "telford-struct", about: "Telford direct, Go structs as JSON: " + on, shared: "runtime",
			serve: serveTelford, dial: dialStruct,
		},
		{
			name: "telford-proxy", about: "Telford through the runtime, generated stubs: " + on, shared: "runtime",
			serve: serveTelford, dial: func(ctx context.Context, e env) (client, error) { return dialStub(ctx, e, telford.Proxy, unaryStub) },
		},
		{
			name: "telford-stream", about: "Telford direct, server streaming, generated stubs", shared: "runtime", stream: true,
			serve: serveTelford, dial: func(ctx context.Context, e env) (client, error) { return dialStub(ctx, e, telford.Direct, streamStub) },
		},
		{
			name: "telford-grpc", about: "raw grpc-go dialing the port of a Telford service, mTLS, one connection", shared: "runtime",
			serve: serveTelford, dial: dialPlainGRPC,
		},
	}
}

func dataDir(e env) string { return filepath.Join(e.Dir, "telford") }

// runRuntime is the process beside, and for proxied calls between, both ends.
func runRuntime(ctx context.Context, e env) error {
	rt, err := runtime.New(runtime.Config{Data: dataDir(e), Dev: true, GRPC: "127.0.0.1:0", HTTP: runtime.Off})
	if err != nil {
		return err
	}
	if err := rt.Start(ctx); err != nil {
		return err
	}
	measure.Ready(rt.GRPCAddr())
	<-ctx.Done()
	return rt.Stop(context.WithoutCancel(ctx))
}

// join makes a service with the key that may be any.
func join(e env, name string, opts ...telford.Option) (*telford.Service, error) {
	key, err := devKey(e)
	if err != nil {
		return nil, err
	}
	return telford.New(name, append([]telford.Option{telford.WithServer(e.Shared), telford.WithKey(key)}, opts...)...)
}

func devKey(e env) (string, error) {
	body, err := os.ReadFile(filepath.Join(dataDir(e), "dev.key"))
	return strings.TrimSpace(string(body)), err
}

// serveTelford serves every method of the benchmark on one port.
func serveTelford(ctx context.Context, e env) error {
	addr, err := freeAddr(ctx)
	if err != nil {
		return err
	}
	// The benchmark is to find the limit of the wire, not of admission.
	svc, err := join(e, callee(e), telford.Listen(addr), telford.InboundLimit(4096, 4096))
	if err != nil {
		return err
	}
	echov1.RegisterEchoServer(svc, echo{})
	err = telford.Handle(svc, "echo", func(_ context.Context, in *textBlob) (*textBlob, error) { return in, nil })
	if err != nil {
		return err
	}
	if err := svc.Start(ctx); err != nil {
		return err
	}
	measure.Ready(addr)
	<-ctx.Done()
	return svc.Stop(context.WithoutCancel(ctx))
}

// freeAddr is an address that nobody listens on, so that a plain gRPC client can be told
// where to dial.
func freeAddr(ctx context.Context) (string, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return l.Addr().String(), l.Close()
}

// enter starts the calling end.
func enter(ctx context.Context, e env, mode telford.TransportMode) (*telford.Service, error) {
	svc, err := join(e, callerName, telford.CallerOnly(), telford.Uses(callee(e)), telford.CallDefaults(telford.Transport(mode)))
	if err != nil {
		return nil, err
	}
	if err := svc.Start(ctx); err != nil {
		return nil, err
	}
	if err := svc.WaitReady(ctx, callee(e)); err != nil {
		return nil, fmt.Errorf("waiting for %s: %w", callee(e), err)
	}
	return svc, nil
}

func leave(svc *telford.Service) func() {
	return func() { _ = svc.Stop(context.Background()) }
}

// traced is a context as a caller has it who is part of a trace.
func traced(ctx context.Context) context.Context {
	var id trace.TraceID
	var span trace.SpanID
	_, _ = rand.Read(id[:]) // it never fails
	_, _ = rand.Read(span[:])
	return trace.ContextWithRemoteSpanContext(ctx, trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: id, SpanID: span, TraceFlags: trace.FlagsSampled, Remote: true,
	}))
}

// within gives a call the trace of its caller, once.
func within(call measure.Call) measure.Call {
	var with context.Context
	return func(ctx context.Context) error {
		if with == nil {
			with = traced(ctx)
		}
		return call(with)
	}
}

func dialStub(ctx context.Context, e env, mode telford.TransportMode, caller stubCaller) (client, error) {
	svc, err := enter(ctx, e, mode)
	if err != nil {
		return client{}, err
	}
	stub := echov1.NewEchoClient(svc.Conn(callee(e)))
	return client{
		caller: func(int) (measure.Call, error) { return within(caller(stub, e.Size)), nil },
		close:  leave(svc),
	}, nil
}

func dialStruct(ctx context.Context, e env) (client, error) {
	svc, err := enter(ctx, e, telford.Direct)
	if err != nil {
		return client{}, err
	}
	return client{
		caller: func(int) (measure.Call, error) {
			in, name := &textBlob{Data: text(e.Size)}, callee(e)
			return within(func(ctx context.Context) error {
				out, err := telford.Call[textBlob](ctx, svc, name, "echo", in)
				if err != nil {
					return err
				}
				return checkSize(len(out.Data), e.Size)
			}), nil
		},
		close: leave(svc),
	}, nil
}
