package router_test

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/router"
)

// restarted is a router that knows instance "one" from before and has no link to it.
func restarted() *bench {
	b := &bench{index: new(fakeIndex), links: make(map[string]*fakeLink)}
	b.Router = router.New(router.Config{Index: b.index, Returning: 30 * time.Second})
	b.index.set("default", "payments", instance("one"))
	return b
}

func TestCallsWaitForInstancesToReturn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := restarted()
		start := time.Now()
		done := make(chan error, 2)
		go func() {
			_, err := b.Call(t.Context(), request())
			done <- err
		}()
		go func() {
			_, err := b.Call(t.Context(), request(target(message.Target{Instance: "one"})))
			done <- err
		}()
		time.Sleep(5 * time.Second)
		b.attach("one")
		for range 2 {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
		if took := time.Since(start); took != 5*time.Second {
			t.Errorf("the calls went on after %v, not with the link", took)
		}
	})
}

func TestStreamsWaitForInstancesToReturn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := restarted()
		b.index.set("default", "payments", instance("one", methods(catalog.Method{Name: "list", Kind: catalog.ServerStream})))
		time.AfterFunc(time.Second, func() { b.attach("one") })
		s, err := b.Stream(t.Context(), request(calling("payments", "list")))
		if err != nil {
			t.Fatal(err)
		}
		s.Close()
	})
}

func TestNobodyIsWaitedForAtTheEnd(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := restarted()
		start := time.Now()
		time.AfterFunc(time.Second, b.Leave)
		for range 2 {
			_, err := b.Call(t.Context(), request())
			if e := want(t, err, errs.NoInstance); !e.NotStarted || !e.Retryable {
				t.Errorf("the call is not to be tried again: %+v", e)
			}
		}
		if took := time.Since(start); took != time.Second {
			t.Errorf("it took %v", took)
		}
	})
}

// One that comes back under another id says so to the registry only, after its link.
func TestCallsSeeReplacements(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := restarted()
		time.AfterFunc(time.Second, func() { b.attach("two") })
		time.AfterFunc(2*time.Second, func() { b.index.set("default", "payments", instance("one"), instance("two")) })
		start := time.Now()
		if _, err := b.Call(t.Context(), request()); err != nil {
			t.Error(err)
		}
		if took := time.Since(start); took > 2200*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}

func TestNobodyIsWaitedForTooLong(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		before  func(b *bench)
		change  []func(*router.Request)
		timeout time.Duration
		wait    time.Duration
		code    errs.Code
	}{
		"longer than instances are given": {wait: 30 * time.Second, code: errs.NoInstance},
		"longer than the call has":        {timeout: 2 * time.Second, wait: 2 * time.Second, code: errs.NoInstance},
		"one that was here": {before: func(b *bench) {
			gone := b.attach("one")
			_, _ = b.Call(context.Background(), request())
			gone()
		}, code: errs.NoInstance},
		"one that is not meant":              {change: []func(*router.Request){target(message.Target{Version: "9"})}, code: errs.NoInstance},
		"for a method that it has not":       {change: []func(*router.Request){calling("payments", "other")}, code: errs.MethodNotFound},
		"a service that nobody has heard of": {change: []func(*router.Request){calling("other", "charge")}, code: errs.ServiceNotFound},
		"one that is away in a router that has run for long": {
			before: func(*bench) {
				// The time of the bubble that the case runs in.
				time.Sleep(time.Minute)
			},
			code: errs.NoInstance,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := restarted()
				if c.before != nil {
					c.before(b)
				}
				timeout := c.timeout
				if timeout == 0 {
					timeout = time.Hour
				}
				ctx, cancel := context.WithTimeout(t.Context(), timeout)
				defer cancel()
				start := time.Now()
				_, err := b.Call(ctx, request(c.change...))
				e := want(t, err, c.code)
				if !e.NotStarted {
					t.Error("there is no proof that nothing was started")
				}
				if took := time.Since(start); took != c.wait {
					t.Errorf("it waited for %v, want %v", took, c.wait)
				}
			})
		})
	}
}
