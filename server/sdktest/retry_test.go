package sdktest

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"telford.dev/telford"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/handlers"
)

func unbegun(code errs.Code) *errs.Error { return errs.New(code, "not now").Unstarted() }

// lost starts a callee whose first answer never comes, because the instance is gone by
// then: its connections end while the handler runs. Another of the same id takes its
// place and answers.
func (w *world) lost(service string) *callee {
	first := new(callee)
	second := answering(nil)
	gone, release := make(chan struct{}), make(chan struct{})
	w.t.Cleanup(func() { close(release) })
	var once atomic.Bool
	first.answer = func(*handlers.Context) (any, error) {
		if once.CompareAndSwap(false, true) {
			close(gone)
		}
		<-release
		return &echoResp{}, nil
	}
	w.scripted(service, "in_"+service, first)
	replaced := make(chan struct{})
	go func() {
		defer close(replaced)
		select {
		case <-gone:
		case <-w.t.Context().Done():
			return
		}
		first.listener.Close()
		w.scripted(service, "in_"+service, second) // fences the first
	}()
	w.t.Cleanup(func() { <-replaced })
	return &callee{count: func() int {
		<-replaced
		return first.seen() + second.seen()
	}}
}

// The table of what is tried again: the requests that reach instances, for each
// situation, way and key. In auto a call that was refused directly is offered to the
// runtime as well, within the same attempt, so that twice as many arrive.
func TestWhatIsTriedAgain(t *testing.T) {
	t.Parallel()
	tooLarge := unbegun(errs.ResourceExhausted)
	tooLarge.Retryable = false
	type counts struct{ direct, proxy, auto, proxyKey, autoKey int }
	same := func(n int) counts { return counts{n, n, n, n, n} }
	for name, c := range map[string]struct {
		callee func() *callee
		start  func(w *world, service string) *callee
		method string
		stream bool
		opts   []telford.CallOption
		want   counts
		code   telford.Code
	}{
		"success":                        {callee: func() *callee { return answering(nil) }, want: same(1)},
		"too busy":                       {callee: func() *callee { return refusing(unbegun(errs.ResourceExhausted)) }, want: counts{3, 3, 6, 3, 3}, code: telford.CodeResourceExhausted},
		"leaving, and says when to come": {callee: func() *callee { return refusing(unbegun(errs.Unavailable).After(150 * time.Millisecond)) }, want: counts{3, 3, 6, 3, 3}, code: telford.CodeUnavailable},
		"forbids it":                     {callee: func() *callee { return refusing(tooLarge) }, want: same(1), code: telford.CodeResourceExhausted},
		"denied":                         {callee: func() *callee { return refusing(unbegun(errs.PermissionDenied)) }, want: same(1), code: telford.CodePermissionDenied},
		"invalid":                        {callee: func() *callee { return refusing(unbegun(errs.InvalidArgument)) }, want: same(1), code: telford.CodeInvalidArgument},
		"answered conflict":              {callee: func() *callee { return answering(telford.Errorf(telford.CodeConflict, "already")) }, want: same(1), code: telford.CodeConflict},
		"answered not_found":             {callee: func() *callee { return answering(telford.Errorf(telford.CodeNotFound, "no such")) }, want: same(1), code: telford.CodeNotFound},
		"answered unavailable":           {callee: func() *callee { return answering(telford.Errorf(telford.CodeUnavailable, "later")) }, want: same(1), code: telford.CodeUnavailable},
		"answered internal":              {callee: func() *callee { return answering(telford.Errorf(telford.CodeInternal, "bug")) }, want: same(1), code: telford.CodeInternal},
		"answered a lost call of its own": {callee: func() *callee {
			return answering(errs.New(errs.Unavailable, "lost").With("outcome", "unknown").In("link", "call"))
		}, want: same(1), code: telford.CodeUnavailable},
		"answered an error": {callee: func() *callee { return answering(errors.New("boom")) }, want: same(1), code: telford.CodeHandler},
		"late": {callee: func() *callee {
			return &callee{answer: func(ctx *handlers.Context) (any, error) { <-ctx.Done(); return nil, ctx.Err() }}
		}, opts: []telford.CallOption{telford.Timeout(300 * time.Millisecond)}, want: same(1), code: telford.CodeDeadlineExceeded},
		"lost while it ran":                     {start: (*world).lost, want: counts{1, 1, 1, 2, 2}, code: telford.CodeUnavailable},
		"lost while it ran, not to be repeated": {start: (*world).lost, method: "once", want: same(1), code: telford.CodeUnavailable},
		"a stream that is refused":              {callee: func() *callee { return refusing(unbegun(errs.ResourceExhausted)) }, stream: true, want: counts{direct: 1, proxy: 1, auto: 2}, code: telford.CodeResourceExhausted},
		"one attempt":                           {callee: func() *callee { return refusing(unbegun(errs.ResourceExhausted)) }, opts: []telford.CallOption{telford.MaxAttempts(1)}, want: counts{1, 1, 2, 1, 1}, code: telford.CodeResourceExhausted},
		"five attempts":                         {callee: func() *callee { return refusing(unbegun(errs.ResourceExhausted)) }, opts: []telford.CallOption{telford.MaxAttempts(5)}, want: counts{5, 5, 10, 5, 5}, code: telford.CodeResourceExhausted},
		"told to come back after the deadline":  {callee: func() *callee { return refusing(unbegun(errs.ResourceExhausted).After(time.Hour)) }, want: counts{1, 1, 2, 1, 1}, code: telford.CodeResourceExhausted},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.method == "" {
				c.method = "work"
			}
			w := newWorld(t)
			caller := w.start(w.make("caller", telford.CallerOnly()))
			for i, way := range []struct {
				name  string
				mode  telford.TransportMode
				keyed bool
				want  int
			}{
				{"direct", telford.Direct, false, c.want.direct},
				{"proxy", telford.Proxy, false, c.want.proxy},
				{"auto", telford.Auto, false, c.want.auto},
				{"proxy with a key", telford.Proxy, true, c.want.proxyKey},
				{"auto with a key", telford.Auto, true, c.want.autoKey},
			} {
				if way.keyed && c.stream {
					continue // keys are for unary calls
				}
				service := fmt.Sprint("victim", i) // each way begins with nothing known of it
				var at *callee
				if c.start != nil {
					at = c.start(w, service)
				} else {
					at = w.scripted(service, "in_"+service, c.callee())
				}
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
				must(t, caller.WaitReady(ctx, service))
				err := ask(ctx, caller, service, c.method, c.stream, way.mode, way.keyed, c.opts)
				cancel()
				code := c.code
				if c.start != nil && way.want > 1 {
					code = "" // the one that took its place has answered
				}
				if got := errs.CodeOf(err); got != code {
					t.Errorf("%s: %v, want code %q", way.name, err, code)
				}
				if got := at.seen(); got != way.want {
					t.Errorf("%s: %d requests reached it, want %d (%v)", way.name, got, way.want, err)
				}
			}
		})
	}
}

