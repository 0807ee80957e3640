package registry

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
)

func (b *bench) has(id string) bool {
	_, err := b.Get("default", id)
	return err == nil
}

func TestLeaseRunsOutWithoutSignsOfLife(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.register("in_1", "payments")
	b.register("in_2", "payments", func(d *catalog.Declaration) { d.TTL = 5 * time.Second })
	b.pass(4900 * time.Millisecond)
	if !b.has("in_2") {
		t.Fatal("gone within its lease")
	}
	b.pass(time.Second)
	if b.has("in_2") {
		t.Fatal("not gone after its lease")
	}
	if b.Touch("default", "in_2") {
		t.Fatal("a sign of life of one that is gone must be refused")
	}
	for range 5 {
		b.pass(80 * time.Second)
		if !b.Touch("default", "in_1") {
			t.Fatal("gone although it was heard of")
		}
	}
	b.pass(91 * time.Second)
	if b.has("in_1") {
		t.Fatal("not gone after its lease")
	}
	got, err := b.Tombstones(context.Background(), Filter{Service: "payments"})
	if err != nil || len(got) != 2 || got[0].ID != "in_2" || got[0].Reason != catalog.Expired {
		t.Fatalf("%v %v", got, err)
	}
	if _, ok := b.store.row("default", "in_1"); ok {
		t.Fatal("the row is still there")
	}
	if s := b.Stats(); s.Expirations != 2 || s.Instances != 0 || b.leases.Len() != 0 {
		t.Fatalf("%+v, %d leases", s, b.leases.Len())
	}
	// A new declaration may shorten the lease.
	b.register("in_1", "payments", func(d *catalog.Declaration) { d.TTL = time.Hour })
	b.register("in_1", "payments", func(d *catalog.Declaration) { d.TTL = time.Second })
	b.pass(3 * time.Second)
	if b.has("in_1") {
		t.Fatal("the longer lease still holds")
	}
}

func TestConfiguredLease(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *Config) { c.TTL = 10 * time.Second })
	b.register("in_1", "payments")
	b.register("in_2", "payments", func(d *catalog.Declaration) { d.TTL = 20 * time.Second })
	b.pass(11 * time.Second)
	if b.has("in_1") || !b.has("in_2") {
		t.Fatalf("listed %v", ids(b.List(Filter{})))
	}
}

func TestSessionHoldsTheLease(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if b.Reach("default", "in_1", true) {
		t.Fatal("reachable before it is registered")
	}
	if end, ok := b.Session("default", "in_1"); ok {
		t.Fatal("a session before it is registered")
	} else {
		end()
	}
	b.register("in_1", "payments")
	reachable := func() bool { return b.Candidates("default", "payments")[0].Reachable }
	if reachable() {
		t.Fatal("reachable without a session")
	}
	b.Reach("default", "in_1", true)
	b.pass(time.Hour)
	if !b.has("in_1") || !reachable() || b.Stats().Reachable != 1 {
		t.Fatal("gone while its session lived")
	}
	b.Reach("default", "in_1", false)
	if reachable() || b.Stats().Reachable != 0 {
		t.Fatal("still reachable")
	}
	b.pass(89 * time.Second)
	if !b.has("in_1") {
		t.Fatal("gone within its lease")
	}
	b.pass(2 * time.Second)
	if b.has("in_1") {
		t.Fatal("not gone after its lease")
	}
}

func TestOlderSessionDoesNotEndTheNewerOne(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.register("in_1", "payments")
	reachable := func() bool { return b.Candidates("default", "payments")[0].Reachable }
	first, _ := b.Session("default", "in_1")
	second, _ := b.Session("default", "in_1")
	first()
	if !reachable() {
		t.Fatal("the older session ended the newer one")
	}
	second()
	second()
	if reachable() {
		t.Fatal("still reachable")
	}
	third, _ := b.Session("default", "in_1")
	if err := b.Deregister(context.Background(), "default", "in_1", catalog.Operator); err != nil {
		t.Fatal(err)
	}
	if b.Stats().Reachable != 0 {
		t.Fatal("counted although gone")
	}
	b.register("in_1", "payments")
	b.Reach("default", "in_1", true)
	third()
	if !reachable() {
		t.Fatal("a session of an earlier registration ended the one of the next")
	}
}

func TestRestartGivesAWholeLease(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.register("in_1", "payments")
	b.register("in_2", "payments")
	b.Reach("default", "in_1", true)
	b.Reach("default", "in_2", true)
	old := b.Watch("default", nil, catalog.Revision{})
	u := next(t, old)
	b.clock.Advance(time.Hour)
	b.open()
	c := b.Candidates("default", "payments")
	if len(c) != 2 || c[0].Reachable || c[1].Reachable || b.Stats().Reachable != 0 {
		t.Fatalf("after a restart: %+v", c)
	}
	w := b.Watch("default", nil, u.Revision)
	defer w.Close()
	snap := next(t, w)
	if !snap.Snapshot || snap.Revision.Epoch != u.Revision.Epoch+1 || len(snap.Upserts) != 2 {
		t.Fatalf("a watcher of before the restart got %+v", snap)
	}
	// in_1 comes back within its lease, in_2 does not.
	b.pass(80 * time.Second)
	b.register("in_1", "payments")
	b.Reach("default", "in_1", true)
	b.pass(11 * time.Second)
	u = next(t, w)
	if len(u.Removals) != 1 || u.Removals[0].ID != "in_2" || u.Removals[0].Reason != catalog.Expired ||
		len(u.Upserts) != 1 || !u.Upserts[0].Reachable {
		t.Fatalf("after the leases: %+v", u)
	}
	if got, _ := b.Tombstones(context.Background(), Filter{}); len(got) != 1 || got[0].ID != "in_2" {
		t.Fatalf("tombstones %v", got)
	}
}

