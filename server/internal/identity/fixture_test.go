package identity_test

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/store"
	"telford.dev/telford/server/internal/store/storetest"
	"telford.dev/telford/server/internal/tx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var epoch = time.Date(2031, 5, 1, 12, 0, 0, 0, time.UTC)

// backing is what an Authority stands on.
type backing interface {
	tx.DB
	identity.Storage
}

// fixture is a cluster's state, over which authorities can be opened again and again.
type fixture struct {
	store backing
	clk   *clock.Manual
	vault identity.Vault
	logs  *lockedBuffer
}

func newFixture(on backing) *fixture {
	return &fixture{store: on, clk: clock.NewManual(epoch), vault: &identity.MemoryVault{}, logs: &lockedBuffer{}}
}

// open opens an Authority over the fixture and stops it with the test.
func (f *fixture) open(t testing.TB, change ...func(*identity.Config)) *identity.Authority {
	t.Helper()
	a, err := f.tryOpen(change...)
	if err != nil {
		t.Fatalf("open: %v", err)
	}
	t.Cleanup(func() { _ = a.Stop(context.Background()) })
	return a
}

func (f *fixture) tryOpen(change ...func(*identity.Config)) (*identity.Authority, error) {
	cfg := identity.Config{
		DB: f.store, Storage: f.store, Clock: f.clk, Vault: f.vault, Node: "node_1",
		Log: slog.New(slog.NewTextHandler(f.logs, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, c := range change {
		c(&cfg)
	}
	return identity.Open(context.Background(), cfg)
}

// onEveryStore runs a test over each engine.
func onEveryStore(t *testing.T, test func(t *testing.T, f *fixture)) {
	t.Helper()
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		test(t, newFixture(newMemory()))
	})
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		test(t, newFixture(openStore(t, store.Config{Data: t.TempDir(), Fast: true})))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		test(t, newFixture(openStore(t, store.Config{URL: storetest.Postgres(t)})))
	})
}

func openStore(t *testing.T, cfg store.Config) *store.Store {
	t.Helper()
	s, err := store.Open(context.Background(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func dev(cfg *identity.Config) { cfg.Dev = true }

func leafLife(d time.Duration) func(*identity.Config) {
	return func(cfg *identity.Config) { cfg.LeafLife = d }
}

// key makes a service key and returns it as its owner has it.
func key(t testing.TB, a *identity.Authority, in identity.CreateKey) ident.Key {
	t.Helper()
	_, text, err := a.CreateKey(context.Background(), in)
	if err != nil {
		t.Fatalf("create a key: %v", err)
	}
	k, err := ident.ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func serviceKey(t testing.TB, a *identity.Authority, service string) ident.Key {
	t.Helper()
	return key(t, a, identity.CreateKey{Service: service, Author: "tester"})
}

// process is what a provisioned process has.
type process struct {
	key   ident.Key
	trust *ident.Trust
}

func provision(t testing.TB, a *identity.Authority, clk clock.Clock, k ident.Key, service, instance string) *process {
	t.Helper()
	p := &process{k, ident.NewTrust(clk)}
	private, csr, err := ident.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	issued, err := a.Provision(context.Background(), identity.ProvisionRequest{
		KeyID: k.ID, Secret: k.Secret[:], CSR: csr, Service: service, Instance: instance,
	})
	if err != nil {
		t.Fatalf("provision %s: %v", service, err)
	}
	p.install(t, issued, func() (ident.Identity, error) {
		cert, err := ident.Certificate(issued.Chain, private)
		if err != nil {
			return ident.Identity{}, err
		}
		return issued.Identity, p.trust.SetCertificate(cert)
	})
	return p
}

func (p *process) install(t testing.TB, issued *identity.Issued, set func() (ident.Identity, error)) {
	t.Helper()
	want, err := set()
	if err != nil {
		t.Fatal(err)
	}
	roots, err := ident.ParseCertificates(issued.Roots)
	if err != nil {
		t.Fatal(err)
	}
	p.trust.SetRoots(roots)
	if got := p.trust.Identity(); got != want {
		t.Fatalf("issued %+v, said %+v", got, want)
	}
}

func (p *process) renew(t testing.TB, a *identity.Authority) error {
	t.Helper()
	private, csr, err := ident.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	issued, err := a.Renew(context.Background(), p.trust.Identity(), csr)
	if err != nil {
		return err
	}
	p.install(t, issued, func() (ident.Identity, error) {
		cert, err := ident.Certificate(issued.Chain, private)
		if err != nil {
			return ident.Identity{}, err
		}
		return issued.Identity, p.trust.SetCertificate(cert)
	})
	return nil
}

// wantError checks code and message of an error of the model.
func wantError(t testing.TB, err error, code errs.Code, parts ...string) {
	t.Helper()
	var e *errs.Error
	if !errors.As(err, &e) {
		t.Errorf("error %v, want %s", err, code)
		return
	}
	if e.Code != code {
		t.Errorf("error %q, want code %s", err, code)
	}
	for _, part := range parts {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("error %q, want it to say %q", err, part)
		}
	}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
