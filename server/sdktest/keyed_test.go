package sdktest

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"telford.dev/telford"
	"telford.dev/telford/server/internal/store/storetest"
	"telford.dev/telford/server/runtime"
	"telford.dev/telford/server/telfordtest"
)

type payReq struct {
	Order string `json:"order"`
	Size  int    `json:"size,omitempty"`
}

type payResp struct {
	Run  int64  `json:"run"`
	Text string `json:"text,omitempty"`
}

// till is a service that counts how often it was asked to pay.
type till struct {
	*telford.Service
	runs  atomic.Int64
	begun chan telford.Inbound
	let   chan struct{} // what waits goes on when it is closed
}

// pay starts an instance of "pay". Its methods: "pay" answers at once, "slow" waits for
// let or the end of its context, "once" is the same and is not to be run again, "refuse"
// fails.
func (w *world) pay(opts ...telford.Option) *till {
	w.t.Helper()
	p := &till{Service: w.make("pay", opts...), begun: make(chan telford.Inbound, 100), let: make(chan struct{})}
	pay := func(ctx context.Context, in *payReq) (*payResp, error) {
		n := p.runs.Add(1)
		inbound, _ := telford.InboundFrom(ctx)
		p.begun <- inbound
		return &payResp{Run: n, Text: strings.Repeat("x", in.Size)}, nil
	}
	slow := func(ctx context.Context, in *payReq) (*payResp, error) {
		out, _ := pay(ctx, in)
		select {
		case <-p.let:
			return out, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	must(w.t, telford.Handle(p.Service, "pay", pay))
	must(w.t, telford.Handle(p.Service, "slow", slow))
	must(w.t, telford.Handle(p.Service, "once", slow, telford.Retryable(false)))
	must(w.t, telford.Handle(p.Service, "refuse", func(ctx context.Context, in *payReq) (*payResp, error) {
		_, _ = pay(ctx, in)
		return nil, telford.Errorf(telford.CodeConflict, "already charged")
	}))
	must(w.t, telford.HandleStream(p.Service, "watch", func(_ context.Context, _ *payReq, out *telford.Sender[payResp]) error {
		return out.Send(&payResp{})
	}))
	return p
}

// shop starts a service that calls "pay", and waits until it knows so many instances.
func (w *world) shop(n int) *telford.Service {
	w.t.Helper()
	s := w.start(w.make("shop", telford.CallerOnly(), telford.Uses("pay")))
	eventually(w.t, "the shop knows the tills", func() bool { return len(s.ServiceMap()["pay"].Instances) == n })
	return s
}

func payFor(t testing.TB, s *telford.Service, method, order string, opts ...telford.CallOption) (*payResp, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return telford.Call[payResp](ctx, s, "pay", method, &payReq{Order: order}, opts...)
}

func wantRun(t testing.TB, resp *payResp, err error, run int64) {
	t.Helper()
	if err != nil || resp.Run != run {
		t.Fatalf("got %+v, %v; want run %d", resp, err, run)
	}
}

func begun(t testing.TB, p *till) telford.Inbound {
	t.Helper()
	select {
	case in := <-p.begun:
		return in
	case <-time.After(20 * time.Second):
		t.Fatal("the handler was not begun")
		panic("unreachable")
	}
}

// onBoth runs a test with a runtime on each engine.
func onBoth(t *testing.T, f func(t *testing.T, w *world), opts ...telfordtest.Option) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		f(t, newWorld(t, opts...))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		f(t, newWorld(t, append(opts, telfordtest.WithDatabase(storetest.Postgres(t)))...))
	})
}

func TestAKeyIsAnsweredOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		p := w.pay()
		w.start(p.Service)
		shop := w.shop(1)
		first, err := payFor(t, shop, "pay", "1", telford.IdempotencyKey("k"), telford.BusinessKey("order 1"))
		wantRun(t, first, err, 1)
		if in := begun(t, p); in.IdempotencyKey != "k" || in.BusinessKey != "order 1" {
			t.Errorf("the handler sees %+v", in)
		}
		second, err := payFor(t, shop, "pay", "1", telford.IdempotencyKey("k"))
		wantRun(t, second, err, 1)
		_, err = payFor(t, shop, "pay", "2", telford.IdempotencyKey("k"))
		if !errors.Is(err, telford.ErrIdempotencyConflict) || !errors.Is(err, telford.ErrConflict) || !strings.Contains(err.Error(), `"k"`) {
			t.Errorf("another request: %v", err)
		}
		other, err := payFor(t, shop, "slow", "1", telford.IdempotencyKey("k"), telford.Timeout(time.Second))
		if !errors.Is(err, telford.ErrDeadlineExceeded) {
			t.Errorf("another method is another scope: %v, %v", other, err)
		}
		for range 2 {
			if _, err := payFor(t, shop, "refuse", "1", telford.IdempotencyKey("k")); !errors.Is(err, telford.ErrConflict) || !strings.Contains(err.Error(), "already charged") {
				t.Errorf("a failure of the handler: %v", err)
			}
		}
		if n := p.runs.Load(); n != 3 {
			t.Errorf("%d runs", n)
		}
	})
}

func TestManyCallsWithOneKey(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		p := w.pay()
		w.start(p.Service)
		w.start(w.pay().Service)
		shop := w.shop(2)
		const many = 100
		var got [many]int64
		var all sync.WaitGroup
		for i := range many {
			all.Go(func() {
				resp, err := payFor(t, shop, "pay", "1", telford.IdempotencyKey("many"))
				if err != nil {
					t.Errorf("call %d: %v", i, err)
					return
				}
				got[i] = resp.Run
			})
		}
		all.Wait()
		for i, run := range got {
			if run != 1 {
				t.Fatalf("call %d got the answer of run %d", i, run)
			}
		}
	})
}

func TestALargeAnswerOfAKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.pay()
	w.start(p.Service)
	shop := w.shop(1)
	call := func() (*payResp, error) {
		return telford.Call[payResp](t.Context(), shop, "pay", "pay", &payReq{Size: 100_000}, telford.IdempotencyKey("large"))
	}
	resp, err := call()
	wantRun(t, resp, err, 1)
	if len(resp.Text) != 100_000 {
		t.Errorf("%d bytes", len(resp.Text))
	}
	if _, err := call(); !errors.Is(err, telford.ErrAlreadyExists) || !strings.Contains(err.Error(), "not kept") {
		t.Errorf("the second call: %v", err)
	}
	if n := p.runs.Load(); n != 1 {
		t.Errorf("%d runs", n)
	}
}

func TestKeysAndTheWayOfCalls(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.pay()
	w.start(p.Service)
	shop := w.shop(1)
	if _, err := payFor(t, shop, "pay", "1", telford.IdempotencyKey("k"), telford.Transport(telford.Direct)); !errors.Is(err, telford.ErrFailedPrecondition) {
		t.Errorf("directly: %v", err)
	}
	for name, opt := range map[string]telford.CallOption{
		"empty": telford.IdempotencyKey(""), "too long": telford.IdempotencyKey(strings.Repeat("k", 257)),
		"not printable": telford.IdempotencyKey("a\nb"), "with a space": telford.IdempotencyKey(" a"),
		"no ASCII": telford.IdempotencyKey("ü"), "a business key": telford.BusinessKey("\x00"),
	} {
		if _, err := payFor(t, shop, "pay", "1", opt); !errors.Is(err, telford.ErrInvalidArgument) {
			t.Errorf("a key that is %s: %v", name, err)
		}
	}
	// Without a key the business key goes any way.
	for _, mode := range []telford.TransportMode{telford.Direct, telford.Proxy} {
		_, err := payFor(t, shop, "pay", "1", telford.BusinessKey("order 1"), telford.Transport(mode))
		must(t, err)
		if in := begun(t, p); in.BusinessKey != "order 1" || in.IdempotencyKey != "" {
			t.Errorf("the handler sees %+v", in)
		}
	}
	must(t, w.srv.Runtime().Stop(t.Context()))
	_, err := payFor(t, shop, "pay", "1", telford.IdempotencyKey("away"), telford.Timeout(time.Second))
	if !errors.Is(err, telford.ErrUnavailable) || !strings.Contains(err.Error(), "idempotency key") {
		t.Errorf("without a runtime: %v", err)
	}
}

