package identity_test

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/tx"
)

var errDead = errors.New("the process was killed")

// mortal is a process that is killed at one of its durable steps: in front of it, or
// behind it without learning that it was done. Nothing of it works afterwards.
type mortal struct {
	mu    sync.Mutex
	steps int // until it is killed, negative for never
	after bool
	dead  bool
	done  []string
}

func (m *mortal) alive() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.dead {
		return errDead
	}
	return nil
}

func (m *mortal) step(name string, do func() error) error {
	m.mu.Lock()
	if m.dead {
		m.mu.Unlock()
		return errDead
	}
	last := m.steps == 0
	m.steps--
	m.done = append(m.done, name)
	m.dead = last
	m.mu.Unlock()
	if last && !m.after {
		return errDead
	}
	err := do()
	if last {
		return errDead
	}
	return err
}

type mortalVault struct {
	*mortal
	identity.Vault
}

func (v mortalVault) Load(ctx context.Context, name string) ([]byte, error) {
	if err := v.alive(); err != nil {
		return nil, err
	}
	return v.Vault.Load(ctx, name)
}

func (v mortalVault) Create(ctx context.Context, name string, secret []byte) error {
	return v.step("create "+name, func() error { return v.Vault.Create(ctx, name, secret) })
}

func (v mortalVault) Replace(ctx context.Context, name string, secret []byte) error {
	return v.step("replace "+name, func() error { return v.Vault.Replace(ctx, name, secret) })
}

func (v mortalVault) Delete(ctx context.Context, name string) error {
	return v.step("delete "+name, func() error { return v.Vault.Delete(ctx, name) })
}

type mortalDB struct {
	*mortal
	tx.DB
}

func (d mortalDB) Read(ctx context.Context, f func(tx.Tx) error) error {
	if err := d.alive(); err != nil {
		return err
	}
	return d.DB.Read(ctx, f)
}

func (d mortalDB) Write(ctx context.Context, f func(tx.Tx) error) error {
	return d.step("write", func() error { return d.DB.Write(ctx, f) })
}

// TestKilledBetweenTwoSteps kills the runtime at every durable step of a rotation, and
// between any two: vault written and store not, the reverse, and done without knowing. A
// fresh runtime over what is there completes the rotation, and nothing is lost.
func TestKilledBetweenTwoSteps(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, f *fixture) {
		ctx := context.Background()
		vault := func(db tx.DB, m *mortal) identity.Vault { // files
			return mortalVault{m, f.vault}
		}
		dir := filepath.Join(t.TempDir(), "pki")
		f.vault = identity.NewFileVault(dir, "")
		if strings.HasSuffix(t.Name(), "postgres") {
			vault = func(db tx.DB, m *mortal) identity.Vault { // steps of it are writes of the store
				v, err := identity.NewMetaVault(db, f.store, secret)
				if err != nil {
					t.Fatal(err)
				}
				return v
			}
		}
		with := func(m *mortal) func(*identity.Config) {
			return func(cfg *identity.Config) {
				db := mortalDB{m, f.store}
				cfg.DB, cfg.Vault, cfg.ClusterSecret, cfg.Shared = db, vault(db, m), "", false
				if _, meta := cfg.Vault.(*identity.MetaVault); meta {
					cfg.ClusterSecret = secret
				}
			}
		}
		f.open(t, short, with(&mortal{steps: -1}))
		kills := 0
		for point := 0; ; point++ {
			survived := false
			for _, after := range []bool{false, true} {
				m := &mortal{steps: -1, after: after}
				a := f.open(t, short, with(m))
				k := serviceKey(t, a, "orders")
				before := a.Roots()[0]
				p := provision(t, a, f.clk, k, "orders", "in_1")
				m.mu.Lock()
				m.steps, m.done = point, nil
				m.mu.Unlock()
				drive(t, f, a, m)
				_ = a.Stop(ctx)
				where := fmt.Sprintf("%q, after=%t", m.done, after)

				b := f.open(t, short, with(&mortal{steps: -1}))
				if err := b.Start(ctx); err != nil {
					t.Fatal(err)
				}
				if p.trust.Identity().NotAfter.After(f.clk.Now()) {
					// It was provisioned before, and is still believed.
					if err := greet(t, b, p, p); err != nil {
						t.Errorf("%s: %v", where, err)
					}
				}
				if !m.dead {
					survived = true
				} else {
					kills++
				}
				if b.PKI().Phase == identity.Steady && b.Roots()[0].Equal(before) { // it had not begun
					if _, err := b.RotateRoot(ctx, false); err != nil {
						t.Fatal(where, err)
					}
				}
				until(t, f, b, identity.Steady)
				if b.Roots()[0].Equal(before) {
					t.Errorf("%s: the root is the old one", where)
				}
				if err := pinned(t, b, f, k); err != nil {
					t.Errorf("%s: a key of before: %v", where, err)
				}
				q := provision(t, b, f.clk, k, "orders", "in_2")
				if err := greet(t, b, q, q); err != nil {
					t.Errorf("%s: %v", where, err)
				}
				spki, _ := b.SigningRoot()
				if !q.trust.Under(spki) || !b.Trust().Under(spki) {
					t.Errorf("%s: not below the new root", where)
				}
				for _, c := range b.PKI().Certificates {
					if c.State != "former" && c.DaysLeft < 0 {
						t.Errorf("%s: %+v has expired", where, c)
					}
				}
				if files, err := filepath.Glob(filepath.Join(dir, "root*.pem")); err != nil || len(files) > 1 {
					t.Errorf("%s: private keys %q are left, %v", where, files, err)
				}
				if err := b.Stop(ctx); err != nil {
					t.Error(err)
				}
			}
			if survived {
				break
			}
		}
		if kills < 12 {
			t.Errorf("%d crash points, want at least those of 6 steps", kills)
		}
		t.Log(kills, "crash points")
	})
}

// drive runs a rotation until its end or that of the process.
func drive(t *testing.T, f *fixture, a *identity.Authority, m *mortal) {
	t.Helper()
	ctx := context.Background()
	dead := func() bool { return m.alive() != nil }
	if _, err := a.RotateRoot(ctx, false); err != nil {
		if !dead() {
			t.Fatal(err)
		}
		return
	}
	if err := a.Start(ctx); err != nil {
		t.Fatal(err)
	}
	var phases []identity.Phase
	for !dead() {
		phase := a.PKI().Phase
		if len(phases) == 0 || phases[len(phases)-1] != phase {
			phases = append(phases, phase)
		}
		if phase == identity.Steady {
			if diff := cmp.Diff([]identity.Phase{identity.Distributing, identity.Signing, identity.Steady}, phases); diff != "" {
				t.Error(diff)
			}
			return
		}
		f.clk.Leap(30 * time.Minute)
	}
}