func ask(ctx context.Context, caller *telford.Service, service, method string, stream bool, mode telford.TransportMode, keyed bool, opts []telford.CallOption) error {
	if stream {
		for _, err := range telford.Stream[echoResp](ctx, caller, service, "watch", &echoReq{}, telford.Transport(mode)) {
			if err != nil {
				return err
			}
		}
		return nil
	}
	opts = append([]telford.CallOption{telford.Transport(mode), telford.RetryDelay(20*time.Millisecond, 1, 20*time.Millisecond)}, opts...)
	if keyed {
		opts = append(opts, telford.IdempotencyKey("order-1"))
	}
	_, err := telford.Call[echoResp](ctx, caller, service, method, &echoReq{}, opts...)
	return err
}

// A key is kept by the runtime: such a call goes by no other way.
func TestKeyedCallsNeedTheRuntime(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	at := w.scripted("victim", "in_victim", answering(nil))
	caller := w.start(w.make("caller", telford.CallerOnly(), telford.Uses("victim")))
	must(t, caller.WaitReady(t.Context(), "victim"))
	err := ask(t.Context(), caller, "victim", "work", false, telford.Direct, true, nil)
	if !errors.Is(err, telford.ErrFailedPrecondition) || at.seen() != 0 {
		t.Errorf("directly: %v, %d requests", err, at.seen())
	}
	w.srv.Stop(t)
	eventually(t, "the session is cut", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 200*time.Millisecond)
		defer cancel()
		err := ask(ctx, caller, "victim", "work", false, telford.Auto, true, []telford.CallOption{telford.FailFast()})
		return errors.Is(err, telford.ErrUnavailable)
	})
	err = ask(t.Context(), caller, "victim", "work", false, telford.Auto, true, []telford.CallOption{telford.Timeout(200 * time.Millisecond)})
	var e *telford.Error
	if !errors.As(err, &e) || e.Code != telford.CodeUnavailable || !e.NotStarted || e.Meta["reason"] != "runtime_away" {
		t.Errorf("without a runtime: %v", err)
	}
	if err := ask(t.Context(), caller, "victim", "work", false, telford.Auto, false, nil); err != nil {
		t.Errorf("without a key: %v", err)
	}
}

