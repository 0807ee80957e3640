package config_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/config"
	"telford.dev/telford/server/internal/feed"
	"telford.dev/telford/server/internal/store"
	"telford.dev/telford/server/internal/store/storetest"
	"telford.dev/telford/server/internal/tx"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

const ns = "default"

// world is a configuration that runs and ends with the test.
type world struct {
	*config.Values
	store *store.Store
	feed  *feed.Feed
	now   *clock.Manual
}

func sqliteStore(t *testing.T) store.Config { return store.Config{Data: t.TempDir(), Fast: true} }

// onEngines runs a test on each real store.
func onEngines(t *testing.T, f func(*testing.T, store.Config)) {
	t.Helper()
	for name, cfg := range map[string]func(*testing.T) store.Config{
		"sqlite":   sqliteStore,
		"postgres": func(t *testing.T) store.Config { return store.Config{URL: storetest.Postgres(t)} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, cfg(t))
		})
	}
}

func open(t *testing.T, cfg store.Config, change ...func(*config.Config)) *world {
	t.Helper()
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	now := clock.NewManual(noon)
	f, err := feed.Open(feed.Config{DB: s, Storage: s, Clock: now})
	if err != nil {
		t.Fatal(err)
	}
	c := config.Config{DB: s, Storage: s, Feed: f, Clock: now}
	for _, g := range change {
		g(&c)
	}
	v, err := config.Open(c)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := v.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	t.Cleanup(func() {
		for range 2 {
			if err := v.Stop(context.WithoutCancel(t.Context())); err != nil {
				t.Error(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return &world{Values: v, store: s, feed: f, now: now}
}

func (w *world) set(t *testing.T, id, text string) config.Value {
	t.Helper()
	v, _, err := w.Set(t.Context(), ns, id, config.Input{Value: text}, config.Cond{}, "anna")
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (w *world) remove(t *testing.T, id string) {
	t.Helper()
	if _, err := w.Remove(t.Context(), ns, id, config.Cond{}, "bob"); err != nil {
		t.Fatal(err)
	}
}

func (w *world) events(t *testing.T) (all []string) {
	t.Helper()
	p, err := w.feed.List(t.Context(), &feed.Query{Namespace: ns, Limit: 1000})
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range p.Events {
		all = append(all, e.Type+" "+string(e.Payload))
	}
	return all
}

func same[T any](t *testing.T, what string, got, want T) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func code(t *testing.T, what string, err error, want errs.Code) {
	t.Helper()
	if err == nil || errs.CodeOf(err) != want {
		t.Errorf("%s: got %v, want %s", what, err, want)
	}
}

func TestALifeOfAValue(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, cfg store.Config) {
		w, ctx := open(t, cfg), t.Context()
		const id = "/production/cassandra/seeds"
		_, err := w.Get(ctx, ns, id)
		code(t, "a value that is not there", err, errs.NotFound)

		first := w.set(t, id, "a\nb\nc\n")
		same(t, "set", first, config.Value{Namespace: ns, ID: id, Value: "a\nb\nc\n", Revision: 1, Author: "anna", At: noon})
		w.now.Advance(time.Second)
		again, changed, err := w.Set(ctx, ns, id, config.Input{Value: first.Value}, config.Cond{}, "bob")
		if err != nil || changed {
			t.Errorf("the same again: changed %v, %v", changed, err)
		}
		same(t, "the same again", again, first)
		second, _, err := w.Set(ctx, ns, id, config.Input{Value: "a\nB\nc\n"}, config.If(1), "bob")
		if err != nil || second.Revision != 2 {
			t.Fatal(second, err)
		}
		_, _, err = w.Set(ctx, ns, id, config.Input{Value: "x"}, config.If(1), "bob")
		code(t, "a stale revision", err, errs.Conflict)
		if e := errs.From(err); e.Meta[config.MetaWanted] != "1" || e.Meta[config.MetaStored] != "2" {
			t.Errorf("the conflict names %v, want both revisions", e.Meta)
		}
		_, _, err = w.Set(ctx, ns, id, config.Input{Value: "x"}, config.If(0), "bob")
		code(t, "one that was to be new", err, errs.Conflict)
		_, err = w.Remove(ctx, ns, id, config.If(1), "bob")
		code(t, "a stale removal", err, errs.Conflict)

		d, err := w.Diff(ctx, ns, id, 0, 0)
		if err != nil || d.From.Revision != 1 || d.To.Revision != 2 {
			t.Fatal(d, err)
		}
		same(t, "diff", d.Text, " a\n-b\n+B\n c\n")

		w.remove(t, id)
		_, err = w.Remove(ctx, ns, id, config.Cond{}, "bob")
		code(t, "removing what is gone", err, errs.NotFound)
		_, _, err = w.Set(ctx, ns, id, config.Input{Value: "x"}, config.If(2), "bob")
		code(t, "changing what is gone", err, errs.Conflict)

		back, changed, err := w.Rollback(ctx, ns, id, 1, config.If(0), "carl")
		if err != nil || !changed || back.Value.Value != first.Value || back.Revision != 4 || back.Restored != 1 {
			t.Fatal(back, changed, err)
		}
		gone, changed, err := w.Rollback(ctx, ns, id, 3, config.If(4), "carl")
		if err != nil || !changed || !gone.Removed || gone.Revision != 5 || gone.Restored != 3 {
			t.Fatal(gone, changed, err)
		}
		_, changed, err = w.Rollback(ctx, ns, id, 3, config.Cond{}, "carl")
		if err != nil || changed {
			t.Errorf("removing what is gone by rollback: changed %v, %v", changed, err)
		}
		_, _, err = w.Rollback(ctx, ns, id, 99, config.Cond{}, "carl")
		code(t, "rolling back to nothing", err, errs.NotFound)

		h, err := w.History(ctx, ns, id, 0, 2)
		if err != nil {
			t.Fatal(err)
		}
		older, err := w.History(ctx, ns, id, h.Next, 0)
		if err != nil {
			t.Fatal(err)
		}
		var told []string
		for _, c := range append(h.Changes, older.Changes...) {
			told = append(told, fmt.Sprintf("%d %s %q removed=%v restored=%d", c.Revision, c.Author, c.Value.Value, c.Removed, c.Restored))
		}
		same(t, "history", told, []string{
			`5 carl "" removed=true restored=3`, `4 carl "a\nb\nc\n" removed=false restored=1`, `3 bob "" removed=true restored=0`,
			`2 bob "a\nB\nc\n" removed=false restored=0`, `1 anna "a\nb\nc\n" removed=false restored=0`,
		})
		same(t, "events", w.events(t), []string{
			`configuration_value.update {"old_value":null,"new_value":"a\nb\nc\n","configuration_value_id":"` + id + `"}`,
			`configuration_value.update {"old_value":"a\nb\nc\n","new_value":"a\nB\nc\n","configuration_value_id":"` + id + `"}`,
			`configuration_value.remove {"old_value":"a\nB\nc\n","configuration_value_id":"` + id + `"}`,
			`configuration_value.update {"old_value":null,"new_value":"a\nb\nc\n","configuration_value_id":"` + id + `"}`,
			`configuration_value.remove {"old_value":"a\nb\nc\n","configuration_value_id":"` + id + `"}`,
		})
	})
}

func TestList(t *testing.T) {
	t.Parallel()
	w := open(t, sqliteStore(t))
	for _, id := range []string{"zeta", "/production/web", "Alpha", "/production/cassandra/seeds", "/production2/x__", "/production"} {
		w.set(t, id, id)
	}
	ids := func(q config.Query) (all []string, next string) {
		t.Helper()
		q.Namespace = ns
		p, err := w.List(t.Context(), q)
		if err != nil || p.Revision != 6 || p.Count != 6 {
			t.Fatal(p, err)
		}
		for _, v := range p.Values {
			all = append(all, v.ID)
		}
		return all, p.Next
	}
	for _, c := range []struct {
		q    config.Query
		want []string
		next string
	}{
		{config.Query{}, []string{"/production", "/production/cassandra/seeds", "/production/web", "/production2/x__", "Alpha", "zeta"}, ""},
		{config.Query{Prefix: "/production/"}, []string{"/production/cassandra/seeds", "/production/web"}, ""},
		{config.Query{Marker: "/production/web", Limit: 2}, []string{"/production/web", "/production2/x__"}, "Alpha"},
		{config.Query{Marker: "/production/x"}, []string{"/production2/x__", "Alpha", "zeta"}, ""},
		{config.Query{Prefix: "/nothing/"}, nil, ""},
	} {
		all, next := ids(c.q)
		same(t, fmt.Sprintf("%+v", c.q), all, c.want)
		same(t, "next", next, c.next)
	}
	for _, q := range []config.Query{{Limit: -1}, {Limit: 1001}, {Prefix: "ä"}, {Marker: strings.Repeat("x", 501)}} {
		_, err := w.List(t.Context(), q)
		code(t, fmt.Sprintf("%+v", q), err, errs.InvalidArgument)
	}
}

func TestCheckID(t *testing.T) {
	t.Parallel()
	long := func(n int) string { return strings.Repeat("x", n) }
	for id, want := range map[string]bool{
		"abc": true, "A.B": true, "-_.": true, "ab": false, "": false, long(170): true, long(171): false,
		"/production/cassandra": true, "/production/agent_endpoint/fb303.port": true, "/production/cassandra/": true,
		"production/cassandra": false, "/production.foo/test": false, "/production/test.x/": false, "/ab/cde": false, "/abc/de": false,
		"/abc//def": true, "/abc.def": true, strings.Repeat("/abc", 10) + "/key": true, strings.Repeat("/abc", 11) + "/key": false,
		strings.Repeat("/abc", 10) + "key": true, "ä__": false, "a b": false, "abc\n": false, "/abc/%2F": false,
	} {
		if err := config.CheckID(id); (err == nil) != want {
			t.Errorf("%q: %v, want accepted: %v", id, err, want)
		}
	}
	if err := config.CheckID("production/cassandra"); !strings.Contains(err.Error(), "/production/cassandra") {
		t.Errorf("the error shows no way out: %v", err)
	}
}

func TestRefusesWhatIsNoValue(t *testing.T) {
	t.Parallel()
	w := open(t, sqliteStore(t))
	for _, in := range []config.Input{
		{Value: "\xff"}, {Value: "text \x80 text"}, {Value: "{", JSON: true}, {Value: "", JSON: true}, {Value: strings.Repeat("x", 1<<20+1)},
	} {
		_, _, err := w.Set(t.Context(), ns, "abc", in, config.Cond{}, "anna")
		code(t, fmt.Sprintf("%.20q", in.Value), err, errs.InvalidArgument)
	}
	_, _, err := w.Set(t.Context(), ns, "abc", config.Input{Value: "☂ \ufffd \x80"}, config.Cond{}, "anna")
	if err == nil || !strings.Contains(err.Error(), "byte 8 (0x80)") || !strings.Contains(err.Error(), "base64") {
		t.Errorf("want the place of the byte and the way out, got %v", err)
	}
	for _, in := range []config.Input{{Value: strings.Repeat("x", 1<<20)}, {Value: ""}, {Value: "\x00\ufffd"}, {Value: `{"a":[1]}`, JSON: true}} {
		if _, _, err := w.Set(t.Context(), ns, "abc", in, config.Cond{}, "anna"); err != nil {
			t.Errorf("%.20q: %v", in.Value, err)
		}
		if v, err := w.Get(t.Context(), ns, "abc"); err != nil || v.Value != in.Value || v.JSON != in.JSON {
			t.Errorf("%.20q comes back as %.20q (%v)", in.Value, v.Value, err)
		}
	}
}

func TestQuotas(t *testing.T) {
	t.Parallel()
	w := open(t, sqliteStore(t), func(c *config.Config) { c.MaxValues, c.MaxBytes = 3, 10 })
	set := func(id, text string) error {
		_, _, err := w.Set(t.Context(), ns, id, config.Input{Value: text}, config.Cond{}, "anna")
		return err
	}
	w.set(t, "aaa", "123456")
	code(t, "too many bytes", set("bbb", "12345"), errs.ResourceExhausted)
	w.set(t, "bbb", "1234")
	w.set(t, "ccc", "")
	code(t, "too many values", set("ddd", ""), errs.ResourceExhausted)
	code(t, "a larger one", set("ccc", "x"), errs.ResourceExhausted)
	w.set(t, "aaa", "654321")
	w.remove(t, "bbb")
	w.set(t, "ddd", "4321")
	if p, err := w.List(t.Context(), config.Query{Namespace: ns}); err != nil || p.Count != 3 || p.Bytes != 10 {
		t.Errorf("count %d, bytes %d (%v)", p.Count, p.Bytes, err)
	}
	if n := w.Stats().Changes; n != 6 {
		t.Errorf("%d changes, want 6", n)
	}
}

func TestHistoryIsBounded(t *testing.T) {
	t.Parallel()
	w := open(t, sqliteStore(t), func(c *config.Config) { c.MaxHistory, c.MaxHistoryBytes = 4, 10 })
	revisions := func(id string) (all []int64) {
		t.Helper()
		h, err := w.History(t.Context(), ns, id, 0, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range h.Changes {
			all = append(all, c.Revision)
		}
		return all
	}
	for n := range 6 {
		w.set(t, "aaa", fmt.Sprint(n)) // 1 to 6
	}
	same(t, "by count", revisions("aaa"), []int64{6, 5, 4, 3})
	w.set(t, "aaa", "123456789")
	same(t, "by bytes", revisions("aaa"), []int64{7, 6})
	w.set(t, "aaa", "longer than all that history may have")
	same(t, "the present one stays", revisions("aaa"), []int64{8})

	// By age, the present one stays as well, and what was removed goes whole.
	w.set(t, "bbb", "1")
	w.remove(t, "bbb")
	w.set(t, "aaa", "x")
	w.now.Advance(91 * 24 * time.Hour)
	for w.Stats().Forgotten < 3 {
		if err := t.Context().Err(); err != nil {
			t.Fatal(err)
		}
		w.now.Advance(time.Minute)
	}
	same(t, "by age", revisions("aaa"), []int64{11})
	_, err := w.History(t.Context(), ns, "bbb", 0, 0)
	code(t, "the history of what was removed", err, errs.NotFound)
}

func TestNamespaceEnds(t *testing.T) {
	t.Parallel()
	w := open(t, sqliteStore(t))
	w.set(t, "aaa", "1")
	watch, err := w.Watch(ns, "", 1)
	if err != nil {
		t.Fatal(err)
	}
	defer watch.Close()
	if err := w.store.Write(t.Context(), func(t2 tx.Tx) error { return w.RemoveNamespaceTx(t2, ns) }); err != nil {
		t.Fatal(err)
	}
	_, err = watch.Next(t.Context())
	code(t, "the watch of a namespace that was removed", err, errs.NotFound)
	_, err = w.Get(t.Context(), ns, "aaa")
	code(t, "its value", err, errs.NotFound)
}
