package identity_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/tx"
)

const hours = time.Hour

// short are lives of which many fit into a test: a rotation begins after 66 hours.
func short(cfg *identity.Config) {
	cfg.RootLife, cfg.IssuerLife, cfg.LeafLife = 100*hours, 30*hours, 5*hours
}

// pinned lets a process that has only a key meet the runtime.
func pinned(t testing.TB, a *identity.Authority, f *fixture, k ident.Key) error {
	t.Helper()
	_, serverErr, clientErr := meet(t, a.Trust().ServerConfig("h2"), withProto(ident.PinnedConfig(k, f.clk)))
	return errors.Join(serverErr, clientErr)
}

// greet lets a process meet the runtime and another process, in both directions.
func greet(t testing.TB, a *identity.Authority, p, q *process) error {
	t.Helper()
	var all error
	for _, pair := range []struct {
		server, client *ident.Trust
		expect         ident.Expect
	}{
		{a.Trust(), p.trust, ident.Expect{Runtime: true}},
		{p.trust, a.Trust(), ident.Expect{Instance: p.trust.Identity().Instance}},
		{q.trust, p.trust, ident.Expect{Instance: q.trust.Identity().Instance}},
		{p.trust, q.trust, ident.Expect{Instance: p.trust.Identity().Instance}},
	} {
		_, serverErr, clientErr := meet(t, pair.server.ServerConfig("telford/1"), pair.client.ClientConfig(pair.expect, "telford/1"))
		if err := errors.Join(serverErr, clientErr); err != nil {
			all = errors.Join(all, fmt.Errorf("%s to %s: %w", pair.client.Identity().Instance, pair.server.Identity().Instance, err))
		}
	}
	return all
}

// until advances the clock until the phase is there.
func until(t testing.TB, f *fixture, a *identity.Authority, phase identity.Phase) {
	t.Helper()
	for range 1000 {
		if a.PKI().Phase == phase {
			return
		}
		f.clk.Leap(10 * time.Minute)
	}
	t.Fatalf("no phase %s within 1000 steps; it is %+v", phase, a.PKI())
}

// secrets lists the private keys of roots in the vault.
func secrets(t testing.TB, v identity.Vault) []string {
	t.Helper()
	var names []string
	for _, name := range []string{"root.pem", "root.2.pem", "root.3.pem", "root.4.pem", "root.5.pem"} {
		if _, err := v.Load(context.Background(), name); err == nil {
			names = append(names, name)
		} else if !errors.Is(err, tx.ErrNotFound) {
			t.Error(err)
		}
	}
	return names
}