// Work that is itself another attempt does not try again: attempts do not multiply from
// hop to hop.
func TestInnerHopsDoNotMultiply(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	leaf := w.scripted("victim", "in_victim", refusing(unbegun(errs.ResourceExhausted)))
	mid := w.make("mid", telford.InboundLimit(1, 0))
	busy, release := make(chan struct{}), make(chan struct{})
	must(t, telford.Handle(mid, "block", func(context.Context, *echoReq) (*echoResp, error) {
		close(busy)
		<-release
		return &echoResp{}, nil
	}))
	attempts := make(chan int, 1)
	must(t, telford.Handle(mid, "relay", func(ctx context.Context, _ *echoReq) (*echoResp, error) {
		in, _ := telford.InboundFrom(ctx)
		attempts <- in.Attempt
		return nil, ask(ctx, mid, "victim", "work", false, telford.Proxy, false, nil)
	}))
	w.start(mid)
	must(t, mid.WaitReady(t.Context(), "victim"))
	caller := w.start(w.make("caller", telford.CallerOnly()))
	must(t, caller.WaitReady(t.Context(), "mid"))
	for _, mode := range []telford.TransportMode{telford.Direct, telford.Proxy} {
		busy, release = make(chan struct{}), make(chan struct{})
		for _, first := range []bool{true, false} {
			blocked := make(chan error, 1)
			if !first {
				// The one place is taken at first, so that the call that follows gets in only by
				// a later attempt.
				go func() {
					_, err := telford.Call[echoResp](t.Context(), caller, "mid", "block", &echoReq{})
					blocked <- err
				}()
				<-busy
				time.AfterFunc(100*time.Millisecond, func() { close(release) })
			} else {
				blocked <- nil
			}
			before := leaf.seen()
			_, err := telford.Call[echoResp](t.Context(), caller, "mid", "relay", &echoReq{}, telford.Transport(mode),
				telford.MaxAttempts(100), telford.RetryDelay(20*time.Millisecond, 1, 20*time.Millisecond))
			if !errors.Is(err, telford.ErrResourceExhausted) {
				t.Fatal(err)
			}
			attempt, seen := <-attempts, leaf.seen()-before
			if first && (attempt != 0 || seen != 3) || !first && (attempt == 0 || seen != 1) {
				t.Errorf("mode %v: attempt %d of the call made %d requests further down", mode, attempt, seen)
			}
			if err := <-blocked; err != nil {
				t.Error(err)
			}
		}
	}
}

