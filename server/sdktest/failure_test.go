package sdktest

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"

	"telford.dev/telford"
	"telford.dev/telford/server/telfordtest"
)

// wired starts an instance of echo that others dial through a wire.
func (w *world) wired(opts ...telford.Option) (*telford.Service, *wire) {
	w.t.Helper()
	addr := freePort(w.t)
	line := newWire(w.t, func() string { return addr })
	s := w.start(w.echo(append([]telford.Option{telford.Listen(addr), telford.Advertise("127.0.0.1", line.port())}, opts...)...))
	return s, line
}

func TestRuntimeRestartUnderLoad(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	for range 2 {
		w.start(w.echo())
	}
	caller := w.start(w.make("caller", telford.CallerOnly(), telford.Uses("echo")))
	must(t, caller.WaitReady(t.Context(), "echo"))
	var mu sync.Mutex
	var connected, reconnecting int
	caller.OnConnected(func(telford.Connected) { mu.Lock(); connected++; mu.Unlock() })
	caller.OnReconnecting(func(telford.Reconnecting) { mu.Lock(); reconnecting++; mu.Unlock() })
	direct := startLoad(t, caller, 4, telford.Transport(telford.Direct))
	auto := startLoad(t, caller, 4)
	direct.after(t, 100)
	w.srv.Restart(t)
	eventually(t, "a new session", func() bool { mu.Lock(); defer mu.Unlock(); return connected > 0 })
	direct.after(t, 200)
	direct.noFailure(t)
	auto.noFailure(t)
	// Through the runtime too, once the callees are back.
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	eventually(t, "a call through the runtime", func() bool {
		_, err := telford.Call[echoResp](ctx, caller, "echo", "echo", &echoReq{Text: "hi"}, telford.Transport(telford.Proxy))
		return err == nil
	})
	mu.Lock()
	defer mu.Unlock()
	if reconnecting == 0 {
		t.Error("nobody was told of the reconnection")
	}
}

func TestKilledInstance(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	victim, line := w.wired()
	w.start(w.echo())
	caller := w.start(w.make("caller", telford.CallerOnly(), telford.Uses("echo")))
	must(t, caller.WaitReady(t.Context(), "echo"))
	l := startLoad(t, caller, 8, telford.Transport(telford.Direct))
	eventually(t, "both instances are called", func() bool { return l.count(victim.Identity().Instance) > 10 })
	line.kill()
	l.after(t, 50)
	before := l.count(victim.Identity().Instance)
	l.after(t, 300)
	if after := l.count(victim.Identity().Instance); after != before {
		t.Errorf("the killed instance answered %d more calls", after-before)
	}
	failed := l.end()
	if len(failed) > 8 {
		t.Errorf("%d calls failed, more than were in flight", len(failed))
	}
	for _, err := range failed {
		if !errors.Is(err, telford.ErrUnavailable) {
			t.Errorf("failed with %v", err)
		}
	}
}

func TestSessionConnectionCut(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	line := newWire(t, w.srv.Addr)
	w.start(w.echo(telford.WithServer(line.addr())))
	caller := w.start(w.make("caller", telford.CallerOnly(), telford.Uses("echo")))
	must(t, caller.WaitReady(t.Context(), "echo"))
	l := startLoad(t, caller, 4, telford.Transport(telford.Proxy))
	l.after(t, 50)
	for range 3 {
		line.cut()
		l.after(t, 50)
	}
	// A cut session is resumed: calls through it are answered, not lost. Those made
	// while it is cut find no reachable instance and are tried again.
	failed := l.end()
	for _, err := range failed {
		if !errors.Is(err, telford.ErrNoInstance) && !errors.Is(err, telford.ErrUnavailable) {
			t.Errorf("failed with %v", err)
		}
	}
	if int64(len(failed)) > l.calls.Load()/4 {
		t.Errorf("%d of %d calls failed; the first: %v", len(failed), l.calls.Load(), failed[0])
	}
}

func TestBlackHole(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	victim, line := w.wired()
	w.start(w.echo())
	caller := w.start(w.make("caller", telford.CallerOnly(), telford.Uses("echo")))
	must(t, caller.WaitReady(t.Context(), "echo"))
	l := startLoad(t, caller, 4, telford.Transport(telford.Direct))
	eventually(t, "both instances are called", func() bool { return l.count(victim.Identity().Instance) > 10 })
	line.freeze()
	start := time.Now()
	eventually(t, "the dead connection is given up", func() bool {
		before := l.calls.Load()
		pause := time.NewTimer(300 * time.Millisecond)
		<-pause.C
		return l.calls.Load()-before > 100
	})
	if took := time.Since(start); took > 15*time.Second {
		t.Errorf("it took %v", took)
	}
	if failed := l.end(); len(failed) > 8 {
		t.Errorf("%d calls failed; the first: %v", len(failed), failed[0])
	}
}

func TestRotationUnderLoad(t *testing.T) {
	t.Parallel()
	life := soak(4*time.Second, 20*time.Second)
	rounds := soak(8*time.Second, 2*time.Minute)
	w := newWorld(t, telfordtest.LeafLife(life))
	callee := w.start(w.echo())
	caller := w.start(w.make("caller", telford.CallerOnly(), telford.Uses("echo")))
	must(t, caller.WaitReady(t.Context(), "echo"))
	first := callee.Identity().NotAfter
	direct := startLoad(t, caller, 4, telford.Transport(telford.Direct))
	proxied := startLoad(t, caller, 4, telford.Transport(telford.Proxy))
	end := time.NewTimer(rounds)
	<-end.C
	direct.noFailure(t)
	proxied.noFailure(t)
	if !callee.Identity().NotAfter.After(first) {
		t.Error("the certificate was not renewed")
	}
}

func TestGracefulRestarts(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	instances := []*telford.Service{w.start(w.echo()), w.start(w.echo()), w.start(w.echo())}
	caller := w.start(w.make("caller", telford.CallerOnly(), telford.Uses("echo")))
	must(t, caller.WaitReady(t.Context(), "echo"))
	loads := []*load{
		startLoad(t, caller, 4), startLoad(t, caller, 4, telford.Transport(telford.Direct)), startLoad(t, caller, 4, telford.Transport(telford.Proxy)),
	}
	for range soak(2, 10) {
		for i, old := range instances {
			w.stop(old)
			instances[i] = w.start(w.echo())
			loads[0].after(t, 30)
		}
	}
	for _, l := range loads {
		l.noFailure(t)
	}
}
