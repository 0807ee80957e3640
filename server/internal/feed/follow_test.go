package feed_test

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/feed"
	"telford.dev/telford/server/internal/store"
	"telford.dev/telford/server/internal/tx"
)

// TestFollowersSkipNothing has several append at once, some dated back, while followers
// leave and come back behind the last event that they saw.
func TestFollowersSkipNothing(t *testing.T) {
	t.Parallel()
	onEngines(t, func(t *testing.T, s *store.Store) {
		f, _ := open(t, s)
		const writers, each = 4, 40
		var group sync.WaitGroup
		for w := range writers {
			group.Go(func() {
				for n := range each {
					e := feed.New{Namespace: "default", Type: "telford.test", Payload: map[string]int{"n": w*each + n}}
					if n%7 == 3 {
						e.ID = feed.NewID(noon.Add(-time.Duration(w*each+n)*time.Second), [8]byte{byte(w), byte(n)})
					}
					if _, err := f.Append(t.Context(), e); err != nil {
						t.Error(err)
					}
				}
			})
		}
		for leave := range 3 {
			group.Go(func() {
				seen := map[string]int{}
				start := feed.Start{Since: noon.Add(-time.Hour)}
				for len(seen) < writers*each {
					w, err := f.Follow(t.Context(), "default", nil, start)
					if err != nil {
						t.Error(err)
						return
					}
					for turns := 0; turns <= leave && len(seen) < writers*each; turns++ {
						events, err := w.Next(t.Context())
						if err != nil {
							t.Error(err)
							w.Close()
							return
						}
						for _, e := range events {
							seen[string(e.Payload)]++
							start = feed.Start{After: id(t, e.ID)}
						}
					}
					w.Close()
				}
				for payload, n := range seen {
					if n != 1 {
						t.Errorf("%s came %d times", payload, n)
					}
				}
			})
		}
		group.Wait()
		if n := f.Stats().Followers; n != 0 {
			t.Errorf("%d followers are left", n)
		}
	})
}

// TestFollowFromAnyPlace compares what a follower gets with what was appended.
func TestFollowFromAnyPlace(t *testing.T) {
	t.Parallel()
	s := openStore(t, store.Config{Data: t.TempDir(), Fast: true})
	f, _ := open(t, s, func(c *feed.Config) { c.MaxPage = 30 })
	var all []feed.Event
	types := []string{"telford.a", "telford.b"}
	for n := range 60 {
		e, err := f.Append(t.Context(), feed.New{Namespace: "default", Type: types[n*n%3%2], Payload: map[string]int{"n": n}})
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, e)
	}
	rapid.Check(t, func(r *rapid.T) {
		from := rapid.IntRange(0, len(all)-1).Draw(r, "from")
		only := rapid.SliceOfNDistinct(rapid.SampledFrom(types), 0, 2, rapid.ID[string]).Draw(r, "types")
		var want []string
		for _, e := range all[from+1:] {
			if len(only) == 0 || e.Type == only[0] || len(only) == 2 {
				want = append(want, e.ID)
			}
		}
		w, err := f.Follow(t.Context(), "default", only, feed.Start{After: id(t, all[from].ID)})
		if err != nil {
			r.Fatal(err)
		}
		defer w.Close()
		for len(want) > 0 {
			events, err := w.Next(t.Context())
			if err != nil {
				r.Fatal(err)
			}
			for _, e := range events {
				if len(want) == 0 || e.ID != want[0] {
					r.Fatalf("got %s %s, want %v", e.ID, e.Payload, want)
				}
				want = want[1:]
			}
		}
	})
}