// An open breaker answers at once, names itself, and closes by its one probe.
func TestBreakerNamesItself(t *testing.T) {
	t.Parallel()
	for _, mode := range []telford.TransportMode{telford.Direct, telford.Proxy, telford.Auto} {
		t.Run(fmt.Sprint(mode), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t)
			var healthy atomic.Bool
			at := w.scripted("victim", "in_victim", &callee{
				refuse: func() *errs.Error {
					if healthy.Load() {
						return nil
					}
					return unbegun(errs.ResourceExhausted)
				},
				answer: func(*handlers.Context) (any, error) { return &echoResp{}, nil },
			})
			caller := w.start(w.make("caller", telford.CallerOnly(), telford.Uses("victim")))
			must(t, caller.WaitReady(t.Context(), "victim"))
			one := []telford.CallOption{telford.MaxAttempts(1)}
			for range 10 {
				if err := ask(t.Context(), caller, "victim", "work", false, mode, false, one); !errors.Is(err, telford.ErrResourceExhausted) && !errors.Is(err, telford.ErrBreakerOpen) {
					t.Fatal(err)
				}
			}
			seen := at.seen()
			err := ask(t.Context(), caller, "victim", "work", false, mode, false, nil)
			var e *telford.Error
			if !errors.Is(err, telford.ErrBreakerOpen) || !errors.Is(err, telford.ErrUnavailable) || !errors.As(err, &e) {
				t.Fatalf("got %v", err)
			}
			if !e.NotStarted || e.Meta["instances"] != "in_victim" || e.Meta["service"] != "victim" || e.RetryAfter <= 0 {
				t.Errorf("it says %+v", e)
			}
			if at.seen() != seen {
				t.Error("a call that was cut off has reached the instance")
			}
			healthy.Store(true)
			eventually(t, "it closes", func() bool { return ask(t.Context(), caller, "victim", "work", false, mode, false, one) == nil })
			for range 20 {
				if err := ask(t.Context(), caller, "victim", "work", false, mode, false, one); err != nil {
					t.Fatalf("after it has closed: %v", err)
				}
			}
		})
	}
}

// Who cuts an instance off tells the runtime, and the runtime everybody who watches it.
func TestOthersHearWhoFails(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.scripted("victim", "in_victim", refusing(unbegun(errs.ResourceExhausted)))
	watcher := w.scripted("watcher", "in_watcher", answering(nil))
	watcher.view.Want("victim")
	watcher.session.Rewatch()
	caller := w.start(w.make("caller", telford.CallerOnly()))
	must(t, caller.WaitReady(t.Context(), "victim"))
	for range 10 {
		_ = ask(t.Context(), caller, "victim", "work", false, telford.Direct, false, []telford.CallOption{telford.MaxAttempts(1)})
	}
	eventually(t, "the instance is known to fail", func() bool {
		in := watcher.view.Snapshot().Instance("in_victim")
		return in != nil && in.FailingUntil.After(time.Now())
	})
}

// When the budget is spent, the failure comes back at once and says so.
func TestRetryBudgetIsSpent(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	at := w.scripted("victim", "in_victim", refusing(unbegun(errs.ResourceExhausted)))
	caller := w.start(w.make("caller", telford.CallerOnly(), telford.Uses("victim"), telford.RetryBudget(0), telford.NoCircuitBreaker()))
	must(t, caller.WaitReady(t.Context(), "victim"))
	exhausted := 0
	for range 60 {
		err := ask(t.Context(), caller, "victim", "work", false, telford.Direct, false, []telford.CallOption{telford.MaxAttempts(2)})
		var e *telford.Error
		if !errors.As(err, &e) || e.Code != telford.CodeResourceExhausted {
			t.Fatal(err)
		}
		if e.Meta["retry"] == "budget_exhausted" {
			exhausted++
		}
	}
	if exhausted == 0 || at.seen() > 60+30+30 {
		t.Errorf("%d calls say that the budget is spent; %d requests of 60 calls", exhausted, at.seen())
	}
}
