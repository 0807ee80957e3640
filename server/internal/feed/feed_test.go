package feed_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/feed"
	"telford.dev/telford/server/internal/store"
	"telford.dev/telford/server/internal/store/storetest"
	"telford.dev/telford/server/internal/tx"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// onEngines runs a test on each real store.
func onEngines(t *testing.T, f func(*testing.T, *store.Store)) {
	t.Helper()
	for name, cfg := range map[string]func(*testing.T) store.Config{
		"sqlite":   func(t *testing.T) store.Config { return store.Config{Data: t.TempDir(), Fast: true} },
		"postgres": func(t *testing.T) store.Config { return store.Config{URL: storetest.Postgres(t)} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f(t, openStore(t, cfg(t)))
		})
	}
}

func openStore(t testing.TB, cfg store.Config) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

// open returns a feed that runs and ends with the test.
func open(t testing.TB, s *store.Store, change ...func(*feed.Config)) (*feed.Feed, *clock.Manual) {
	t.Helper()
	now := clock.NewManual(noon)
	cfg := feed.Config{DB: s, Storage: s, Clock: now}
	for _, f := range change {
		f(&cfg)
	}
	f, err := feed.Open(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.Stop(context.WithoutCancel(t.Context())); err != nil {
			t.Error(err)
		}
	})
	return f, now
}

// add appends an event of a type of our own with a number in it.
func add(t testing.TB, f *feed.Feed, n int) feed.Event {
	t.Helper()
	e, err := f.Append(t.Context(), feed.New{Namespace: "default", Type: "telford.test", Payload: map[string]int{"n": n}})
	if err != nil {
		t.Fatal(err)
	}
	return e
}

func payloads(events []feed.Event) (all []string) {
	for _, e := range events {
		all = append(all, string(e.Payload))
	}
	return all
}

func code(t *testing.T, what string, err error, want errs.Code) {
	t.Helper()
	if errs.CodeOf(err) != want || err == nil {
		t.Errorf("%s: got %v, want %s", what, err, want)
	}
}

func TestAppendAndList(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, s *store.Store) {
		f, now := open(t, s)
		var all []feed.Event
		for n := range 5 { // in the same instant
			all = append(all, add(t, f, n))
		}
		now.Advance(time.Second)
		all = append(all, add(t, f, 5))
		for i, e := range all[1:] {
			if a, b := id(t, all[i].ID), id(t, e.ID); a.Compare(b) >= 0 {
				t.Errorf("the id %s does not follow %s", b, a)
			}
		}
		var got []feed.Event
		for q := (feed.Query{Namespace: "default", Limit: 4}); ; {
			p, err := f.List(t.Context(), &q)
			if err != nil {
				t.Fatal(err)
			}
			if got = append(got, p.Events...); p.Next == (feed.ID{}) {
				break
			}
			q.Marker = p.Next
		}
		if d := cmp.Diff(all, got); d != "" {
			t.Errorf("pages (-want +got):\n%s", d)
		}
		page := func(q feed.Query) []string {
			t.Helper()
			q.Namespace = "default"
			p, err := f.List(t.Context(), &q)
			if err != nil {
				t.Fatal(err)
			}
			return payloads(p.Events)
		}
		same(t, "a marker is inclusive", page(feed.Query{Marker: id(t, all[4].ID)}), `{"n":4}`, `{"n":5}`)
		same(t, "since", page(feed.Query{Since: noon.Add(time.Second)}), `{"n":5}`)
		same(t, "until", page(feed.Query{Until: noon.Add(time.Second), Marker: id(t, all[3].ID)}), `{"n":3}`, `{"n":4}`)
		same(t, "another type", page(feed.Query{Types: []string{feed.ConfigUpdate}}))

		late := feed.NewID(noon.Add(-time.Minute), [8]byte{1, 2, 3})
		dated := feed.New{Namespace: "default", Type: feed.ServiceTimeout, ID: late, Payload: feed.Service{ID: "api-0", HeartbeatTimeout: 30}}
		if _, err := f.Append(t.Context(), dated); err != nil {
			t.Fatal(err)
		}
		same(t, "an event of the past", page(feed.Query{Limit: 1}), `{"id":"api-0","heartbeat_timeout":30,"tags":[],"metadata":{}}`)
		_, err := f.Append(t.Context(), dated)
		code(t, "the same id again", err, errs.AlreadyExists)
	})
}

