package identity_test

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/tx"
)

// vaults runs a test with each kind of vault over each engine.
func vaults(t *testing.T, test func(t *testing.T, f *fixture, conf func(*identity.Config))) {
	t.Helper()
	for name, kind := range map[string]func(t *testing.T, f *fixture) (identity.Vault, string){
		"files": func(t *testing.T, _ *fixture) (identity.Vault, string) {
			return identity.NewFileVault(filepath.Join(t.TempDir(), "pki"), ""), ""
		},
		"wrapped_files": func(t *testing.T, _ *fixture) (identity.Vault, string) {
			return identity.NewFileVault(filepath.Join(t.TempDir(), "pki"), secret), secret
		},
		"database": func(t *testing.T, f *fixture) (identity.Vault, string) {
			v, err := identity.NewMetaVault(f.store, f.store, secret)
			if err != nil {
				t.Fatal(err)
			}
			return v, secret
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			onEveryStore(t, func(t *testing.T, f *fixture) {
				vault, secret := kind(t, f)
				f.vault = vault
				test(t, f, func(cfg *identity.Config) {
					short(cfg)
					cfg.Vault, cfg.ClusterSecret = vault, secret
				})
			})
		})
	}
}

func (f *fixture) recover(change ...func(*identity.Config)) (*identity.Recovery, error) {
	cfg := identity.Config{DB: f.store, Storage: f.store, Clock: f.clk, Vault: f.vault}
	for _, c := range change {
		c(&cfg)
	}
	return identity.Recover(context.Background(), cfg)
}

// TestRecoverWithEverythingExpired: years after the last certificate ended, keys that
// were printed before, also before a rotation, provision again.
func TestRecoverWithEverythingExpired(t *testing.T) {
	t.Parallel()
	vaults(t, func(t *testing.T, f *fixture, conf func(*identity.Config)) {
		ctx := context.Background()
		a := f.open(t, conf)
		k := serviceKey(t, a, "orders")
		for range 2 {
			if _, err := a.RotateRoot(ctx, true); err != nil {
				t.Fatal(err)
			}
		}
		later := serviceKey(t, a, "orders")
		domain := a.TrustDomain()
		if _, err := f.recover(conf); err == nil {
			t.Error("recovered what is sound")
		} else {
			wantError(t, err, errs.FailedPrecondition, "nothing to recover", "telford pki rotate-root")
		}
		f.clk.Leap(3 * 365 * 24 * hours)
		_, err := f.tryOpen(conf)
		wantError(t, err, errs.FailedPrecondition, "the root expired at", "telford pki recover")

		out, err := f.recover(conf)
		if err != nil {
			t.Fatal(err)
		}
		said := strings.Join(append(out.Done, out.Next...), "\n")
		for _, want := range []string{"expired at 2031-05-05", "a new root", "without an end", "a new issuer", "telford serve", "services need nothing"} {
			if !strings.Contains(said, want) {
				t.Errorf("it does not say %q:\n%s", want, said)
			}
		}
		if !out.KeysGood || out.TrustDomain != domain || len(out.Roots) != 1 || !out.Root.NotAfter.Equal(f.clk.Now().Add(100*hours)) ||
			out.Issuer.DaysLeft != 1 || out.Root.DaysLeft != 4 {
			t.Errorf("%+v", out)
		}
		b := f.open(t, conf)
		if err := b.Start(ctx); err != nil {
			t.Fatal(err)
		}
		until(t, f, b, identity.Steady)
		for name, k := range map[string]ident.Key{"before a rotation": k, "before the end": later, "after": serviceKey(t, b, "orders")} {
			if err := pinned(t, b, f, k); err != nil {
				t.Errorf("a key of %s: %v", name, err)
			}
			p := provision(t, b, f.clk, k, "orders", "in_1")
			if err := greet(t, b, p, p); err != nil {
				t.Errorf("a key of %s: %v", name, err)
			}
		}
		if _, err := f.recover(conf); err == nil || !strings.Contains(err.Error(), "nothing to recover") {
			t.Errorf("a second time: %v", err)
		}
		// It goes on as any other root does.
		until(t, f, b, identity.Distributing)
		until(t, f, b, identity.Steady)
		if err := pinned(t, b, f, k); err != nil {
			t.Errorf("a rotation later: %v", err)
		}
	})
}

