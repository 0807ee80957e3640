package handlers

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type body struct {
	N int `json:"n"`
}

func table(running, waiting int, methods ...*Method) *Table {
	t := New(Options{Service: "svc", MaxRunning: running, MaxWaiting: waiting, Log: slog.New(slog.DiscardHandler)})
	if err := t.Add(methods...); err != nil {
		panic(err)
	}
	return t
}

func unary(name string, f func(*Context) (any, error)) *Method {
	return &Method{Method: catalog.Method{Name: name}, Full: "/svc/" + name, Unary: f}
}

func call(ctx context.Context, t *Table, method string) *message.Reply {
	return t.For(&Conn{}).HandleCall(ctx, &message.Call{Method: method, ContentType: message.JSON, Body: []byte(`{"n":1}`)})
}

func TestRefusalsAreUnbegun(t *testing.T) {
	t.Parallel()
	tab := table(1, 0, unary("a", func(*Context) (any, error) { return &body{}, nil }))
	h := tab.For(&Conn{})
	ctx := t.Context()
	check := func(what string, want errs.Code, r *message.Reply) {
		t.Helper()
		if r.Err == nil || r.Err.Code != want || !r.Err.NotStarted {
			t.Errorf("%s: %+v", what, r.Err)
		}
	}
	check("before Freeze", errs.Unavailable, call(ctx, tab, "a"))
	tab.Freeze()
	check("unknown method", errs.MethodNotFound, call(ctx, tab, "b"))
	check("another service", errs.ServiceNotFound, h.HandleCall(ctx, &message.Call{Service: "other", Method: "a"}))
	check("stream of a unary method", errs.FailedPrecondition, h.HandleStream(ctx, &message.Call{Method: "a", Stream: true}, nil))
	if err := tab.Add(unary("c", nil)); errs.CodeOf(err) != errs.FailedPrecondition {
		t.Errorf("Add after Freeze: %v", err)
	}
	if r := call(ctx, tab, "a"); r.Err != nil {
		t.Errorf("a good call: %v", r.Err)
	}
	tab.Drain()
	check("draining", errs.Unavailable, call(ctx, tab, "a"))
}

func TestAdmission(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	began := make(chan struct{}, 10)
	tab := table(2, 1, unary("wait", func(*Context) (any, error) { began <- struct{}{}; <-release; return &body{}, nil }))
	tab.Freeze()
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			if r := call(context.Background(), tab, "wait"); r.Err != nil {
				t.Error(r.Err)
			}
		})
	}
	<-began
	<-began
	// The third waits until its caller gives up, and leaves its place.
	ctx, cancel := context.WithCancel(t.Context())
	gaveUp := make(chan *message.Reply, 1)
	wg.Go(func() { gaveUp <- call(ctx, tab, "wait") })
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for tab.calls.Waiting() == 0 {
		<-tick.C // there is no signal for a call that begins to wait
	}
	if r := call(t.Context(), tab, "wait"); r.Err == nil || r.Err.Code != errs.ResourceExhausted || !r.Err.NotStarted {
		t.Errorf("the fourth: %+v", r.Err)
	}
	cancel()
	if r := <-gaveUp; r.Err == nil || r.Err.Code != errs.Canceled || !r.Err.NotStarted {
		t.Errorf("the third: %+v", r.Err)
	}
	// The next one waits and runs.
	wg.Go(func() {
		if r := call(context.Background(), tab, "wait"); r.Err != nil {
			t.Error(r.Err)
		}
	})
	close(release)
	wg.Wait()
	if err := tab.Idle(t.Context()); err != nil || tab.Running() != 0 {
		t.Errorf("idle: %v, %d run", err, tab.Running())
	}
}

func TestIdleWaitsForTheLast(t *testing.T) {
	t.Parallel()
	release, began := make(chan struct{}), make(chan struct{})
	tab := table(8, 8, unary("wait", func(*Context) (any, error) { close(began); <-release; return &body{}, nil }))
	tab.Freeze()
	var wg sync.WaitGroup
	wg.Go(func() { call(context.Background(), tab, "wait") })
	<-began
	tab.Drain()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := tab.Idle(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a handler runs: %v", err)
	}
	close(release)
	if err := tab.Idle(t.Context()); err != nil {
		t.Error(err)
	}
	wg.Wait()
}

func TestFailure(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		err     error
		code    errs.Code
		grpc    codes.Code
		message string
	}{
		{errs.New(errs.Conflict, "paid").Unstarted(), errs.Conflict, codes.Aborted, "paid"},
		{fmt.Errorf("charge: %w", errs.New(errs.Conflict, "paid")), errs.Conflict, codes.Aborted, "charge: conflict: paid"},
		{status.Error(codes.DataLoss, "lost"), errs.Handler, codes.DataLoss, "lost"},
		{errors.New("boom"), errs.Handler, codes.Unknown, "boom"},
		{context.DeadlineExceeded, errs.DeadlineExceeded, codes.DeadlineExceeded, "context deadline exceeded"},
		{fmt.Errorf("x: %w", context.Canceled), errs.Canceled, codes.Canceled, "x: context canceled"},
	} {
		e := Failure(test.err)
		if e.Code != test.code || e.GRPCCode != test.grpc || e.Message != test.message || e.NotStarted {
			t.Errorf("%v: %+v", test.err, e)
		}
	}
}

func TestAnswerThatCannotBeEncoded(t *testing.T) {
	t.Parallel()
	tab := table(8, 8,
		unary("func", func(*Context) (any, error) { return func() {}, nil }),
		unary("huge", func(*Context) (any, error) { return make([]byte, message.MaxPayload), nil }))
	tab.Freeze()
	if r := call(t.Context(), tab, "func"); r.Err == nil || r.Err.Code != errs.Internal || r.Err.NotStarted {
		t.Errorf("got %+v", r.Err)
	}
	if r := call(t.Context(), tab, "huge"); r.Err == nil || r.Err.Code != errs.ResourceExhausted || r.Err.NotStarted {
		t.Errorf("got %+v", r.Err)
	}
}