// TestRotation follows one root after another through their phases: who knows only the
// old one, who knows only the new one, who renews and who has nothing but a key that was
// printed before all of it.
func TestRotation(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, f *fixture) {
		a := f.open(t, short)
		if err := a.Start(context.Background()); err != nil {
			t.Fatal(err)
		}
		first := serviceKey(t, a, "orders")
		var heard int
		cancel := a.OnRoots(func() { heard++ })
		defer cancel()
		var names []string
		for round := 1; round <= 4; round++ {
			before := a.Roots()[0]
			status := a.PKI()
			if status.Phase != identity.Steady || !status.NextAt.IsZero() || status.RotateAt.Before(f.clk.Now()) {
				t.Fatalf("round %d: %+v", round, status)
			}
			// Automatic at two thirds.
			f.clk.Leap(status.RotateAt.Sub(f.clk.Now()) - time.Minute)
			if a.PKI().Phase != identity.Steady {
				t.Errorf("round %d: too early", round)
			}
			old := provision(t, a, f.clk, first, "orders", "in_old") // knows only the old root
			f.clk.Leap(2 * time.Minute)
			if status = a.PKI(); status.Phase != identity.Distributing || len(a.Roots()) != 2 {
				t.Fatalf("round %d: at two thirds: %+v", round, status)
			}
			both := provision(t, a, f.clk, first, "orders", "in_both")
			// Who was provisioned by another node that is ahead knows only the new root.
			ahead := provision(t, a, f.clk, first, "orders", "in_ahead")
			ahead.trust.SetRoots(a.Roots()[1:])
			if err := errors.Join(greet(t, a, old, both), greet(t, a, both, ahead), pinned(t, a, f, first), pinned(t, a, f, serviceKey(t, a, "x"))); err != nil {
				t.Errorf("round %d: distributing: %v", round, err)
			}

			late := provision(t, a, f.clk, first, "orders", "in_late")
			until(t, f, a, identity.Signing)
			if since := a.PKI().Since.Sub(status.Since); since < 5*hours+30*time.Minute {
				t.Errorf("round %d: the new root signs after %s, before every leaf knew of it", round, since)
			}
			if _, within := a.SigningRoot(); within <= 0 || within > 5*hours/2 {
				t.Errorf("round %d: leaves are to be renewed within %s", round, within)
			}
			if late.trust.Identity().NotAfter.After(f.clk.Now()) {
				t.Errorf("round %d: a leaf of before is alive", round)
			}
			fresh := provision(t, a, f.clk, first, "orders", "in_fresh")
			spki, _ := a.SigningRoot()
			if !fresh.trust.Under(spki) || both.trust.Under(spki) || !a.Trust().Under(spki) {
				t.Errorf("round %d: signed by the wrong root", round)
			}
			// Somebody who slept through the distribution trusts the old root alone.
			asleep := provision(t, a, f.clk, first, "orders", "in_asleep")
			asleep.trust.SetRoots([]*x509.Certificate{before})
			knowsNew := provision(t, a, f.clk, first, "orders", "in_new")
			knowsNew.trust.SetRoots(a.Roots()[1:])
			if err := errors.Join(greet(t, a, asleep, fresh), greet(t, a, knowsNew, asleep), pinned(t, a, f, first), pinned(t, a, f, serviceKey(t, a, "y"))); err != nil {
				t.Errorf("round %d: signing: %v", round, err)
			}

			until(t, f, a, identity.Steady)
			if roots := a.Roots(); len(roots) != 1 || roots[0].Equal(before) {
				t.Errorf("round %d: %d roots at the end", round, len(roots))
			}
			latest := provision(t, a, f.clk, first, "orders", "in_latest")
			if err := errors.Join(greet(t, a, latest, latest), pinned(t, a, f, first)); err != nil {
				t.Errorf("round %d: steady again: %v", round, err)
			}
			names = secrets(t, f.vault)
			if want := []string{fmt.Sprintf("root.%d.pem", round+1)}; !cmp.Equal(want, names) {
				t.Errorf("round %d: private keys %q, want %q", round, names, want)
			}
			if d := a.Trust().Certificate().Leaf.NotAfter.Sub(f.clk.Now()); d <= 0 {
				t.Errorf("round %d: the runtime's own certificate ended %s ago", round, -d)
			}
		}
		if heard != 4*4 {
			t.Errorf("heard of %d changes, want 16", heard)
		}
		states := map[string]int{}
		for _, c := range a.PKI().Certificates {
			states[c.Role+" "+c.State]++
		}
		if diff := cmp.Diff(map[string]int{"root former": 4, "root active": 1, "issuer active": 1, "node active": 1}, states); diff != "" {
			t.Error(diff)
		}
		// All of it outlives a restart.
		again := f.open(t, short)
		if err := pinned(t, again, f, first); err != nil || !again.Roots()[0].Equal(a.Roots()[0]) {
			t.Errorf("after a restart: %v", err)
		}
	})
}

// TestRotateByHand: the verbs, and what is refused.
func TestRotateByHand(t *testing.T) {
	t.Parallel()
	f := newFixture(newMemory())
	ctx := context.Background()
	a := f.open(t, short)
	if err := a.Start(ctx); err != nil {
		t.Fatal(err)
	}
	k := serviceKey(t, a, "orders")
	p := provision(t, a, f.clk, k, "orders", "in_1")
	s, err := a.RotateRoot(ctx, false)
	if err != nil || s.Phase != identity.Distributing || !s.NextAt.After(f.clk.Now()) {
		t.Fatalf("%+v, %v", s, err)
	}
	_, err = a.RotateRoot(ctx, false)
	wantError(t, err, errs.FailedPrecondition, "a rotation is under way: distributing since 2031-05-01T12:00:00Z", "telford pki rotate-root --now")
	for _, want := range []identity.Phase{identity.Signing, identity.Steady, identity.Signing, identity.Steady} {
		if s, err = a.RotateRoot(ctx, true); err != nil || s.Phase != want {
			t.Fatalf("phase %s, want %s, %v", s.Phase, want, err)
		}
		if err := pinned(t, a, f, k); err != nil {
			t.Errorf("%s: %v", want, err)
		}
		_, serverErr, clientErr := meet(t, a.Trust().ServerConfig("telford/1"), p.trust.ClientConfig(ident.Expect{Runtime: true}, "telford/1"))
		switch {
		case want == identity.Signing && errors.Join(serverErr, clientErr) != nil:
			t.Errorf("who has not heard yet is refused: %v, %v", serverErr, clientErr)
		case want == identity.Steady && serverErr == nil:
			t.Error("a leaf below a retired root is believed")
		case want == identity.Steady:
			p = provision(t, a, f.clk, k, "orders", "in_1")
		}
	}
	if names := secrets(t, f.vault); !cmp.Equal(names, []string{"root.3.pem"}) {
		t.Errorf("private keys %q", names)
	}
}