func TestAKilledInstanceOpensTheKey(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		line := newWire(t, w.srv.Addr)
		victim := w.pay(telford.WithServer(line.addr()))
		w.start(victim.Service)
		shop := w.shop(1)
		type answer struct {
			resp *payResp
			err  error
		}
		call := func(method string, timeout time.Duration) <-chan answer {
			c := make(chan answer, 1)
			go func() {
				resp, err := payFor(t, shop, method, "1", telford.IdempotencyKey("k"), telford.Timeout(timeout), telford.MaxAttempts(1))
				c <- answer{resp, err}
			}()
			return c
		}
		first, once := call("slow", 3*time.Second), call("once", 3*time.Second)
		begun(t, victim)
		begun(t, victim)
		second := call("slow", 20*time.Second)
		line.kill()
		heir := w.pay()
		close(heir.let)
		w.start(heir.Service)
		if a := <-first; !errors.Is(a.err, telford.ErrUnavailable) && !errors.Is(a.err, telford.ErrDeadlineExceeded) {
			t.Errorf("the first call: %+v", a)
		}
		a := <-second
		wantRun(t, a.resp, a.err, 1)
		if n := heir.runs.Load(); n != 1 {
			t.Errorf("the second instance ran %d times", n)
		}
		<-once
		if _, err := payFor(t, shop, "once", "1", telford.IdempotencyKey("k")); !errors.Is(err, telford.ErrFailedPrecondition) || !strings.Contains(err.Error(), "unknown") {
			t.Errorf("a method that must not run again: %v", err)
		}
		if n := heir.runs.Load(); n != 1 {
			t.Errorf("the second instance ran %d times", n)
		}
	})
}

func TestACallerThatIsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.pay()
	w.start(p.Service)
	shop := w.shop(1)
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := telford.Call[payResp](ctx, shop, "pay", "slow", &payReq{Order: "1"}, telford.IdempotencyKey("k"))
		first <- err
	}()
	begun(t, p)
	cancel()
	if err := <-first; !errors.Is(err, telford.ErrCanceled) {
		t.Errorf("who left: %v", err)
	}
	w.stop(shop)
	close(p.let)
	heir := w.start(w.make("shop", telford.CallerOnly(), telford.Uses("pay")))
	resp, err := payFor(t, heir, "slow", "1", telford.IdempotencyKey("k"))
	wantRun(t, resp, err, 1)
	if n := p.runs.Load(); n != 1 {
		t.Errorf("%d runs", n)
	}
}

func TestKeysSurviveARestart(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		p := w.pay()
		w.start(p.Service)
		shop := w.shop(1)
		resp, err := payFor(t, shop, "pay", "1", telford.IdempotencyKey("done"))
		wantRun(t, resp, err, 1)
		cut := make(chan error, 1)
		go func() {
			_, err := payFor(t, shop, "slow", "1", telford.IdempotencyKey("cut"), telford.Timeout(4*time.Second), telford.MaxAttempts(1))
			cut <- err
		}()
		begun(t, p)
		begun(t, p)
		deadline := time.Now().Add(4 * time.Second)
		w.srv.Kill(t)
		w.srv.Restart(t)
		<-cut
		resp, err = payFor(t, shop, "pay", "1", telford.IdempotencyKey("done"))
		wantRun(t, resp, err, 1)
		// The instance of the call that was cut still runs it, as far as anybody knows.
		close(p.let)
		resp, err = payFor(t, shop, "slow", "1", telford.IdempotencyKey("cut"))
		wantRun(t, resp, err, 3)
		if early := time.Until(deadline); early > 200*time.Millisecond {
			t.Errorf("it ran %s before the deadline of the call that was cut", early)
		}
	})
}

func TestKeysExpire(t *testing.T) {
	t.Parallel()
	w := newWorld(t, telfordtest.With(func(c *runtime.Config) { c.IdempotencyLifetime = time.Second }))
	p := w.pay()
	w.start(p.Service)
	shop := w.shop(1)
	resp, err := payFor(t, shop, "pay", "1", telford.IdempotencyKey("k"))
	wantRun(t, resp, err, 1)
	eventually(t, "the key has expired", func() bool {
		resp, err := payFor(t, shop, "pay", "1", telford.IdempotencyKey("k"))
		return err == nil && resp.Run == 2
	})
}