func same(t *testing.T, what string, got []string, want ...string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func id(t *testing.T, s string) feed.ID {
	t.Helper()
	i, err := feed.ParseID(s)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func TestAppendsWithWhatItTellsOf(t *testing.T) {
	t.Parallel()
	s := openStore(t, store.Config{Data: t.TempDir(), Fast: true})
	f, _ := open(t, s)
	abandoned := errors.New("abandoned")
	err := s.Write(t.Context(), func(t2 tx.Tx) error {
		if _, err := f.AppendTx(t2, feed.New{Namespace: "default", Type: "telford.test", Payload: struct{}{}}); err != nil {
			return err
		}
		return abandoned
	})
	if !errors.Is(err, abandoned) {
		t.Fatal(err)
	}
	p, err := f.List(t.Context(), &feed.Query{Namespace: "default"})
	if err != nil || len(p.Events) != 0 {
		t.Errorf("%d events of a change that did not happen (%v)", len(p.Events), err)
	}
}

func TestRefusesWhatIsNoEvent(t *testing.T) {
	t.Parallel()
	f, _ := open(t, openStore(t, store.Config{Data: t.TempDir(), Fast: true}))
	for _, n := range []feed.New{
		{Type: "", Payload: struct{}{}},
		{Type: "service.gone", Payload: struct{}{}},
		{Type: "telford.", Payload: struct{}{}},
		{Type: "telford.Big", Payload: struct{}{}},
		{Type: "telford.x", Payload: []int{1}},
		{Type: "telford.x", Payload: nil},
		{Type: "telford.x", Payload: make(chan int)},
	} {
		n.Namespace = "default"
		_, err := f.Append(t.Context(), n)
		code(t, fmt.Sprintf("%q %v", n.Type, n.Payload), err, errs.InvalidArgument)
	}
	for _, q := range []feed.Query{{Limit: -1}, {Limit: 1001}, {Types: []string{"x"}}} {
		_, err := f.List(t.Context(), &q)
		code(t, fmt.Sprintf("%+v", q), err, errs.InvalidArgument)
	}
}

func TestPagesAreBoundedByBytes(t *testing.T) {
	t.Parallel()
	f, _ := open(t, openStore(t, store.Config{Data: t.TempDir(), Fast: true}), func(c *feed.Config) { c.MaxPage = 20 })
	for n := range 7 {
		add(t, f, n) // 7 bytes each
	}
	p, err := f.List(t.Context(), &feed.Query{Namespace: "default"})
	if err != nil || len(p.Events) != 2 || p.Next == (feed.ID{}) {
		t.Errorf("%d events, next %s (%v)", len(p.Events), p.Next, err)
	}
	w, err := f.Follow(t.Context(), "default", nil, feed.Start{Since: noon})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	var got []string
	for len(got) < 7 {
		events, err := w.Next(t.Context())
		if err != nil || len(events) > 2 {
			t.Fatalf("%d events at once (%v)", len(events), err)
		}
		got = append(got, payloads(events)...)
	}
	same(t, "followed", got, `{"n":0}`, `{"n":1}`, `{"n":2}`, `{"n":3}`, `{"n":4}`, `{"n":5}`, `{"n":6}`)
}

func TestRetention(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, s *store.Store) {
		f, now := open(t, s)
		old := add(t, f, 0)
		now.Advance(time.Hour)
		for n := 1; n <= 600; n++ { // more than one batch
			if err := s.Write(t.Context(), func(t2 tx.Tx) error {
				_, err := f.AppendTx(t2, feed.New{Namespace: "default", Type: "telford.test", Payload: struct{}{}})
				return err
			}); err != nil {
				t.Fatal(err)
			}
		}
		now.Advance(30*24*time.Hour - time.Minute)
		kept := add(t, f, 1)
		now.Advance(2 * time.Minute)
		for f.Stats().Pruned < 601 {
			if err := t.Context().Err(); err != nil {
				t.Fatalf("%d events were removed: %v", f.Stats().Pruned, err)
			}
			now.Advance(time.Minute)
		}
		p, err := f.List(t.Context(), &feed.Query{Namespace: "default"})
		if err != nil {
			t.Fatal(err)
		}
		same(t, "kept", payloads(p.Events), string(kept.Payload))
		_, err = f.Follow(t.Context(), "default", nil, feed.Start{After: id(t, old.ID)})
		code(t, "from an event that was removed", err, errs.FailedPrecondition)
		w, err := f.Follow(t.Context(), "default", nil, feed.Start{Since: noon})
		if err != nil {
			t.Fatal(err)
		}
		defer w.Close()
		events, err := w.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		same(t, "followed from a time", payloads(events), string(kept.Payload))
	})
}