// TestManyRotations: beyond the ten that are remembered the oldest keys are refused, with
// a message that helps, and nothing grows.
func TestManyRotations(t *testing.T) {
	t.Parallel()
	f := newFixture(newMemory())
	ctx := context.Background()
	a := f.open(t)
	keys := []ident.Key{serviceKey(t, a, "orders")}
	const rotations = 12
	for range rotations {
		for range 2 {
			if _, err := a.RotateRoot(ctx, true); err != nil {
				t.Fatal(err)
			}
		}
		keys = append(keys, serviceKey(t, a, "orders"))
	}
	for i, k := range keys {
		err := pinned(t, a, f, k)
		if remembered := i >= rotations-10; remembered != (err == nil) {
			t.Errorf("a key of %d rotations ago: %v", rotations-i, err)
		}
	}
	if n := len(a.Trust().Certificate().Certificate); n > 32 {
		t.Errorf("a chain of %d certificates", n)
	}
}

// TestTheNextRootIsLost: nothing was signed with it, so that another takes its place.
func TestTheNextRootIsLost(t *testing.T) {
	t.Parallel()
	f := newFixture(newMemory())
	ctx := context.Background()
	a := f.open(t, short)
	if _, err := a.RotateRoot(ctx, false); err != nil {
		t.Fatal(err)
	}
	if err := f.vault.Delete(ctx, "root.2.pem"); err != nil {
		t.Fatal(err)
	}
	k := serviceKey(t, a, "orders")
	if s, err := a.RotateRoot(ctx, true); err != nil || s.Phase != identity.Distributing {
		t.Fatalf("%+v, %v", s.Phase, err)
	}
	for _, want := range []identity.Phase{identity.Signing, identity.Steady} {
		if s, err := a.RotateRoot(ctx, true); err != nil || s.Phase != want {
			t.Fatalf("%+v, %v", s.Phase, err)
		}
	}
	if err := pinned(t, a, f, k); err != nil {
		t.Error(err)
	}
	if names := secrets(t, f.vault); !cmp.Equal(names, []string{"root.3.pem"}) {
		t.Errorf("private keys %q", names)
	}
}

// TestNodesRotateTogether: of several nodes each step is taken by one, all follow, and
// leaves of one that cannot ask the store get shorter, so that none outlives its root.
func TestNodesRotateTogether(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, f *fixture) {
		ctx := context.Background()
		var nodes []*identity.Authority
		for i := range 3 {
			n := f.open(t, short, func(cfg *identity.Config) { cfg.Shared, cfg.Node = true, fmt.Sprint("node_", i) })
			if err := n.Start(ctx); err != nil {
				t.Fatal(err)
			}
			nodes = append(nodes, n)
		}
		k := serviceKey(t, nodes[0], "orders")
		if err := nodes[1].Reload(ctx); err != nil {
			t.Fatal(err)
		}
		if err := nodes[2].Reload(ctx); err != nil {
			t.Fatal(err)
		}
		processes := make([]*process, len(nodes))
		seen := map[identity.Phase]bool{}
		for step := range 80 {
			f.clk.Leap(time.Hour)
			f.clk.Leap(time.Minute) // the others look again
			for i, n := range nodes {
				seen[n.PKI().Phase] = true
				if p := processes[i]; p == nil || f.clk.Now().After(p.trust.Identity().RenewAt()) {
					processes[i] = provision(t, n, f.clk, k, "orders", fmt.Sprint("in_", i))
				}
			}
			if step < 60 && step%20 > 0 { // nothing new can happen there
				continue
			}
			for i, n := range nodes {
				if err := greet(t, n, processes[(i+1)%3], processes[i]); err != nil {
					t.Fatalf("at %s, %s: %v", f.clk.Now(), n.PKI().Phase, err)
				}
			}
		}
		if !seen[identity.Distributing] || !seen[identity.Signing] {
			t.Errorf("phases %v", seen)
		}
		status := make([]identity.PKIStatus, 3)
		for i, n := range nodes {
			status[i] = n.PKI()
			status[i].Certificates = nil
		}
		if diff := cmp.Diff(status[0], status[1]) + cmp.Diff(status[0], status[2]); diff != "" {
			t.Error(diff)
		}
		if names := secrets(t, f.vault); len(names) == 0 || len(names) > 2 {
			t.Errorf("private keys %q", names)
		}
	})
}

