package registry

import (
	"context"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
)

// doubtful is a bench whose store reads the registry again after an unknown outcome.
func doubtful(t *testing.T) *bench {
	t.Helper()
	b := newBench(t)
	b.store.reload = func(ctx context.Context) error { return b.Reload(ctx) }
	return b
}

// unknown has f run while the store cannot say whether its write was done.
func (b *bench) unknown(committed bool, f func() error) {
	b.t.Helper()
	b.store.set(tx.ErrOutcomeUnknown, committed)
	if err := f(); errs.CodeOf(err) != errs.Unavailable {
		b.t.Fatal("want unavailable, got", err)
	}
	b.store.set(nil, false)
}

func (b *bench) reload() {
	b.t.Helper()
	if err := b.Reload(context.Background()); err != nil {
		b.t.Fatal(err)
	}
	b.store.stale = false
}

func TestReloadFindsWhatWasCommitted(t *testing.T) {
	t.Parallel()
	b := doubtful(t)
	ctx := context.Background()
	b.register("in_1", "payments")
	b.register("in_2", "payments")
	end, _ := b.Session("default", "in_1")
	w := b.Watch("default", nil, catalog.Revision{})
	defer w.Close()
	next(t, w)

	b.clock.Advance(30 * time.Second)
	b.unknown(true, func() error {
		_, _, err := b.Register(ctx, owner("in_3", "orders"), &catalog.Declaration{Version: "2"})
		return err
	})
	b.unknown(true, func() error { return b.Drain(ctx, "default", "in_1", true) })
	b.unknown(true, func() error { return b.Deregister(ctx, "default", "in_2", catalog.Operator) })
	if !b.has("in_2") {
		t.Fatal("gone before anybody knew")
	}
	b.reload()
	if b.has("in_2") || !b.has("in_3") {
		t.Fatalf("listed: %v", ids(b.List(Filter{})))
	}
	if got := ids(b.Candidates("default", "orders")); !gocmp.Equal(got, []string{"in_3"}) {
		t.Errorf("candidates: %v", got)
	}
	u := next(t, w)
	if u.Snapshot || !gocmp.Equal(ids(u.Upserts), []string{"in_3", "in_1"}) || len(u.Removals) != 1 ||
		u.Removals[0].ID != "in_2" || u.Removals[0].Reason != catalog.Operator {
		t.Errorf("told %+v", u)
	}
	if i := u.Upserts[1]; !i.Draining || !i.Reachable {
		t.Errorf("told %+v", i)
	}
	// Its session is the one it had.
	end()
	if i, _ := b.Get("default", "in_1"); i.Reachable {
		t.Error("the session has become another one")
	}
	// The lease that was running goes on; the one that only the store had begins now.
	b.Reach("default", "in_1", false)
	b.pass(89 * time.Second)
	if !b.has("in_1") || !b.has("in_3") {
		t.Fatal("gone within the lease")
	}
	b.pass(2 * time.Second)
	if b.has("in_3") {
		t.Fatal("the lease does not end")
	}
	next(t, w)
	b.reload()
	silent(t, w)
}

func TestReloadFindsWhatWasNotCommitted(t *testing.T) {
	t.Parallel()
	b := doubtful(t)
	ctx := context.Background()
	b.register("in_1", "payments")
	w := b.Watch("default", nil, catalog.Revision{})
	defer w.Close()
	next(t, w)
	b.clock.Advance(30 * time.Second)
	b.unknown(false, func() error { return b.Deregister(ctx, "default", "in_1", catalog.Operator) })
	b.unknown(false, func() error {
		_, _, err := b.Register(ctx, owner("in_2", "orders"), &catalog.Declaration{})
		return err
	})
	b.reload()
	silent(t, w)
	if got := ids(b.List(Filter{})); !gocmp.Equal(got, []string{"in_1"}) {
		t.Fatalf("listed: %v", got)
	}
	b.pass(59 * time.Second)
	if !b.has("in_1") {
		t.Fatal("gone within its lease")
	}
	b.pass(3 * time.Second)
	if b.has("in_1") {
		t.Fatal("its lease became longer")
	}
}