// TestRecoverWhatIsLost: private keys that are missing or damaged.
func TestRecoverWhatIsLost(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, test := range map[string]struct {
		harm     func(t *testing.T, f *fixture)
		rotating bool
		keysGood bool
		alive    bool // certificates of before are believed, until they end
		want     []string
	}{
		"root lost": {
			harm: func(t *testing.T, f *fixture) { must(t, f.vault.Delete(ctx, "root.pem")) },
			want: []string{"its private key root.pem: is missing", "a new root", "telford keys rotate ID"}, alive: true,
		},
		"root damaged": {
			harm: func(t *testing.T, f *fixture) { must(t, f.vault.Replace(ctx, "root.pem", []byte("x"))) },
			want: []string{"root.pem: is damaged", "no key printed before will provision"}, alive: true,
		},
		"root of another cluster": {
			harm: func(t *testing.T, f *fixture) {
				other := newFixture(newMemory())
				other.open(t)
				secret, err := other.vault.Load(ctx, "root.pem")
				must(t, err)
				must(t, f.vault.Replace(ctx, "root.pem", secret))
			},
			want: []string{"is that of another cluster"}, alive: true,
		},
		"root lost while the next is there": {
			harm:     func(t *testing.T, f *fixture) { must(t, f.vault.Delete(ctx, "root.pem")) },
			rotating: true, keysGood: true, alive: true, want: []string{"which was prepared, takes over", "services need nothing"},
		},
		"both lost": {
			harm: func(t *testing.T, f *fixture) {
				must(t, f.vault.Delete(ctx, "root.pem"))
				must(t, f.vault.Delete(ctx, "root.2.pem"))
			},
			rotating: true, alive: true, want: []string{"is missing", "a new root"},
		},
		"next lost and the root expired": {
			harm: func(t *testing.T, f *fixture) {
				must(t, f.vault.Delete(ctx, "root.2.pem"))
				f.clk.Leap(101 * hours)
			},
			rotating: true, keysGood: true, want: []string{"expired at", "a new root", "without an end"},
		},
		"issuer lost": {
			harm:     func(t *testing.T, f *fixture) { must(t, f.vault.Delete(ctx, "issuer.pem")) },
			keysGood: true, alive: true, want: []string{"the issuer issuer.pem is missing", "a new issuer"},
		},
		"issuer damaged": {
			harm:     func(t *testing.T, f *fixture) { must(t, f.vault.Replace(ctx, "issuer.pem", []byte("x"))) },
			keysGood: true, alive: true, want: []string{"the issuer issuer.pem is damaged"},
		},
		"issuer expired": {
			harm:     func(_ *testing.T, f *fixture) { f.clk.Leap(31 * hours) },
			keysGood: true, want: []string{"the issuer expired at"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(newMemory())
			a := f.open(t, short)
			k := serviceKey(t, a, "orders")
			p := provision(t, a, f.clk, k, "orders", "in_1")
			if test.rotating {
				if _, err := a.RotateRoot(ctx, false); err != nil {
					t.Fatal(err)
				}
			}
			test.harm(t, f)
			out, err := f.recover(short)
			if err != nil {
				t.Fatal(err)
			}
			said := strings.Join(append(out.Done, out.Next...), "\n")
			for _, want := range test.want {
				if !strings.Contains(said, want) {
					t.Errorf("it does not say %q:\n%s", want, said)
				}
			}
			b := f.open(t, short)
			if err := b.Start(ctx); err != nil {
				t.Fatal(err)
			}
			if out.KeysGood != test.keysGood {
				t.Errorf("keys are good: %t", out.KeysGood)
			}
			if err := pinned(t, b, f, k); (err == nil) != test.keysGood {
				t.Errorf("the key of before: %v", err)
			}
			if _, err := b.Renew(ctx, p.trust.Identity(), request(t, ecdsaKey(t, nil))); (err == nil) != test.alive {
				t.Errorf("renewing the certificate of before: %v", err)
			}
			q := provision(t, b, f.clk, serviceKey(t, b, "orders"), "orders", "in_2")
			if err := greet(t, b, q, q); err != nil {
				t.Error(err)
			}
			until(t, f, b, identity.Steady)
			until(t, f, b, identity.Distributing) // and goes on
		})
	}
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// TestRecoverRefuses: what is no case for it, and what would lose something.
func TestRecoverRefuses(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		prepare func(t *testing.T, f *fixture)
		conf    func(*identity.Config)
		code    errs.Code
		want    []string
	}{
		"no cluster": {
			prepare: func(*testing.T, *fixture) {}, code: errs.FailedPrecondition, want: []string{"there is no cluster here", "telford serve"},
		},
		"nothing wrong": {
			prepare: func(t *testing.T, f *fixture) { f.open(t) },
			code:    errs.FailedPrecondition, want: []string{"nothing to recover", "2041-04-28"},
		},
		"a node that lives": {
			prepare: func(t *testing.T, f *fixture) {
				f.open(t, short, func(cfg *identity.Config) { cfg.Shared = true })
				f.clk.Leap(2 * time.Minute)
				must(t, f.vault.Delete(context.Background(), "root.pem"))
			},
			conf: func(cfg *identity.Config) { cfg.Shared = true },
			code: errs.FailedPrecondition, want: []string{"a runtime has used this database at 2031-05-01T12:00:00Z", "stop every node", "2031-05-01T12:03:00Z"},
		},
		"another secret": {
			prepare: func(t *testing.T, f *fixture) {
				f.open(t, short, func(cfg *identity.Config) { cfg.ClusterSecret = secret })
				f.clk.Leap(1000 * hours)
			},
			conf: func(cfg *identity.Config) { cfg.ClusterSecret = secret + "!" },
			code: errs.FailedPrecondition, want: []string{"TELFORD_CLUSTER_SECRET is not the secret"},
		},
		"a vault that cannot be read": {
			prepare: func(t *testing.T, f *fixture) {
				f.open(t, short)
				f.clk.Leap(1000 * hours)
			},
			conf: func(cfg *identity.Config) {
				cfg.Vault = &failingRoot{Vault: cfg.Vault}
			},
			code: errs.Internal, want: []string{"load root.pem", "the disk is gone"},
		},
		"a damaged state": {
			prepare: func(t *testing.T, f *fixture) {
				f.open(t, short)
				must(t, f.store.Write(context.Background(), func(t2 tx.Tx) error { return f.store.PutMeta(t2, "identity.hierarchy", []byte("{}")) }))
			},
			code: errs.FailedPrecondition, want: []string{"the state of the certificates in the database is damaged", "restore it from a backup"},
		},
		"a newer state": {
			prepare: func(t *testing.T, f *fixture) {
				f.open(t, short)
				must(t, f.store.Write(context.Background(), func(t2 tx.Tx) error {
					return f.store.PutMeta(t2, "identity.hierarchy", []byte(`{"format":2}`))
				}))
			},
			code: errs.FailedPrecondition, want: []string{"format 2", "newer version"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(newMemory())
			test.prepare(t, f)
			if test.conf == nil {
				test.conf = func(*identity.Config) {}
			}
			_, err := f.recover(test.conf)
			wantError(t, err, test.code, test.want...)
		})
	}
}

