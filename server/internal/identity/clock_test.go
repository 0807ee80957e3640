package identity_test

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/tx"
)

// TestThirtyDays lets a runtime and two services live through 30 days of certificates
// and several issuers, meeting twice a day.
func TestThirtyDays(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, f *fixture) {
		ctx := context.Background()
		a := f.open(t, func(cfg *identity.Config) { cfg.IssuerLife = 9 * 24 * time.Hour })
		for range 2 {
			if err := a.Start(ctx); err != nil {
				t.Fatal(err)
			}
		}
		orders := provision(t, a, f.clk, serviceKey(t, a, "orders"), "orders", "in_1")
		payments := provision(t, a, f.clk, serviceKey(t, a, "payments"), "payments", "in_2")
		renewals, own, issuers := 0, make(map[time.Time]bool), make(map[string]bool)
		const step = 3 * time.Hour
		for day := time.Duration(0); day < 30*24*time.Hour; day += step {
			f.clk.Advance(step)
			for _, p := range []*process{orders, payments} {
				if id := p.trust.Identity(); f.clk.Now().Before(id.RenewAt()) {
					continue
				}
				if err := p.renew(t, a); err != nil {
					t.Fatalf("after %s: %v", day, err)
				}
				renewals++
				if end := p.trust.Certificate().Leaf.NotAfter; end.Sub(f.clk.Now()) != 24*time.Hour {
					t.Errorf("after %s: a leaf lives %s", day, end.Sub(f.clk.Now()))
				}
			}
			id := a.Trust().Identity()
			own[id.NotAfter] = true
			issuers[string(a.Trust().Certificate().Certificate[1])] = true
			if left := id.NotAfter.Sub(f.clk.Now()); left < 7*time.Hour {
				t.Fatalf("after %s: the runtime's certificate has %s left", day, left)
			}
			if day%(12*time.Hour) != 0 {
				continue
			}
			_, serverErr, clientErr := meet(t, a.Trust().ServerConfig("telford/1"), orders.trust.ClientConfig(ident.Expect{Runtime: true}, "telford/1"))
			_, peerErr, dialErr := meet(t, payments.trust.ServerConfig("telford/1"), orders.trust.ClientConfig(ident.Expect{Instance: "in_2"}, "telford/1"))
			if err := errors.Join(serverErr, clientErr, peerErr, dialErr); err != nil {
				t.Fatalf("after %s: %v", day, err)
			}
		}
		if renewals < 75 || len(own) < 40 || len(issuers) < 4 {
			t.Errorf("%d renewals, %d certificates of the runtime, %d issuers", renewals, len(own), len(issuers))
		}
		for range 2 {
			if err := a.Stop(ctx); err != nil {
				t.Fatal(err)
			}
		}
		if f.clk.Pending() != 0 {
			t.Errorf("%d timers left", f.clk.Pending())
		}
		before := a.Trust().Identity()
		f.clk.Advance(100 * time.Hour)
		if a.Trust().Identity() != before {
			t.Error("renewed after Stop")
		}
		if err := a.Start(ctx); err != nil {
			t.Fatal(err)
		}
		f.clk.Advance(time.Second)
		if id := a.Trust().Identity(); !id.NotAfter.After(f.clk.Now()) {
			t.Error("not renewed after a second Start")
		}
	})
}

// TestSecondsOfLife: certificates of a few seconds, as tests of rotation use.
func TestSecondsOfLife(t *testing.T) {
	t.Parallel()
	f := newFixture(newMemory())
	f.clk.Advance(123 * time.Millisecond)
	a := f.open(t, leafLife(2*time.Second))
	if err := a.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	p := provision(t, a, f.clk, serviceKey(t, a, "orders"), "orders", "in_1")
	for range 100 {
		f.clk.Advance(250 * time.Millisecond)
		if !f.clk.Now().Before(p.trust.Identity().RenewAt()) {
			if err := p.renew(t, a); err != nil {
				t.Fatal(err)
			}
		}
		_, serverErr, clientErr := meet(t, a.Trust().ServerConfig("telford/1"), p.trust.ClientConfig(ident.Expect{Runtime: true}, "telford/1"))
		if serverErr != nil || clientErr != nil {
			t.Fatalf("server %v, client %v", serverErr, clientErr)
		}
	}
}

// TestClockJumps: an hour back and forth breaks nothing; a sleep beyond the life of the
// certificate is noticed.
func TestClockJumps(t *testing.T) {
	t.Parallel()
	f := newFixture(newMemory())
	ctx := context.Background()
	a := f.open(t)
	if err := a.Start(ctx); err != nil {
		t.Fatal(err)
	}
	k := serviceKey(t, a, "orders")
	p := provision(t, a, f.clk, k, "orders", "in_1")
	for _, jump := range []time.Duration{-time.Hour, time.Hour, time.Hour, -time.Hour} {
		f.clk.Set(f.clk.Now().Add(jump))
		_, serverErr, clientErr := meet(t, a.Trust().ServerConfig("telford/1"), p.trust.ClientConfig(ident.Expect{Runtime: true}, "telford/1"))
		if serverErr != nil || clientErr != nil {
			t.Errorf("after %s: server %v, client %v", jump, serverErr, clientErr)
		}
		if err := p.renew(t, a); err != nil {
			t.Errorf("after %s: %v", jump, err)
		}
	}
	f.clk.Set(f.clk.Now().Add(-30 * 24 * time.Hour)) // the certificates are of the future now
	f.clk.Advance(time.Minute)
	q := provision(t, a, f.clk, k, "orders", "in_1")
	_, serverErr, clientErr := meet(t, a.Trust().ServerConfig("telford/1"), q.trust.ClientConfig(ident.Expect{Runtime: true}, "telford/1"))
	if serverErr == nil || clientErr == nil {
		// The root itself is of the future: nothing can be valid.
		t.Errorf("a root of the future: server %v, client %v", serverErr, clientErr)
	}
}

