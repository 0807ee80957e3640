package idempotency

import (
	"context"
	"strconv"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// in runs a test in a bubble of its own time, with a Keys over a store in memory.
func in(t *testing.T, change func(*Config), f func(t *testing.T, k *Keys, m *memory)) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := newMemory()
		k := open(t, m, change)
		defer stop(t, k)
		f(t, k, m)
	})
}

// pass lets time pass in a bubble.
func pass(d time.Duration) {
	time.Sleep(d) // of the bubble: it takes none
}

func open(t *testing.T, m *memory, change func(*Config)) *Keys {
	t.Helper()
	c := Config{DB: m, Storage: m, Exclusive: true}
	if change != nil {
		change(&c)
	}
	k, err := New(c)
	if err != nil {
		t.Fatal(err)
	}
	if err := k.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return k
}

func stop(t *testing.T, k *Keys) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := k.Stop(ctx); err != nil {
		t.Error(err)
	}
}

// keyed returns a call with a minute to live.
func keyed(key, body string) *message.Call {
	return &message.Call{
		Service: "payments", Method: "pay", IdempotencyKey: key, BusinessKey: "order-1", RequestID: "r", ContentType: message.JSON,
		Body: []byte(body), Caller: message.Caller{Namespace: "default", Service: "shop"}, Deadline: time.Now().Add(time.Minute),
	}
}

func idOf(call *message.Call) ID {
	return ID{Namespace: "default", Caller: call.Caller.Service, Callee: call.Service, Method: call.Method, Key: call.IdempotencyKey}
}

// handler is what stands behind the router: it counts how often it was given a call.
type handler struct {
	runs   atomic.Int64
	answer func(ctx context.Context, run int64) (*message.Reply, error)
	once   bool
}

func (h *handler) run(ctx context.Context, _ *message.Call, claim func(string, bool) error) (*message.Reply, error) {
	if err := claim("in_1", h.once); err != nil {
		return nil, err
	}
	n := h.runs.Add(1)
	if h.answer == nil {
		return &message.Reply{ContentType: message.JSON, Body: []byte(strconv.FormatInt(n, 10))}, nil
	}
	return h.answer(ctx, n)
}

// outcome is what one call came to.
type outcome struct {
	reply *message.Reply
	err   error
}

func (k *Keys) do(ctx context.Context, call *message.Call, h *handler) outcome {
	ctx, cancel := context.WithDeadline(ctx, call.Deadline)
	defer cancel()
	reply, err := k.Call(ctx, "default", call, h.once, h.run)
	return outcome{reply, err}
}

// begin makes a call beside the test.
func (k *Keys) begin(ctx context.Context, call *message.Call, h *handler) <-chan outcome {
	c := make(chan outcome, 1)
	go func() { c <- k.do(ctx, call, h) }()
	return c
}

// wantBody fails unless a call succeeded with the body.
func wantBody(t *testing.T, o outcome, body string) {
	t.Helper()
	if o.err != nil || o.reply.Err != nil || string(o.reply.Body) != body {
		t.Fatalf("%+v, %v: want the body %q", o.reply, o.err, body)
	}
}

// wantCode fails unless a call failed on the way with the code.
func wantCode(t *testing.T, o outcome, code errs.Code) *errs.Error {
	t.Helper()
	if o.err == nil || errs.CodeOf(o.err) != code {
		t.Fatalf("%+v, %v: want %s", o.reply, o.err, code)
	}
	return errs.From(o.err)
}

func wantRuns(t *testing.T, h *handler, n int64) {
	t.Helper()
	if got := h.runs.Load(); got != n {
		t.Fatalf("the handler ran %d times, want %d", got, n)
	}
}
