package sdktest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/peer"

	"telford.dev/telford"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/store/storetest"
	"telford.dev/telford/server/telfordtest"
)

const (
	day  = 24 * time.Hour
	leaf = 7 * day
)

// watchLog keeps what must not be said while certificates come and go: every warning,
// and every handshake that failed at either end.
type watchLog struct {
	mu   sync.Mutex
	bad  []string
	pass []string // what is expected at present
}

func (w *watchLog) Enabled(context.Context, slog.Level) bool { return true }
func (w *watchLog) WithAttrs([]slog.Attr) slog.Handler       { return w }
func (w *watchLog) WithGroup(string) slog.Handler            { return w }

func (w *watchLog) Handle(_ context.Context, r slog.Record) error {
	if r.Level < slog.LevelWarn && !strings.Contains(r.Message, "handshake") && !strings.Contains(r.Message, "accept") {
		return nil
	}
	line := r.Level.String() + " " + r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, p := range w.pass {
		if strings.Contains(line, p) && (p != "a handshake failed" || strings.Contains(line, "context canceled")) {
			return nil
		}
	}
	if len(w.bad) < 100 {
		w.bad = append(w.bad, line)
	}
	return nil
}

func (w *watchLog) expect(parts ...string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// Who stops does not take part in the handshakes of that moment any more.
	w.pass = append(parts, "loopback address", "a handshake failed")
}

func (w *watchLog) check(t *testing.T) {
	t.Helper()
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, line := range w.bad {
		t.Error(line)
	}
}

// cluster is a runtime and services whose certificates live by a clock of their own.
type cluster struct {
	t     *testing.T
	clk   *telfordtest.Clock
	log   *watchLog
	srv   *telfordtest.Server
	key   string // of service "work", printed at the very beginning
	alive []*telford.Service
	loads []*steadyLoad

	mu sync.Mutex
	// timers are those that the clock has when nothing is under way, if that is known: one
	// of the runtime; of each session and each direct connection one for its renewal and
	// one for its end.
	timers int

	// callers is when the certificate ends that the caller has shown on a direct
	// connection, by its address.
	callers map[string]time.Time
	// used is when the direct connection to an instance ends that was used last.
	used map[string]time.Time
}

func newCluster(t *testing.T, opts ...telfordtest.Option) *cluster {
	t.Helper()
	c := &cluster{t: t, clk: telfordtest.NewClock(time.Now()), log: &watchLog{}, callers: map[string]time.Time{}, used: map[string]time.Time{}}
	c.log.expect()
	c.srv = telfordtest.Start(t, append([]telfordtest.Option{
		telfordtest.WithCertificateClock(c.clk), telfordtest.CertificateLives(270*day, 60*day, leaf),
		telfordtest.WithLog(slog.New(c.log)),
	}, opts...)...)
	c.key = c.srv.Key(t, "work")
	return c
}

func (c *cluster) service(name, key string) *telford.Service {
	c.t.Helper()
	s, err := telford.New(name, telford.WithServer(c.srv.Addr()), telford.WithKey(key), telford.WithCertificateClock(c.clk),
		telford.Logger(slog.New(c.log)), telford.Reconnect(5*time.Millisecond, 50*time.Millisecond, 0))
	if err != nil {
		c.t.Fatal(err)
	}
	return s
}

// worker starts an instance of "work" with the key of the beginning.
func (c *cluster) worker() *telford.Service {
	c.t.Helper()
	s := c.service("work", c.key)
	err := telford.Handle(s, "echo", func(_ context.Context, in *echoReq) (*echoResp, error) {
		return &echoResp{Text: in.Text}, nil
	})
	if err != nil {
		c.t.Fatal(err)
	}
	healthpb.RegisterHealthServer(s, &checker{c: c})
	c.start(s)
	return s
}

// checker is the service by which direct calls are made: over gRPC both ends see the
// certificates of a connection.
type checker struct {
	healthpb.UnimplementedHealthServer
	c *cluster
}

func (h *checker) Check(ctx context.Context, _ *healthpb.HealthCheckRequest) (*healthpb.HealthCheckResponse, error) {
	if end, ok := ends(ctx); ok {
		p, _ := peer.FromContext(ctx)
		h.c.mu.Lock()
		h.c.callers[p.Addr.String()] = end
		h.c.mu.Unlock()
	}
	return &healthpb.HealthCheckResponse{Status: healthpb.HealthCheckResponse_SERVING}, nil
}

// ends is when the certificate of the other end of a direct connection does.
func ends(ctx context.Context) (time.Time, bool) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return time.Time{}, false
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return time.Time{}, false
	}
	return info.State.PeerCertificates[0].NotAfter, true
}

// direct calls an instance directly and takes note of when the connection ends: with the
// sooner of the certificates that it was made with.
func (c *cluster) direct(ctx context.Context, caller *telford.Service) error {
	var p peer.Peer
	client := healthpb.NewHealthClient(caller.Conn("work", telford.Transport(telford.Direct)))
	if _, err := client.Check(ctx, &healthpb.HealthCheckRequest{}, grpc.Peer(&p)); err != nil {
		return err
	}
	end, ok := ends(peer.NewContext(ctx, &p))
	if !ok {
		return errors.New("the connection shows no certificate")
	}
	id, err := ident.FromCertificate(p.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0])
	if err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if own := c.callers[p.LocalAddr.String()]; own.Before(end) {
		end = own
	}
	c.used[id.Instance] = end
	return nil
}