// TestIssuer: it never signs past its own end, and is renewed in time, though the vault
// fails for a while.
func TestIssuer(t *testing.T) {
	t.Parallel()
	f := newFixture(newMemory())
	broken := &flakyVault{Vault: f.vault}
	a := f.open(t, func(cfg *identity.Config) { cfg.IssuerLife, cfg.Vault = 72*time.Hour, broken })
	if err := a.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	k := serviceKey(t, a, "orders")
	broken.fail = errors.New("the disk is gone")
	f.clk.Advance(50 * time.Hour)
	p := provision(t, a, f.clk, k, "orders", "in_1")
	if end := p.trust.Identity().NotAfter; !end.Equal(epoch.Add(72 * time.Hour)) {
		t.Errorf("signed until %s by an issuer that ends at %s", end, epoch.Add(72*time.Hour))
	}
	if !strings.Contains(f.logs.String(), "going on with the old one") || strings.Count(f.logs.String(), "the disk is gone") > 300 {
		t.Errorf("the log says %d times that the disk is gone", strings.Count(f.logs.String(), "the disk is gone"))
	}
	f.clk.Advance(23 * time.Hour)
	_, err := a.Provision(context.Background(), identity.ProvisionRequest{KeyID: k.ID, Secret: k.Secret[:], CSR: request(t, ecdsaKey(t, nil))})
	if err == nil || !strings.Contains(err.Error(), "the disk is gone") {
		t.Errorf("with an expired issuer: %v", err)
	}
	broken.fail = nil
	p = provision(t, a, f.clk, k, "orders", "in_1")
	if end := p.trust.Identity().NotAfter; !end.Equal(f.clk.Now().Add(24 * time.Hour)) {
		t.Errorf("signed until %s", end)
	}
	f.clk.Advance(time.Minute)
	_, serverErr, clientErr := meet(t, a.Trust().ServerConfig("telford/1"), p.trust.ClientConfig(ident.Expect{Runtime: true}, "telford/1"))
	if serverErr != nil || clientErr != nil {
		t.Errorf("after the repair: server %v, client %v", serverErr, clientErr)
	}
}

type flakyVault struct {
	identity.Vault
	fail error
}

func (v *flakyVault) Load(ctx context.Context, name string) ([]byte, error) {
	if v.fail != nil {
		return nil, v.fail
	}
	return v.Vault.Load(ctx, name)
}

// TestTheEndOfTheRoot: where the root could not be replaced in time, nothing outlives it,
// and who starts afterwards is told what to do.
func TestTheEndOfTheRoot(t *testing.T) {
	t.Parallel()
	f := newFixture(newMemory())
	broken := &flakyVault{Vault: f.vault}
	a := f.open(t, func(cfg *identity.Config) {
		cfg.RootLife, cfg.IssuerLife, cfg.LeafLife, cfg.Vault = 100*time.Hour, 100*time.Hour, 10*time.Hour, broken
	})
	if err := a.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	broken.fail = errors.New("the disk is gone")
	k := serviceKey(t, a, "orders")
	f.clk.Advance(95 * time.Hour)
	p := provision(t, a, f.clk, k, "orders", "in_1")
	if end := p.trust.Identity().NotAfter; !end.Equal(epoch.Add(100 * time.Hour)) {
		t.Errorf("signed until %s by a root that ends at %s", end, epoch.Add(100*time.Hour))
	}
	f.clk.Advance(6 * time.Hour)
	broken.fail = nil
	_, err := a.Provision(context.Background(), identity.ProvisionRequest{KeyID: k.ID, Secret: k.Secret[:], CSR: request(t, ecdsaKey(t, nil))})
	wantError(t, err, errs.FailedPrecondition, "the root expired at 2031-05-05T16:00:00Z", "telford pki recover")
	_, err = a.RotateRoot(context.Background(), true)
	wantError(t, err, errs.FailedPrecondition, "the root expired at", "telford pki recover")
	_, err = f.tryOpen()
	wantError(t, err, errs.FailedPrecondition, "the root expired at", "telford pki recover")
}

func TestReload(t *testing.T) {
	t.Parallel()
	f := newFixture(newMemory())
	ctx, a, b := context.Background(), f.open(t), f.open(t)
	k := serviceKey(t, b, "orders")
	gone := serviceKey(t, b, "orders")
	if _, err := b.RevokeKey(ctx, gone.ID, "ada", ""); err != nil {
		t.Fatal(err)
	}
	if _, err := b.EnsureNamespace(ctx, "acme", 0); err != nil {
		t.Fatal(err)
	}
	if _, err := a.Authenticate(ctx, k.String()); err == nil {
		t.Fatal("the test is void: a knows the key already")
	}
	heard := 0
	cancel := a.OnRevocation(func([]string, []string) { heard++ })
	defer cancel()
	for range 2 {
		if err := a.Reload(ctx); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := a.Authenticate(ctx, k.String()); err != nil {
		t.Error(err)
	}
	if _, err := a.Namespace("acme"); err != nil {
		t.Error(err)
	}
	if !a.Trust().Revoked(ident.Identity{KeyID: gone.ID}) || heard != 1 {
		t.Errorf("the revocation did not arrive, or %d times", heard)
	}
}

var _ tx.DB = (*memory)(nil)