// TestReloadSettlesLeasesThatWereEnding: who is still in the store is as alive as its
// lease says, who is not has gone.
func TestReloadSettlesLeasesThatWereEnding(t *testing.T) {
	t.Parallel()
	for _, committed := range []bool{true, false} {
		b := doubtful(t)
		b.register("in_1", "payments")
		b.store.set(tx.ErrOutcomeUnknown, committed)
		b.pass(95 * time.Second)
		b.store.set(nil, false)
		if !b.has("in_1") || b.Touch("default", "in_1") {
			t.Fatal("settled before it could be known")
		}
		b.register("in_9", "orders") // any write has the store ask for it
		if b.has("in_1") == committed {
			t.Fatalf("committed %t: in memory %t", committed, !committed)
		}
		if b.Touch("default", "in_1") == committed {
			t.Fatalf("committed %t: Touch says otherwise", committed)
		}
		stones, err := b.Tombstones(context.Background(), Filter{})
		if err != nil || (len(stones) == 1) != committed {
			t.Fatalf("committed %t: tombstones %v, %v", committed, stones, err)
		}
	}
}

// TestNothingIsWrittenFromWhatMemoryNoLongerSays: a write that was prepared before the
// memory was read again is prepared again.
func TestNothingIsWrittenFromWhatMemoryNoLongerSays(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	drained := func(b *bench) {
		b.register("in_1", "payments")
		b.unknown(true, func() error { return b.Drain(ctx, "default", "in_1", true) })
	}
	t.Run("register", func(t *testing.T) {
		t.Parallel()
		b := doubtful(t)
		drained(b)
		b.register("in_1", "payments", func(d *catalog.Declaration) { d.Version = "2" })
		row, _ := b.store.row("default", "in_1")
		if i, _ := b.Get("default", "in_1"); !row.Draining || row.Revision != 3 || !i.Draining || i.Declaration.Version != "2" {
			t.Errorf("the operator's word was lost: %+v, %+v", row, i)
		}
	})
	t.Run("status", func(t *testing.T) {
		t.Parallel()
		b := doubtful(t)
		drained(b)
		if err := b.SetStatus(ctx, "default", "in_1", catalog.Warning, ""); err != nil {
			t.Fatal(err)
		}
		if row, _ := b.store.row("default", "in_1"); !row.Draining || row.Revision != 3 {
			t.Errorf("the operator's word was lost: %+v", row)
		}
	})
	t.Run("deregister", func(t *testing.T) {
		t.Parallel()
		b := doubtful(t)
		b.register("in_1", "payments")
		b.unknown(true, func() error { return b.Deregister(ctx, "default", "in_1", catalog.Operator) })
		wantCode(t, b.Deregister(ctx, "default", "in_1", catalog.Deregistered), errs.NotFound)
		if stones, err := b.Tombstones(ctx, Filter{}); err != nil || len(stones) != 1 || stones[0].Reason != catalog.Operator {
			t.Errorf("tombstones %v, %v", stones, err)
		}
	})
	t.Run("expire", func(t *testing.T) {
		t.Parallel()
		b := doubtful(t)
		b.register("in_1", "payments")
		b.clock.Advance(95 * time.Second)
		b.unknown(true, func() error { return b.Deregister(ctx, "default", "in_1", catalog.Operator) })
		b.pass(time.Second)
		b.pass(expiryRetry)
		if stones, err := b.Tombstones(ctx, Filter{}); err != nil || len(stones) != 1 || stones[0].Reason != catalog.Operator {
			t.Errorf("tombstones %v, %v", stones, err)
		}
		if b.leases.Len() != 0 {
			t.Errorf("%d leases are left", b.leases.Len())
		}
	})
}

func TestReloadKeepsWhatItCannotRead(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.register("in_1", "payments")
	k := key{"default", "in_1"}
	row := b.store.rows[k]
	row.Declaration = []byte("{")
	b.store.rows[k] = row
	b.reload()
	if i, err := b.Get("default", "in_1"); err != nil || len(i.Declaration.Methods) != 2 {
		t.Errorf("%+v, %v", i, err)
	}
}
