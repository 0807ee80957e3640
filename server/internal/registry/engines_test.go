package registry_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/store"
	"telford.dev/telford/server/internal/store/engine"
	"telford.dev/telford/server/internal/store/storetest"
	"telford.dev/telford/server/internal/tx"
)

// TestOnBothEngines lives through a day of a registry on each real store.
func TestOnBothEngines(t *testing.T) {
	t.Parallel()
	onEngines(t, day)
}

// onEngines runs a test on each real store.
func onEngines(t *testing.T, f func(*testing.T, *store.Store)) {
	t.Helper()
	for name, cfg := range map[string]func(*testing.T) store.Config{
		"sqlite":   func(t *testing.T) store.Config { return store.Config{Data: t.TempDir(), Fast: true} },
		"postgres": func(t *testing.T) store.Config { return store.Config{URL: storetest.Postgres(t)} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := store.Open(t.Context(), cfg(t))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				if err := s.Close(); err != nil {
					t.Error(err)
				}
			})
			f(t, s)
		})
	}
}

func day(t *testing.T, s *store.Store) {
	ctx := t.Context()
	// Finer than a microsecond, so that memory and store must agree on what is kept.
	now := clock.NewManual(time.Date(2026, 3, 1, 12, 0, 0, 123456789, time.UTC))
	open := func() *registry.Registry {
		t.Helper()
		r, err := registry.Open(ctx, registry.Config{DB: s, Storage: s, Clock: now, Zone: "z1"})
		if err != nil {
			t.Fatal(err)
		}
		if err := r.Start(ctx); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := r.Stop(context.Background()); err != nil {
				t.Error(err)
			}
		})
		return r
	}
	r := open()
	n := 50
	if os.Getenv("TELFORD_SOAK") == "1" {
		n = 5000
	}
	for i := range n {
		owner := registry.Owner{
			Namespace: fmt.Sprintf("ns%d", i%3), Instance: fmt.Sprintf("in_%d", i), Service: fmt.Sprintf("s%d", i%5), KeyID: "key_1", Door: "link",
		}
		_, _, err := r.Register(ctx, owner, &catalog.Declaration{
			Version: "1", Tags: []string{"a", "b"}, Metadata: map[string]string{"n": fmt.Sprint(i)}, Descriptors: []byte{0, 1, 255},
			Methods: []catalog.Method{{Name: "shop.v1.S/M"}, {Name: "plain", Kind: catalog.ServerStream}}, TTL: 90*time.Second + 1,
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := r.SetStatus(ctx, "ns0", "in_0", catalog.Offline, "resting"); err != nil {
		t.Fatal(err)
	}
	if err := r.Drain(registry.WithAuthor(ctx, "operator:ann"), "ns0", "in_3", true); err != nil {
		t.Fatal(err)
	}
	if err := r.Deregister(ctx, "ns1", "in_1", catalog.Operator); err != nil {
		t.Fatal(err)
	}
	before := r.List(registry.Filter{})
	if len(before) != n-1 {
		t.Fatalf("%d instances", len(before))
	}
	epoch := r.Epoch()

	// A restart changes nothing but the epoch.
	if err := r.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	r = open()
	if diff := cmp.Diff(asJSON(t, before), asJSON(t, r.List(registry.Filter{}))); diff != "" {
		t.Fatal(diff)
	}
	if r.Epoch() <= epoch {
		t.Fatalf("epoch %d after %d", r.Epoch(), epoch)
	}
	if got := r.ServicesWithMethod("ns2", "shop.v1.S"); len(got) != 5 {
		t.Fatalf("services %v", got)
	}

	// One is heard of, the others are gone after their leases.
	deadline := time.Now().Add(20 * time.Second)
	for len(r.List(registry.Filter{})) > 1 {
		if time.Now().After(deadline) {
			t.Fatal("the leases do not end")
		}
		now.Advance(5 * time.Second)
		r.ConfirmExpiry("") // they are too many to go unasked
		if !r.Touch("ns2", "in_2") {
			t.Fatal("gone within its lease")
		}
	}
	stones, err := r.Tombstones(ctx, registry.Filter{})
	if err != nil || len(stones) != n-1 {
		t.Fatalf("%d tombstones, %v", len(stones), err)
	}
	if stones[0].ID != "in_1" || stones[0].Reason != catalog.Operator || stones[1].Reason != catalog.Expired {
		t.Fatalf("%+v", stones[:2])
	}
	if err := r.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	r = open()
	left := r.List(registry.Filter{})
	if len(left) != 1 || left[0].ID != "in_2" {
		t.Fatalf("stored: %v", left)
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.MarshalIndent(v, "", " ")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// doubt is a store that may be told to forget how the next writes ended.
type doubt struct {
	*store.Store
	on bool
}

// silentTx is a transaction after which nobody is told.
type silentTx struct{ engine.Tx }

func (silentTx) AfterCommit(func()) {}

func (d *doubt) Write(ctx context.Context, f func(tx.Tx) error) error {
	if !d.on {
		return d.Store.Write(ctx, f)
	}
	err := d.Store.Write(ctx, func(t tx.Tx) error { return f(silentTx{t.(engine.Tx)}) })
	if err == nil {
		err = tx.ErrOutcomeUnknown
	}
	return err
}

// TestReloadOnBothEngines: after outcomes that were unknown the registry says what the
// store says.
func TestReloadOnBothEngines(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, s *store.Store) {
		ctx := t.Context()
		db := &doubt{Store: s}
		open := func(db tx.DB) *registry.Registry {
			t.Helper()
			r, err := registry.Open(ctx, registry.Config{DB: db, Storage: s, Zone: "z1"})
			if err != nil {
				t.Fatal(err)
			}
			return r
		}
		r := open(db)
		register := func(id, version string) error {
			_, _, err := r.Register(ctx, registry.Owner{Namespace: "default", Instance: id, Service: "payments", KeyID: "key_1", Door: "link"},
				&catalog.Declaration{Version: version, Methods: []catalog.Method{{Name: "shop.v1.S/M"}}, Descriptors: []byte{1}})
			return err
		}
		for _, id := range []string{"in_1", "in_2", "in_3"} {
			if err := register(id, "1"); err != nil {
				t.Fatal(err)
			}
		}
		db.on = true
		for what, err := range map[string]error{
			"new": register("in_4", "1"), "newer": register("in_1", "2"),
			"drain":      r.Drain(ctx, "default", "in_2", true),
			"deregister": r.Deregister(ctx, "default", "in_3", catalog.Operator),
		} {
			if errs.CodeOf(err) != errs.Unavailable {
				t.Errorf("%s: %v", what, err)
			}
		}
		db.on = false
		if err := r.Reload(ctx); err != nil {
			t.Fatal(err)
		}
		want := open(s) // what a restart finds
		if diff := cmp.Diff(asJSON(t, want.List(registry.Filter{})), asJSON(t, r.List(registry.Filter{}))); diff != "" {
			t.Error(diff)
		}
		if n := r.Revision().N; n != 7 {
			t.Errorf("%d deltas, want 3 and then 4", n)
		}
		if err := r.Reload(ctx); err != nil || r.Revision().N != 7 {
			t.Errorf("a second time: %d deltas, %v", r.Revision().N, err)
		}
	})
}