// failingRoot cannot read the root.
type failingRoot struct{ identity.Vault }

func (v *failingRoot) Load(ctx context.Context, name string) ([]byte, error) {
	if strings.HasPrefix(name, "root") {
		return nil, errors.New("the disk is gone")
	}
	return v.Vault.Load(ctx, name)
}

// TestRecoverKilled: whatever part of it was done, it can be said again.
func TestRecoverKilled(t *testing.T) {
	t.Parallel()
	for point := 0; ; point++ {
		dead := 0
		for _, after := range []bool{false, true} {
			f := newFixture(newMemory())
			a := f.open(t, short)
			k := serviceKey(t, a, "orders")
			f.clk.Leap(1000 * hours)
			m := &mortal{steps: point, after: after}
			if _, err := f.recover(short, func(cfg *identity.Config) {
				cfg.DB, cfg.Vault = mortalDB{m, f.store}, mortalVault{m, f.vault}
			}); err != nil {
				dead++
			}
			if _, err := f.recover(short); err != nil && !strings.Contains(err.Error(), "nothing to recover") {
				t.Errorf("killed at %q, after=%t: %v", m.done, after, err)
			}
			b := f.open(t, short)
			if err := pinned(t, b, f, k); err != nil {
				t.Errorf("killed at %q, after=%t: %v", m.done, after, err)
			}
		}
		if dead == 0 {
			if point < 3 {
				t.Errorf("%d durable steps", point)
			}
			return
		}
	}
}
