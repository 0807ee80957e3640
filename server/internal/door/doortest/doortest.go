// Package doortest builds, for the tests of the doors, everything that stands behind
// them: authority, registry, router and sessions over a real store, and the accept loop
// in front. It starts no goroutines beyond those of its parts, which end with the test.
package doortest

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"testing"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/server/internal/door/accept"
	"telford.dev/telford/server/internal/door/admit"
	"telford.dev/telford/server/internal/door/sessions"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/router"
	"telford.dev/telford/server/internal/rules"
	"telford.dev/telford/server/internal/tx"
)

// Store is what the parts keep their state in; *store.Store is one.
type Store interface {
	tx.DB
	identity.Storage
	registry.Storage
	rules.Storage
}

// Options are what tests change.
type Options struct {
	Clock    clock.Clock
	LeafLife time.Duration
	Dev      bool
	// Sessions is completed by New.
	Sessions sessions.Config
	// Accept is completed by Listen.
	Accept accept.Config
}

// Backend is what stands behind the doors.
type Backend struct {
	Authority *identity.Authority
	Rules     *rules.Rules
	Registry  *registry.Registry
	Router    *router.Router
	Sessions  *sessions.Server
	Gate      *admit.Gate
	Clock     clock.Clock
	Log       *slog.Logger

	opt Options
}

// New builds a Backend that ends with the test.
func New(t testing.TB, store Store, opt Options) *Backend {
	t.Helper()
	if opt.Clock == nil {
		opt.Clock = clock.Real()
	}
	log := slog.New(slog.DiscardHandler)
	ctx := context.Background()
	b := &Backend{Clock: opt.Clock, Log: log, opt: opt}
	var err error
	b.Authority, err = identity.Open(ctx, identity.Config{
		DB: store, Storage: store, Clock: opt.Clock, Log: log, Data: t.TempDir(), LeafLife: opt.LeafLife, Dev: opt.Dev,
	})
	if err != nil {
		t.Fatal(err)
	}
	must(t, b.Authority.Start(ctx))
	t.Cleanup(func() { must(t, b.Authority.Stop(ctx)) })
	b.Rules, err = rules.Open(ctx, rules.Config{DB: store, Storage: store, Namespaces: b.Authority, Clock: opt.Clock, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	must(t, b.Rules.Start(ctx))
	t.Cleanup(func() { must(t, b.Rules.Stop(ctx)) })
	b.Registry, err = registry.Open(ctx, registry.Config{DB: store, Storage: store, Policy: b.Rules, Clock: opt.Clock, Log: log})
	if err != nil {
		t.Fatal(err)
	}
	b.Rules.OnChange(b.Registry.Apply)
	must(t, b.Registry.Start(ctx))
	t.Cleanup(func() { must(t, b.Registry.Stop(ctx)) })
	b.Router = router.New(router.Config{Index: b.Registry, Policy: b.Rules, Clock: opt.Clock, Log: log})
	cfg := opt.Sessions
	cfg.Registry, cfg.Router, cfg.Authority, cfg.Clock, cfg.Log = b.Registry, b.Router, b.Authority, opt.Clock, log
	cfg.Rules = b.Rules
	b.Sessions = sessions.New(cfg)
	b.Gate = admit.New(b.Authority, b.Authority.Trust())
	t.Cleanup(b.Gate.Close)
	t.Cleanup(func() { b.StopSessions(0) })
	return b
}

// StopSessions stops the sessions, waiting at most d for what runs.
func (b *Backend) StopSessions(d time.Duration) {
	ctx, cancel := context.WithTimeout(context.Background(), d)
	defer cancel()
	b.Sessions.Stop(ctx)
}

// Listen accepts on a free loopback port until the test ends. serve is the link door's
// function; nil refuses links.
func (b *Backend) Listen(t testing.TB, serve func(net.Conn, accept.Peer)) (*accept.Server, string) {
	t.Helper()
	if serve == nil {
		serve = func(nc net.Conn, _ accept.Peer) { _ = nc.Close() }
	}
	cfg := b.opt.Accept
	cfg.Trust, cfg.Link, cfg.Clock, cfg.Log = b.Authority.Trust(), serve, b.Clock, b.Log
	s := accept.New(cfg)
	l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	must(t, s.Start(l))
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Stop(ctx)
	})
	return s, l.Addr().String()
}

// Key makes a service key in namespace "default".
func (b *Backend) Key(t testing.TB, service string) (key ident.Key, text string) {
	t.Helper()
	_, text, err := b.Authority.CreateKey(context.Background(), identity.CreateKey{Service: service, Author: "test"})
	if err != nil {
		t.Fatal(err)
	}
	if key, err = ident.ParseKey(text); err != nil {
		t.Fatal(err)
	}
	return key, text
}

// Certify provisions an instance and returns what its process would believe.
func (b *Backend) Certify(t testing.TB, key ident.Key, service, instance string) *ident.Trust {
	t.Helper()
	private, csr, err := ident.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	issued, err := b.Authority.Provision(context.Background(), identity.ProvisionRequest{
		KeyID: key.ID, Secret: key.Secret[:], CSR: csr, Service: service, Instance: instance,
	})
	if err != nil {
		t.Fatal(err)
	}
	cert, err := ident.Certificate(issued.Chain, private)
	if err != nil {
		t.Fatal(err)
	}
	trust := ident.NewTrust(b.Clock)
	roots, err := ident.ParseCertificates(issued.Roots)
	if err != nil {
		t.Fatal(err)
	}
	trust.SetRoots(roots)
	must(t, trust.SetCertificate(cert))
	return trust
}

// Dial makes a TLS connection to the runtime at addr, speaking proto.
func Dial(t testing.TB, addr string, trust *ident.Trust, proto string) *tls.Conn {
	t.Helper()
	nc, err := (&tls.Dialer{Config: trust.ClientConfig(ident.Expect{Runtime: true}, proto)}).Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nc.Close() })
	return nc.(*tls.Conn)
}

// DialLink opens a telford/1 link; the error is that of the acceptor.
func DialLink(t testing.TB, addr string, trust *ident.Trust, opt link.Options) (*link.Conn, error) {
	t.Helper()
	c, err := link.Dial(context.Background(), Dial(t, addr, trust, link.ALPN), opt)
	if err == nil {
		t.Cleanup(func() { c.Close(nil) })
	}
	return c, err
}

// Eventually waits until ok, for at most ten seconds.
func Eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("it did not come to pass that %s", what)
		}
		<-tick.C
	}
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
