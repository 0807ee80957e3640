package sdktest

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"telford.dev/telford"
	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/handlers"
)

// steady calls "hop" of a service at a rate, without waiting for answers, and keeps when
// the last failing call was begun.
type steady struct {
	calls, failed atomic.Int64
	lastFailed    atomic.Int64 // begun, in Unix nanoseconds
	answered      atomic.Int64 // well, since the last failure
	stop          func()
}

func callSteadily(t *testing.T, caller *telford.Service, service string, rate int) *steady {
	t.Helper()
	l := new(steady)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(time.Second / time.Duration(rate))
		defer tick.Stop()
		for ctx.Err() == nil {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			wg.Go(func() {
				begun := time.Now()
				_, err := telford.Call[echoResp](context.WithoutCancel(ctx), caller, service, "hop", &echoReq{}, telford.Timeout(10*time.Second))
				l.calls.Add(1)
				if err == nil {
					l.answered.Add(1)
					return
				}
				l.failed.Add(1)
				l.answered.Store(0)
				for {
					was := l.lastFailed.Load()
					if was >= begun.UnixNano() || l.lastFailed.CompareAndSwap(was, begun.UnixNano()) {
						return
					}
				}
			})
		}
	})
	l.stop = sync.OnceFunc(func() {
		cancel()
		wg.Wait()
	})
	t.Cleanup(l.stop)
	return l
}

// Four hops, a to b to c to the leaf, at 200 calls a second: the leaf dies, comes back
// refusing every call, and is well again. While it refuses it sees little more than its
// normal load, and soon after it is well every call succeeds.
func TestFourHopsWithTheLeafDown(t *testing.T) {
	t.Parallel()
	const rate = 200
	w := newWorld(t)
	var healthy atomic.Bool
	healthy.Store(true)
	refusals := [...]*errs.Error{unbegun(errs.ResourceExhausted), unbegun(errs.Unavailable)}
	leaf := func() *callee {
		c := new(callee)
		c.refuse = func() *errs.Error {
			if healthy.Load() {
				return nil
			}
			return refusals[c.refused.Load()%2]
		}
		c.answer = func(*handlers.Context) (any, error) { return &echoResp{}, nil }
		return c
	}
	first := leaf()
	direct := newWire(t, func() string { return first.listener.Addr().String() })
	session := newWire(t, w.srv.Addr)
	first.server = session.addr()
	w.scripted("leaf", "in_leaf", first, func(d *catalog.Declaration) { d.Endpoints[0].Port = direct.port() })

	hop := func(name, next, method string) {
		s := w.make(name, telford.InboundLimit(4096, 0))
		must(t, telford.Handle(s, "hop", func(ctx context.Context, in *echoReq) (*echoResp, error) {
			return telford.Call[echoResp](ctx, s, next, method, in)
		}))
		w.start(s)
		must(t, s.WaitReady(t.Context(), next))
	}
	hop("c", "leaf", "work")
	hop("b", "c", "hop")
	hop("a", "b", "hop")
	caller := w.start(w.make("caller", telford.CallerOnly()))
	must(t, caller.WaitReady(t.Context(), "a"))
	load := callSteadily(t, caller, "a", rate)
	pause := func(d time.Duration) time.Duration {
		begun := time.Now()
		timer := time.NewTimer(d)
		defer timer.Stop()
		<-timer.C
		return time.Since(begun)
	}
	pause(soak(2*time.Second, 30*time.Second))
	if n := load.failed.Load(); n != 0 {
		t.Fatalf("%d calls failed before anything was wrong", n)
	}

	session.kill() // dead
	direct.kill()
	pause(soak(time.Second, time.Minute))
	healthy.Store(false) // back, and refusing
	second := w.scripted("leaf", "in_leaf", leaf())
	calls := load.calls.Load()
	took := pause(soak(4*time.Second, time.Minute))
	calls = load.calls.Load() - calls
	normal := float64(rate) * took.Seconds()
	share := float64(second.seen()) / normal
	t.Logf("while it refused for %v the leaf saw %d requests, %.2f of its normal load; %d calls were made", took.Round(time.Millisecond), second.seen(), share, calls)
	if share > 1.2 {
		t.Errorf("it saw %.2f of its normal load", share)
	}
	if load.failed.Load() == 0 {
		t.Error("no call has failed")
	}

	well := time.Now()
	healthy.Store(true)
	eventually(t, "every call succeeds", func() bool { return load.answered.Load() >= 2*rate })
	pause(soak(time.Second, 10*time.Second))
	load.stop()
	last := time.Unix(0, load.lastFailed.Load()).Sub(well)
	t.Logf("the last call that failed was begun %v after it was well; %d of %d calls failed", last.Round(time.Millisecond), load.failed.Load(), load.calls.Load())
	if last > 5*time.Second {
		t.Errorf("calls failed until %v after it was well", last)
	}
}
