package registry

import (
	"context"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
)

// told is an update in short: ids, with the reasons of removals.
type told struct {
	Snapshot bool
	Up, Down []string
}

func tell(u *catalog.Update) told {
	t := told{Snapshot: u.Snapshot}
	for _, i := range u.Upserts {
		t.Up = append(t.Up, i.ID)
	}
	for _, s := range u.Removals {
		t.Down = append(t.Down, s.ID+" "+string(s.Reason))
	}
	return t
}

func wantTold(t testing.TB, w *Watcher, want told) *catalog.Update {
	t.Helper()
	u := next(t, w)
	if diff := cmp.Diff(want, tell(u)); diff != "" {
		t.Fatal(diff)
	}
	return u
}

func TestWatchOfOneService(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	ctx := context.Background()
	b.register("in_1", "payments", func(d *catalog.Declaration) { d.Descriptors = []byte("large") })
	b.register("in_2", "orders")
	w := b.Watch("default", []string{"payments", "payments"}, catalog.Revision{})
	defer w.Close()
	u := wantTold(t, w, told{Snapshot: true, Up: []string{"in_1"}})
	if u.Upserts[0].Declaration.Descriptors != nil || u.Revision != b.Revision() {
		t.Fatalf("%+v", u)
	}
	b.register("in_3", "orders")
	b.Touch("default", "in_1")
	silent(t, w)
	b.register("in_4", "payments")
	b.Reach("default", "in_4", true)
	b.Reach("default", "in_4", true)
	u = wantTold(t, w, told{Up: []string{"in_4"}})
	if !u.Upserts[0].Reachable {
		t.Fatal("the update is not the latest word")
	}
	if err := b.SetStatus(ctx, "default", "in_1", catalog.Offline, ""); err != nil {
		t.Fatal(err)
	}
	wantTold(t, w, told{Down: []string{"in_1 offline"}})
	b.Reach("default", "in_1", true) // nobody sees it
	silent(t, w)
	if err := b.Deregister(ctx, "default", "in_4", catalog.Operator); err != nil {
		t.Fatal(err)
	}
	if err := b.Deregister(ctx, "default", "in_1", catalog.Operator); err != nil {
		t.Fatal(err)
	}
	wantTold(t, w, told{Down: []string{"in_4 operator"}})
	silent(t, w)
	b.register("in_4", "payments")
	wantTold(t, w, told{Up: []string{"in_4"}})
}

func TestWatchOfNothingKnownYet(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	w := b.Watch("default", []string{"payments"}, catalog.Revision{})
	none := b.Watch("default", []string{}, catalog.Revision{})
	wantTold(t, w, told{Snapshot: true})
	wantTold(t, none, told{Snapshot: true})
	b.register("in_1", "payments")
	wantTold(t, w, told{Up: []string{"in_1"}})
	silent(t, none)
	w.Close()
	none.Close()
}

func TestResume(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *Config) { c.Retain = 4 })
	b.register("in_1", "payments")
	w := b.Watch("default", []string{"payments"}, catalog.Revision{})
	rev := next(t, w).Revision
	w.Close()
	resume := func(rev catalog.Revision) *Watcher {
		w := b.Watch("default", []string{"payments"}, rev)
		t.Cleanup(w.Close)
		return w
	}
	silent(t, resume(rev))
	if err := b.Deregister(context.Background(), "default", "in_1", catalog.Drained); err != nil {
		t.Fatal(err)
	}
	b.register("in_2", "payments")
	want := told{Up: []string{"in_2"}, Down: []string{"in_1 drained"}}
	wantTold(t, resume(rev), want)
	b.register("in_3", "orders")
	b.register("in_4", "orders")
	wantTold(t, resume(rev), want)
	b.register("in_5", "orders") // now the removal of in_1 is no longer retained
	snapshot := told{Snapshot: true, Up: []string{"in_2"}}
	wantTold(t, resume(rev), snapshot)
	// Revisions that never were.
	wantTold(t, resume(catalog.Revision{Epoch: rev.Epoch, N: 1000}), snapshot)
	wantTold(t, resume(catalog.Revision{Epoch: rev.Epoch + 1, N: rev.N}), snapshot)
}