// proxied calls through the runtime.
func (c *cluster) proxied(ctx context.Context, caller *telford.Service) error {
	_, err := telford.Call[echoResp](ctx, caller, "work", "echo", &echoReq{Text: "x"}, telford.Transport(telford.Proxy))
	return err
}

func (c *cluster) start(s *telford.Service) {
	c.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	if err := s.Start(ctx); err != nil {
		c.t.Fatalf("at %s: %v", c.clk.Now(), err)
	}
	c.t.Cleanup(func() { _ = s.Stop(context.Background()) })
}

// steadyLoad calls one after another until it is stopped.
type steadyLoad struct {
	name          string
	began, failed atomic.Int64
	ended         atomic.Int64
	first         atomic.Pointer[error]
}

func (c *cluster) load(name string, call func(context.Context, *telford.Service) error, caller *telford.Service) {
	l := &steadyLoad{name: name}
	c.loads = append(c.loads, l)
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		pace := time.NewTicker(500 * time.Microsecond)
		defer pace.Stop()
		for {
			select {
			case <-done:
				return
			case <-pace.C:
			}
			n := l.began.Add(1)
			ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
			err := call(ctx, caller)
			cancel()
			if err != nil {
				l.failed.Add(1)
				err = fmt.Errorf("%s: at %s: %w", name, c.clk.Now().UTC().Format(time.RFC3339), err)
				l.first.CompareAndSwap(nil, &err)
			}
			l.ended.Store(n)
		}
	})
	c.t.Cleanup(func() { close(done); wg.Wait() })
}

// leap moves the clock of certificates on and waits until all have done what that makes
// due, and every load has finished a call that began later.
func (c *cluster) leap(d time.Duration) {
	c.t.Helper()
	c.clk.Leap(d)
	marks := make([]int64, len(c.loads))
	for i, l := range c.loads {
		marks[i] = l.began.Load()
	}
	tick := time.NewTicker(200 * time.Microsecond)
	defer tick.Stop()
	settled := func() bool {
		for _, s := range c.alive {
			if s.Identity().NotAfter.Sub(c.clk.Now()) < leaf/4 {
				return false
			}
		}
		if c.timers > 0 && c.clk.Pending() != c.timers {
			return false
		}
		c.mu.Lock()
		for _, s := range c.alive {
			if end, known := c.used[s.Identity().Instance]; known && end.Sub(c.clk.Now()) < d+time.Hour {
				c.mu.Unlock()
				return false
			}
		}
		c.mu.Unlock()
		for i, l := range c.loads {
			if l.ended.Load() <= marks[i] {
				return false
			}
		}
		return true
	}
	quiet := 0 // looks in a row that found nothing under way
	for end := time.Now().Add(20 * time.Second); quiet < 6; <-tick.C {
		if settled() {
			quiet++
			continue
		}
		quiet = 0
		c.clk.Leap(20 * time.Millisecond) // what is due in a moment comes, too
		if time.Now().After(end) {
			for _, s := range c.alive {
				c.t.Logf("%s: %+v", c.clk.Now(), s.Identity())
			}
			c.log.check(c.t)
			c.t.Fatalf("at %s the certificates are not renewed, or calls hang: %+v", c.clk.Now(), c.srv.Runtime().Authority().PKI())
		}
	}
}

func (c *cluster) check() (calls int64) {
	c.t.Helper()
	for _, l := range c.loads {
		calls += l.ended.Load()
		if n := l.failed.Load(); n > 0 {
			c.t.Errorf("%s: %d of %d calls failed, the first: %v", l.name, n, l.ended.Load(), *l.first.Load())
		}
	}
	c.log.check(c.t)
	return calls
}

func (c *cluster) phase() identity.Phase { return c.srv.Runtime().Authority().PKI().Phase }