func TestClockJumps(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.register("in_1", "payments")
	b.pass(80 * time.Second)
	b.clock.Set(b.clock.Now().Add(-time.Hour))
	b.Touch("default", "in_1") // before the registry has noticed: moves nothing back
	b.pass(5 * time.Second)
	if !b.has("in_1") {
		t.Fatal("a clock that went back ended a lease early")
	}
	b.Touch("default", "in_1")
	b.pass(85 * time.Second)
	if !b.has("in_1") {
		t.Fatal("gone within its lease")
	}
	b.pass(10 * time.Second)
	if b.has("in_1") {
		t.Fatal("a clock that went back holds leases for ever")
	}
}

func TestStoreAwayWhenLeasesEnd(t *testing.T) {
	t.Parallel()
	for name, lost := range map[string]bool{"not written": false, "outcome unknown": true} {
		b := newBench(t)
		b.register("in_1", "payments")
		b.register("in_2", "payments")
		err := errDisk
		if lost {
			err = tx.ErrOutcomeUnknown
		}
		b.store.set(err, lost)
		b.pass(95 * time.Second)
		if !b.has("in_1") || !b.has("in_2") {
			t.Fatalf("%s: gone from memory only", name)
		}
		// What may be gone from the store has to register again; the rest is as it was.
		if b.Touch("default", "in_1") == lost {
			t.Fatalf("%s: Touch said %v", name, !lost)
		}
		b.store.set(nil, false)
		if lost {
			b.register("in_1", "payments")
		}
		if _, ok := b.store.row("default", "in_1"); !ok {
			t.Fatalf("%s: in_1 is not stored", name)
		}
		b.pass(10 * time.Second)
		if got := ids(b.List(Filter{})); !cmp.Equal(got, []string{"in_1"}) {
			t.Fatalf("%s: listed %v", name, got)
		}
	}
}

func TestComingBackWhileTheLeaseEnds(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.register("in_1", "payments")
	b.clock.Advance(95 * time.Second)
	b.store.gate = make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		b.expire(context.Background(), b.clock.Now())
	}()
	e := b.entries[key{"default", "in_1"}]
	eventually(t, e.lease.ending.Load)
	if b.Touch("default", "in_1") || b.Reach("default", "in_1", true) {
		t.Fatal("reachable while it goes")
	}
	registered := make(chan error)
	go func() {
		_, _, err := b.Register(context.Background(), owner("in_1", "payments"), &catalog.Declaration{})
		registered <- err
	}()
	b.store.gate <- struct{}{}
	<-done
	b.store.gate <- struct{}{}
	if err := <-registered; err != nil {
		t.Fatal(err)
	}
	if i, err := b.Get("default", "in_1"); err != nil || i.Revision != 1 || !b.Touch("default", "in_1") {
		t.Fatalf("%v %v", i, err)
	}
}

// TestRegistrationUnderWayHoldsTheLease: who is registering is not gone.
func TestRegistrationUnderWayHoldsTheLease(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.register("in_1", "payments")
	unlock, _ := b.keys.lock(context.Background(), key{"default", "in_1"})
	b.pass(95 * time.Second)
	if !b.has("in_1") {
		t.Fatal("gone while it was being changed")
	}
	unlock()
	b.pass(2 * time.Second)
	if b.has("in_1") {
		t.Fatal("the lease was forgotten")
	}
}

func TestRunningRegistryEndsLeases(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	if err := b.Start(context.Background()); err != nil {
		t.Fatal(err)
	}
	defer b.stop()
	for i := range 600 {
		b.register(fmt.Sprintf("in_%d", i), "payments")
	}
	eventually(t, func() bool {
		b.clock.Advance(10 * time.Second)
		b.Touch("default", "in_7")
		return len(b.List(Filter{})) == 1
	})
	if !b.has("in_7") {
		t.Fatal("the one that was heard of is gone")
	}
}

// eventually waits for something another goroutine does.
func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(10 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-deadline.C:
			t.Fatal("waited too long")
		}
	}
}

func next(t testing.TB, w *Watcher) *catalog.Update {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	u, err := w.Next(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// silent checks that there is nothing to tell.
func silent(t testing.TB, w *Watcher) {
	t.Helper()
	if u := w.collect(); u != nil {
		t.Fatalf("told %+v, want nothing", u)
	}
}

func wantEnd(t testing.TB, w *Watcher, code errs.Code) {
	t.Helper()
	_, err := w.Next(context.Background())
	wantCode(t, err, code)
}