// TestQuietWatcherNeedsNoSnapshot: others may churn as they like.
func TestQuietWatcherNeedsNoSnapshot(t *testing.T) {
	t.Parallel()
	b := newBench(t, func(c *Config) { c.Retain = 4 })
	b.register("in_1", "payments")
	one := b.Watch("default", []string{"payments"}, catalog.Revision{})
	defer one.Close()
	other, _, err := b.Register(context.Background(), Owner{Namespace: "other", Instance: "in_1", Service: "x"}, &catalog.Declaration{})
	if err != nil || other.N != 2 {
		t.Fatal(err)
	}
	all := b.Watch("other", nil, catalog.Revision{})
	defer all.Close()
	wantTold(t, one, told{Snapshot: true, Up: []string{"in_1"}})
	wantTold(t, all, told{Snapshot: true, Up: []string{"in_1"}})
	for i := range 20 {
		b.register("in_2", "orders", func(d *catalog.Declaration) { d.Version = fmt.Sprint(i) })
	}
	silent(t, one)
	silent(t, all)
	b.register("in_3", "payments")
	wantTold(t, one, told{Up: []string{"in_3"}})
	// Who missed more than is retained starts over.
	for i := range 20 {
		b.register("in_3", "payments", func(d *catalog.Declaration) { d.Version = fmt.Sprint(i) })
	}
	wantTold(t, one, told{Snapshot: true, Up: []string{"in_1", "in_3"}})
	silent(t, one)
}

func TestSetServices(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.register("in_1", "payments")
	b.register("in_2", "orders")
	b.register("in_3", "stock")
	w := b.Watch("default", []string{"payments"}, catalog.Revision{})
	defer w.Close()
	set := func(names ...string) {
		t.Helper()
		if err := w.SetServices(names); err != nil {
			t.Fatal(err)
		}
	}
	wantTold(t, w, told{Snapshot: true, Up: []string{"in_1"}})
	set("payments", "orders")
	wantTold(t, w, told{Up: []string{"in_2"}})
	set("payments", "orders")
	silent(t, w)
	b.register("in_4", "orders")
	set("payments", "stock")
	wantTold(t, w, told{Up: []string{"in_3"}, Down: []string{"in_2 unwatched", "in_4 unwatched"}})
	// Given up and taken again before anything was told.
	set("payments")
	set("payments", "stock")
	wantTold(t, w, told{Up: []string{"in_3"}})
	// Added and given up unseen.
	set("payments", "stock", "orders")
	set("payments", "stock")
	silent(t, w)
	if err := w.SetServices(nil); err != nil {
		t.Fatal(err)
	}
	wantTold(t, w, told{Snapshot: true, Up: []string{"in_2", "in_4", "in_1", "in_3"}})
	if err := w.SetServices(nil); err != nil {
		t.Fatal(err)
	}
	silent(t, w)
	set("stock")
	wantTold(t, w, told{Snapshot: true, Up: []string{"in_3"}})
	wantCode(t, w.SetServices([]string{"Bad Name"}), errs.InvalidArgument, "Bad Name")
	wantCode(t, w.SetServices(make([]string, MaxWatched+1)), errs.InvalidArgument, "4097")
	w.Close()
	wantCode(t, w.SetServices([]string{"stock"}), errs.Canceled)
	if len(b.ns("default").services) != 3 {
		t.Fatal("services that nobody has or watches are kept")
	}
}

func (b *bench) ns(name string) *namespace { return (*b.namespaces.Load())[name] }

func TestLargeUpdatesComeInParts(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	b.maxUpdate = 1500
	var want []string
	for i := range 9 {
		b.register(fmt.Sprintf("in_%d", i), "payments")
		want = append(want, fmt.Sprintf("in_%d", i))
	}
	w := b.Watch("default", nil, catalog.Revision{})
	defer w.Close()
	var got []string
	parts := 0
	for {
		u := next(t, w)
		if u.Snapshot != (parts == 0) || len(u.Upserts) == 0 {
			t.Fatalf("part %d: %+v", parts, u)
		}
		got = append(got, ids(u.Upserts)...)
		parts++
		if u.Revision != (catalog.Revision{}) {
			break
		}
	}
	if diff := cmp.Diff(want, got); diff != "" || parts < 3 {
		t.Fatalf("%d parts: %s", parts, diff)
	}
	silent(t, w)
}

func TestWatchersEnd(t *testing.T) {
	t.Parallel()
	b := newBench(t)
	bad := b.Watch("default", []string{"no name"}, catalog.Revision{})
	wantEnd(t, bad, errs.InvalidArgument)
	bad.Close()

	w := b.Watch("default", nil, catalog.Revision{})
	next(t, w)
	ctx, cancel := context.WithCancel(context.Background())
	waiting := make(chan error)
	go func() { _, err := w.Next(ctx); waiting <- err }()
	cancel()
	wantCode(t, <-waiting, errs.Canceled)
	go func() { _, err := w.Next(context.Background()); waiting <- err }()
	w.Close()
	w.Close()
	wantCode(t, <-waiting, errs.Canceled)

	w = b.Watch("default", []string{"x"}, catalog.Revision{})
	b.stop()
	wantEnd(t, w, errs.Unavailable)
	wantEnd(t, b.Watch("default", nil, catalog.Revision{}), errs.Unavailable)
	if s := b.Stats(); s.Watchers != 0 {
		t.Fatalf("%+v", s)
	}
}