// TestThreeYears lets leaves, issuers and roots end for three years under calls by every
// way, with new instances by a key that was printed at the very beginning: no handshake
// fails at either end, and no call.
func TestThreeYears(t *testing.T) {
	t.Parallel()
	step := 8 * time.Hour
	if os.Getenv("TELFORD_SOAK") != "" {
		step = time.Hour
	}
	c := newCluster(t)
	began := c.clk.Now()
	c.alive = append(c.alive, c.worker(), c.worker())
	caller := c.service("caller", c.srv.Key(t, "caller"))
	c.start(caller)
	if err := caller.WaitReady(t.Context(), "work"); err != nil {
		t.Fatal(err)
	}
	c.alive = append(c.alive, caller)
	c.load("direct", c.direct, caller)
	c.load("proxy", c.proxied, caller)
	c.timers = 1 + 2*3 + 2*2

	roots, issuers, leaves, newcomers := map[string]bool{}, map[string]bool{}, map[string]bool{}, 0
	phases := map[identity.Phase]int{}
	for passed := time.Duration(0); passed < 3*365*day; passed += step {
		c.leap(step)
		status := c.srv.Runtime().Authority().PKI()
		phases[status.Phase]++
		for _, cert := range status.Certificates {
			switch {
			case cert.Role == identity.RoleRoot && cert.State == "active":
				roots[cert.Serial] = true
			case cert.Role == identity.RoleIssuer:
				issuers[cert.Serial] = true
			}
			if cert.DaysLeft < 0 {
				t.Fatalf("at %s: %+v", c.clk.Now(), cert)
			}
		}
		leaves[caller.Identity().NotAfter.String()] = true
		if passed%(40*day) != 0 {
			continue
		}
		newcomer := c.worker()
		newcomers++
		if err := c.direct(t.Context(), newcomer); err != nil {
			t.Errorf("a newcomer after %s: %v", passed, err)
		}
		if err := newcomer.Stop(context.Background()); err != nil {
			t.Errorf("a newcomer after %s: %v", passed, err)
		}
	}
	calls := c.check()
	t.Logf("%s: %d roots, %d issuers, %d leaves of the caller, %d newcomers, %d calls, phases %v",
		c.clk.Now().Sub(began), len(roots), len(issuers), len(leaves), newcomers, calls, phases)
	if len(roots) < 5 || len(issuers) < 20 || len(leaves) < 200 || newcomers < 25 || phases[identity.Distributing] == 0 || phases[identity.Signing] == 0 {
		t.Error("too little has come and gone")
	}
}

// TestRuntimeKilledDuringRotation kills the runtime in every phase, with days between:
// direct calls go on, proxied ones wait for it, and the rotation completes.
func TestRuntimeKilledDuringRotation(t *testing.T) {
	t.Parallel()
	for _, engine := range []string{"sqlite", "postgres"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			var opts []telfordtest.Option
			if engine == "postgres" {
				opts = append(opts, telfordtest.WithDatabase(storetest.Postgres(t)))
			}
			c := newCluster(t, opts...)
			c.log.expect("the runtime is away", "closed network connection", "the certificate could not be renewed", "connection of a session", "outcome unknown",
				"could not be connected", "conn closed")
			c.alive = append(c.alive, c.worker(), c.worker())
			caller := c.service("caller", c.srv.Key(t, "caller"))
			c.start(caller)
			if err := caller.WaitReady(t.Context(), "work"); err != nil {
				t.Fatal(err)
			}
			c.alive = append(c.alive, caller)
			c.load("direct", c.direct, caller)
			root := c.srv.Runtime().Authority().Roots()[0]
			if _, err := c.srv.Runtime().Authority().RotateRoot(t.Context(), false); err != nil {
				t.Fatal(err)
			}
			seen := map[identity.Phase]bool{}
			for phase := c.phase(); phase != identity.Steady; phase = c.phase() {
				seen[phase] = true
				c.srv.Kill(t)
				c.clk.Leap(time.Hour) // nobody is there to answer
				c.srv.Restart(t)
				c.srv.Kill(t)
				c.srv.Restart(t)
				for _, s := range c.alive {
					ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
					if _, err := telford.Call[echoResp](ctx, s, "work", "echo", &echoReq{}, telford.Transport(telford.Proxy)); err != nil {
						t.Errorf("%s: by proxy after the restart: %v", phase, err)
					}
					cancel()
				}
				for range 100 {
					if c.phase() != phase {
						break
					}
					c.leap(6 * time.Hour)
				}
			}
			if !seen[identity.Distributing] || !seen[identity.Signing] {
				t.Errorf("phases %v", seen)
			}
			if roots := c.srv.Runtime().Authority().Roots(); len(roots) != 1 || roots[0].Equal(root) {
				t.Error("the root is the old one")
			}
			if s := c.worker(); s.Identity().NotAfter.IsZero() {
				t.Error("a newcomer with the key of the beginning has no certificate")
			}
			c.check()
		})
	}
}

// TestRenewedWhenTheNewRootSigns: instances do not wait for two thirds of their
// certificates when another root signs; they spread over a quarter of a life.
func TestRenewedWhenTheNewRootSigns(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	workers := []*telford.Service{c.worker(), c.worker(), c.worker()}
	c.clk.Leap(time.Hour)
	before := workers[0].Identity().NotAfter
	if _, err := c.srv.Runtime().Authority().RotateRoot(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	renewed := func() (n int) {
		for _, w := range workers {
			if w.Identity().NotAfter.After(before) {
				n++
			}
		}
		return n
	}
	tick := time.NewTicker(200 * time.Microsecond) // the news takes its time, too
	defer tick.Stop()
	for began, end := c.clk.Now(), time.Now().Add(20*time.Second); renewed() < len(workers); <-tick.C {
		if c.clk.Now().Sub(began) < leaf/2 { // two thirds come later
			c.clk.Leap(time.Minute)
		}
		if time.Now().After(end) {
			t.Fatalf("%d of %d instances have renewed", renewed(), len(workers))
		}
	}
	c.check()
}
