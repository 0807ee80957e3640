package handlers

import (
	"context"
	"log/slog"
	"sync"
	"testing"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// The checks of a call come in one order on every way, and before a slot is taken: who
// is refused takes nobody's place.
func TestChecksComeInOrderAndBeforeASlot(t *testing.T) {
	t.Parallel()
	release, began := make(chan struct{}), make(chan struct{}, 1)
	run := func(*Context) (any, error) { began <- struct{}{}; <-release; return &body{}, nil }
	type asked struct {
		caller, method string
		relayed        bool
	}
	var mu sync.Mutex
	var allow []asked
	tab := New(Options{
		Service: "svc", MaxRunning: 1, Log: slog.New(slog.DiscardHandler),
		Refuse: func(c message.Caller) *errs.Error {
			if c.Service == "revoked" {
				return errs.New(errs.PermissionDenied, "revoked")
			}
			return nil
		},
		Allow: func(c *message.Caller, m *catalog.Method, relayed bool) *errs.Error {
			mu.Lock()
			defer mu.Unlock()
			allow = append(allow, asked{c.Service, m.Name, relayed})
			if c.Service != "friend" {
				return errs.New(errs.PermissionDenied, "denied")
			}
			return nil
		},
	})
	if err := tab.Add(unary("wait", run), unary("p.S/Wait", run)); err != nil {
		t.Fatal(err)
	}
	tab.Freeze()
	linked := func(known bool, service string) *errs.Error {
		caller := message.Caller{Service: service}
		call := &message.Call{Method: "wait", ContentType: message.JSON, Body: []byte(`{}`), Caller: caller}
		if known {
			call.Caller.Service = "liar" // a connection says who it is, not its calls
		}
		return tab.For(&Conn{Known: known, Caller: caller}).HandleCall(context.Background(), call).Err
	}
	plain := func(service string) *errs.Error {
		return tab.Plain(t.Context(), message.Caller{Service: service}, "/p.S/Wait").Enter(nil, false)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := linked(true, "friend"); err != nil {
			t.Error(err)
		}
	})
	<-began
	for way, f := range map[string]func(string) *errs.Error{
		"direct":  func(s string) *errs.Error { return linked(true, s) },
		"relayed": func(s string) *errs.Error { return linked(false, s) },
		"plain":   plain,
	} {
		for service, want := range map[string]string{"revoked": "revoked", "stranger": "denied"} {
			if err := f(service); err == nil || err.Message != want || !err.NotStarted {
				t.Errorf("%s: %s: %+v", way, service, err)
			}
		}
		if err := f("friend"); err == nil || err.Code != errs.ResourceExhausted {
			t.Errorf("%s: a friend while all slots are taken: %+v", way, err)
		}
	}
	close(release)
	wg.Wait()
	mu.Lock()
	for _, a := range allow {
		if a.caller == "revoked" || a.caller == "liar" {
			t.Errorf("asked about %+v", a)
		}
		if a.relayed && a.method != "wait" {
			t.Errorf("asked about %+v", a)
		}
	}
	relayed := 0
	for _, a := range allow {
		if a.relayed {
			relayed++
		}
	}
	if len(allow) != 7 || relayed != 2 {
		t.Errorf("asked %+v", allow)
	}
	mu.Unlock()
	tab.Drain()
	if err := plain("revoked"); err == nil || err.Code != errs.Unavailable {
		t.Errorf("while draining: %+v", err)
	}
}