// deafStore answers no question about the hierarchy while it is deaf.
type deafStore struct {
	*memory
	mu   sync.Mutex
	deaf bool
}

func (d *deafStore) Read(ctx context.Context, f func(tx.Tx) error) error {
	d.mu.Lock()
	deaf := d.deaf
	d.mu.Unlock()
	if deaf {
		return errors.New("the database is away")
	}
	return d.memory.Read(ctx, f)
}

// TestANodeWithoutItsStore: what it signs ends before the others retire the root below
// which it signs.
func TestANodeWithoutItsStore(t *testing.T) {
	t.Parallel()
	m := newMemory()
	f := newFixture(m)
	ctx := context.Background()
	shared := func(cfg *identity.Config) { cfg.Shared = true }
	a := f.open(t, short, shared)
	k := serviceKey(t, a, "orders")
	deaf := &deafStore{memory: m}
	b := f.open(t, short, shared, func(cfg *identity.Config) { cfg.DB, cfg.Node = deaf, "node_2" })
	if err := a.Start(ctx); err != nil {
		t.Fatal(err)
	}
	until(t, f, a, identity.Distributing)
	last := b.PKI().Phase
	provision(t, b, f.clk, k, "orders", "in_1")
	if b.PKI().Phase != identity.Distributing {
		t.Fatalf("signing does not look at the store: %s, before %s", b.PKI().Phase, last)
	}
	deaf.mu.Lock()
	deaf.deaf = true
	deaf.mu.Unlock()
	var latest time.Time
	for a.PKI().Phase != identity.Steady {
		f.clk.Leap(20 * time.Minute)
		private, csr, err := ident.NewRequest()
		if err != nil {
			t.Fatal(err)
		}
		issued, err := b.Provision(ctx, identity.ProvisionRequest{KeyID: k.ID, Secret: k.Secret[:], CSR: csr, Instance: "in_1"})
		if err != nil {
			wantError(t, err, errs.Unavailable, "the certificate would end at")
			continue
		}
		if _, err := ident.Certificate(issued.Chain, private); err != nil {
			t.Fatal(err)
		}
		latest = issued.Identity.NotAfter
	}
	if latest.IsZero() || latest.After(f.clk.Now()) {
		t.Errorf("a leaf below the retired root lives until %s, and it is %s", latest, f.clk.Now())
	}
}

// TestDevKeyOutlivesRotation: it stays the same, pinned to a former root.
func TestDevKeyOutlivesRotation(t *testing.T) {
	t.Parallel()
	f, data := newFixture(newMemory()), t.TempDir()
	conf := func(cfg *identity.Config) { cfg.Vault, cfg.Data, cfg.Dev = nil, data, true }
	a := f.open(t, conf)
	for range 2 {
		if _, err := a.RotateRoot(context.Background(), true); err != nil {
			t.Fatal(err)
		}
	}
	if b := f.open(t, conf); b.DevKey().String() != a.DevKey().String() {
		t.Error("another dev key after a rotation")
	} else if err := pinned(t, b, f, *b.DevKey()); err != nil {
		t.Error(err)
	}
}

// TestHostsDuringRotation: clients that verify host names by a copy of one root, as curl
// does, are served over the whole rotation by the copy of either.
func TestHostsDuringRotation(t *testing.T) {
	t.Parallel()
	f := newFixture(newMemory())
	ctx := context.Background()
	a := f.open(t)
	old := a.Roots()[0]
	try := func(phase string, roots ...*x509.Certificate) {
		t.Helper()
		for _, root := range roots {
			pool := x509.NewCertPool()
			pool.AddCert(root)
			plain := &tls.Config{RootCAs: pool, ServerName: "localhost", Time: f.clk.Now, NextProtos: []string{"h2"}}
			if _, serverErr, clientErr := meet(t, a.Trust().HTTPConfig("h2"), plain); serverErr != nil || clientErr != nil {
				t.Errorf("%s by %s: server %v, client %v", phase, root.Subject.CommonName, serverErr, clientErr)
			}
		}
	}
	if _, err := a.RotateRoot(ctx, false); err != nil {
		t.Fatal(err)
	}
	next := a.Roots()[1]
	try("distributing", old, next)
	for _, phase := range []string{"signing", "steady"} {
		if _, err := a.RotateRoot(ctx, true); err != nil {
			t.Fatal(err)
		}
		try(phase, old, next)
	}
}
