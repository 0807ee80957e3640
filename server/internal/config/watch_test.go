package config_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/config"
	"telford.dev/telford/server/internal/store"
	"telford.dev/telford/server/internal/tx"
)

// view is what one who watches knows.
type view struct {
	values   map[string]string
	seen     map[string]int64 // revision by id
	revision int64
	changes  []int64
	snaps    int
}

func newView() *view { return &view{values: map[string]string{}, seen: map[string]int64{}} }

func (v *view) apply(u *config.Update) {
	if u.Snapshot {
		v.snaps++
		clear(v.values)
		clear(v.seen)
	}
	for _, x := range u.Values {
		v.values[x.ID], v.seen[x.ID] = x.Value, x.Revision
	}
	for _, c := range u.Changes {
		if c.Revision <= v.seen[c.ID] {
			continue
		}
		v.changes = append(v.changes, c.Revision)
		if v.values[c.ID], v.seen[c.ID] = c.Value.Value, c.Revision; c.Removed {
			delete(v.values, c.ID)
		}
	}
	if !u.More {
		v.revision = u.Revision
	}
}

// TestWatchersSkipNothing has several change values at once, while watchers leave and come
// back behind what they saw.
func TestWatchersSkipNothing(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, cfg store.Config) {
		w := open(t, cfg)
		const writers, each = 4, 30
		var group sync.WaitGroup
		for n := range writers {
			group.Go(func() {
				for i := range each {
					if _, _, err := w.Set(t.Context(), ns, fmt.Sprintf("key-%d", i%5), config.Input{Value: fmt.Sprint(n, i)}, config.Cond{}, "anna"); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for leave := range 3 {
			group.Go(func() {
				v := newView()
				for v.revision < writers*each {
					watch, err := w.Watch(ns, "", v.revision)
					if err != nil {
						t.Error(err)
						return
					}
					for turns := 0; turns <= leave && v.revision < writers*each; turns++ {
						u, err := watch.Next(t.Context())
						if err != nil {
							t.Error(err)
							break
						}
						v.apply(u)
					}
					watch.Close()
				}
				for i := 1; i < len(v.changes); i++ {
					if v.changes[i] != v.changes[i-1]+1 {
						t.Errorf("revision %d came behind %d", v.changes[i], v.changes[i-1])
					}
				}
			})
		}
		group.Wait()
	})
}

// TestWatchAgreesWithTheModel does random things, and has watchers that leave and come
// back at random. Each has to know what there is, and all changes in order unless it got
// a snapshot.
func TestWatchAgreesWithTheModel(t *testing.T) {
	t.Parallel()
	w := open(t, sqliteStore(t), func(c *config.Config) { c.MaxHistory, c.MaxPage = 3, 12 })
	rapid.Check(t, func(r *rapid.T) {
		if err := w.store.Write(t.Context(), func(t2 tx.Tx) error { return w.RemoveNamespaceTx(t2, ns) }); err != nil {
			r.Fatal(err)
		}
		model := map[string]string{}
		type watcher struct {
			prefix string
			view   *view
			want   []int64 // revisions that have not been seen
		}
		all := []*watcher{{"", newView(), nil}, {"/prod/", newView(), nil}}
		catchUp := func(x *watcher) {
			watch, err := w.Watch(ns, x.prefix, x.view.revision)
			if err != nil {
				r.Fatal(err)
			}
			defer watch.Close()
			snaps, told := x.view.snaps, len(x.view.changes)
			want := map[string]string{}
			for id, text := range model {
				if strings.HasPrefix(id, x.prefix) {
					want[id] = text
				}
			}
			for x.view.snaps == snaps && len(x.view.changes)-told < len(x.want) || x.view.revision == 0 || !maps.Equal(want, x.view.values) {
				ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
				u, err := watch.Next(ctx)
				cancel()
				if err != nil {
					r.Fatalf("prefix %q: knows %v, want %v, unseen %v: %v", x.prefix, x.view.values, want, x.want, err)
				}
				x.view.apply(u)
			}
			if x.view.snaps == snaps {
				if got := x.view.changes[told:]; fmt.Sprint(got) != fmt.Sprint(x.want) {
					r.Fatalf("prefix %q saw %v, want %v", x.prefix, got, x.want)
				}
			}
			x.want = nil
		}
		w.set(t, "start", "1")
		model["start"] = "1"
		ids := rapid.SampledFrom([]string{"/prod/one", "/prod/two", "plain", "/production"})
		for range rapid.IntRange(1, 25).Draw(r, "steps") {
			id, text := ids.Draw(r, "id"), rapid.StringMatching(`[a-c]{0,6}`).Draw(r, "text")
			revision := int64(0)
			switch rapid.SampledFrom([]string{"set", "set", "set", "remove", "watch"}).Draw(r, "do") {
			case "set":
				v, changed, err := w.Set(t.Context(), ns, id, config.Input{Value: text}, config.Cond{}, "anna")
				if err != nil {
					r.Fatal(err)
				}
				if old, ok := model[id]; changed == (ok && old == text) {
					r.Fatalf("%s: %q became %q, changed %v", id, old, text, changed)
				}
				if changed {
					revision = v.Revision
				}
				model[id] = text
			case "remove":
				_, err := w.Remove(t.Context(), ns, id, config.Cond{}, "anna")
				if _, ok := model[id]; ok != (err == nil) {
					r.Fatalf("remove %s: %v", id, err)
				}
				if err == nil {
					p, err := w.List(t.Context(), config.Query{Namespace: ns})
					if err != nil {
						r.Fatal(err)
					}
					revision = p.Revision
				}
				delete(model, id)
			case "watch":
				catchUp(rapid.SampledFrom(all).Draw(r, "who"))
			}
			for _, x := range all {
				if revision > 0 && strings.HasPrefix(id, x.prefix) {
					x.want = append(x.want, revision)
				}
			}
		}
		for _, x := range all {
			catchUp(x)
		}
	})
}

func TestSnapshotWhenTooOld(t *testing.T) {
	t.Parallel()
	w := open(t, sqliteStore(t), func(c *config.Config) { c.MaxHistory = 2 })
	for n := range 5 {
		w.set(t, "aaa", fmt.Sprint(n))
	}
	for after, want := range map[int64]bool{-1: true, 0: true, 2: true, 3: false, 4: false, 6: true} {
		watch, err := w.Watch(ns, "", after)
		if err != nil {
			t.Fatal(err)
		}
		u, err := watch.Next(t.Context())
		if err != nil || u.Snapshot != want || u.Revision != 5 {
			t.Errorf("behind revision %d: %+v (%v)", after, u, err)
		}
		watch.Close()
	}
}

// TestOfflineForAThousandChanges: who was away sees every one.
func TestOfflineForAThousandChanges(t *testing.T) {
	t.Parallel()
	w := open(t, sqliteStore(t))
	for n := range 1000 {
		w.set(t, fmt.Sprintf("key-%d", n%3), fmt.Sprint(n))
	}
	v := newView()
	v.revision = 1
	watch, err := w.Watch(ns, "", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	for v.revision < 1000 {
		u, err := watch.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		v.apply(u)
	}
	if v.snaps != 0 || len(v.changes) != 999 || v.values["key-0"] != "999" {
		t.Errorf("%d snapshots, %d changes, values %v", v.snaps, len(v.changes), v.values)
	}
}

func TestWatchEnds(t *testing.T) {
	t.Parallel()
	w := open(t, sqliteStore(t), func(c *config.Config) { c.MaxWatchers, c.Shared = 2, true })
	a, err := w.Watch(ns, "", 0)
	if err != nil {
		t.Fatal(err)
	}
	if u, err := a.Next(t.Context()); err != nil || !u.Snapshot || len(u.Values) != 0 {
		t.Errorf("of nothing: %+v (%v)", u, err)
	}
	b, err := w.Watch(ns, "abc", 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = w.Watch(ns, "", 0)
	code(t, "one too many", err, errs.ResourceExhausted)
	b.Close()
	_, err = b.Next(t.Context())
	code(t, "behind the close", err, errs.Canceled)
	_, err = w.Watch(ns, "ä", 0)
	code(t, "a prefix that none has", err, errs.InvalidArgument)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err = a.Next(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a wait that was ended: %v", err)
	}
	if err := w.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err = a.Next(t.Context())
	code(t, "behind the stop", err, errs.Unavailable)
	code(t, "starting again", w.Start(t.Context()), errs.Unavailable)
}