func TestFollowWaits(t *testing.T) {
	t.Parallel()
	s := openStore(t, store.Config{Data: t.TempDir(), Fast: true})
	f, _ := open(t, s)
	add(t, f, 0)
	w, err := f.Follow(t.Context(), "default", []string{"telford.test"}, feed.Start{})
	if err != nil {
		t.Fatal(err)
	}
	got := make(chan []string, 1)
	go func() {
		events, err := w.Next(t.Context())
		if err != nil {
			t.Error(err)
		}
		got <- payloads(events)
	}()
	if _, err := f.Append(t.Context(), feed.New{Namespace: "default", Type: "telford.other", Payload: struct{}{}}); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Append(t.Context(), feed.New{Namespace: "elsewhere", Type: "telford.test", Payload: struct{}{}}); err != nil {
		t.Fatal(err)
	}
	add(t, f, 1)
	same(t, "followed", <-got, `{"n":1}`)

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err = w.Next(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Errorf("a wait that was ended: %v", err)
	}
	w.Close()
	w.Close()
	_, err = w.Next(t.Context())
	code(t, "behind the close", err, errs.Canceled)
}

func TestFollowSeesWhatOthersAppend(t *testing.T) {
	t.Parallel()
	s := openStore(t, store.Config{Data: t.TempDir(), Fast: true})
	here, now := open(t, s, func(c *feed.Config) { c.Shared = true })
	there, _ := open(t, s)
	w, err := here.Follow(t.Context(), "default", nil, feed.Start{})
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	add(t, there, 7)
	got := make(chan []string, 1)
	go func() {
		events, err := w.Next(t.Context())
		if err != nil {
			t.Error(err)
		}
		got <- payloads(events)
	}()
	for {
		select {
		case p := <-got:
			same(t, "followed", p, `{"n":7}`)
			return
		default:
			now.Advance(time.Second)
		}
	}
}

func TestFollowersEnd(t *testing.T) {
	t.Parallel()
	s := openStore(t, store.Config{Data: t.TempDir(), Fast: true})
	f, _ := open(t, s, func(c *feed.Config) { c.MaxFollowers = 2 })
	a, err := f.Follow(t.Context(), "default", nil, feed.Start{})
	if err != nil {
		t.Fatal(err)
	}
	b, err := f.Follow(t.Context(), "other", nil, feed.Start{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Follow(t.Context(), "default", nil, feed.Start{})
	code(t, "one follower too many", err, errs.ResourceExhausted)

	add(t, f, 1)
	if err := s.Write(t.Context(), func(t2 tx.Tx) error { return f.RemoveNamespaceTx(t2, "default") }); err != nil {
		t.Fatal(err)
	}
	_, err = a.Next(t.Context())
	code(t, "a namespace that was removed", err, errs.NotFound)
	p, err := f.List(t.Context(), &feed.Query{Namespace: "default"})
	if err != nil || len(p.Events) > 0 {
		t.Errorf("%d events of a namespace that was removed (%v)", len(p.Events), err)
	}

	for range 2 {
		if err := f.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	_, err = b.Next(t.Context())
	code(t, "a feed that has stopped", err, errs.Unavailable)
	_, err = f.Follow(t.Context(), "default", nil, feed.Start{})
	code(t, "following a feed that has stopped", err, errs.Unavailable)
	code(t, "starting again", f.Start(t.Context()), errs.Unavailable)
}

// TestFollowUnknownID begins at the time of an id that no event has.
func TestFollowUnknownID(t *testing.T) {
	t.Parallel()
	f, now := open(t, openStore(t, store.Config{Data: t.TempDir(), Fast: true}))
	for n := range 3 {
		add(t, f, n)
		now.Advance(time.Second)
	}
	for at, want := range map[time.Duration]int{-time.Second: 0, time.Millisecond: 1, 1500 * time.Millisecond: 2} {
		w, err := f.Follow(t.Context(), "default", nil, feed.Start{After: feed.NewID(noon.Add(at), [8]byte{})})
		if err != nil {
			t.Fatal(err)
		}
		events, err := w.Next(t.Context())
		if err != nil || string(events[0].Payload) != `{"n":`+strconv.Itoa(want)+`}` {
			t.Errorf("from %s: %v (%v)", at, payloads(events), err)
		}
		w.Close()
	}
}
