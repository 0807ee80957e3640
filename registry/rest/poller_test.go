package rest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"telford.dev/telford/registry/rest"
)

// TestPollerNeitherSkipsNorRepeats: events come while the registry goes up and down, in
// pages of any size; each is given once and in order.
func TestPollerNeitherSkipsNorRepeats(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		limit := rapid.IntRange(0, 5).Draw(rt, "limit")
		before := rapid.IntRange(0, 10).Draw(rt, "before")
		bursts := rapid.SliceOfN(rapid.IntRange(0, 12), 1, 8).Draw(rt, "bursts")
		outages := rapid.SliceOfN(rapid.Bool(), len(bursts), len(bursts)).Draw(rt, "outages")
		synctest.Test(t, func(t *testing.T) {
			f := newFake()
			for i := range before {
				f.put("key", fmt.Sprint("before", i))
			}
			p, err := f.client(t).NewPoller(rest.PollerOptions{Limit: limit, Interval: time.Second})
			if err != nil {
				rt.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			var got, want []string
			done := make(chan error)
			go func() {
				done <- p.Run(ctx, func(e rest.Event) error {
					got = append(got, e.ID)
					return nil
				})
			}()
			for i, n := range bursts {
				f.set(func(f *fake) { f.down = outages[i] })
				for j := range n {
					f.put("key", fmt.Sprint(i, j))
				}
				pass(1300 * time.Millisecond)
			}
			f.set(func(f *fake) { f.down = false })
			pass(2 * time.Minute)
			cancel()
			if err := <-done; err != nil {
				rt.Error(err)
			}
			for _, e := range f.events {
				want = append(want, e.ID)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				rt.Errorf("events (-want +got):\n%s", diff)
			}
			if len(want) > 0 && p.Marker() != want[len(want)-1] {
				rt.Errorf("the marker is %s", p.Marker())
			}
		})
	})
}

// TestPollerGoesOn where it was broken off, and where another one was.
func TestPollerGoesOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := f.client(t)
		take := func(p *rest.Poller, n int) string {
			t.Helper()
			var got []string
			for e, err := range p.Events(t.Context()) {
				if err != nil {
					t.Fatal(err)
				}
				change, err := e.Configuration()
				if err != nil {
					t.Fatal(err)
				}
				if got = append(got, *change.New); len(got) == n {
					break
				}
			}
			return strings.Join(got, " ")
		}
		poller := func(o rest.PollerOptions) *rest.Poller {
			t.Helper()
			p, err := c.NewPoller(o)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		for _, v := range strings.Fields("a b c d e f g") {
			f.put("key", v)
		}
		p := poller(rest.PollerOptions{Limit: 3})
		if got := take(p, 2) + "|" + take(p, 3); got != "a b|c d e" {
			t.Errorf("got %s", got)
		}
		if got := take(poller(rest.PollerOptions{Marker: p.Marker(), Limit: 1}), 2); got != "f g" {
			t.Errorf("another one from its marker: %s", got)
		}
		late := poller(rest.PollerOptions{SkipPast: true, Limit: 2})
		time.AfterFunc(time.Minute, func() { f.put("key", "h") })
		if got := take(late, 1); got != "h" {
			t.Errorf("one that skips the past: %s", got)
		}
	})
}

// TestPollerTellsFailures, waits longer after each, and ends with its context or by the
// handler's error.
func TestPollerTellsFailures(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.status = 500
		p, err := f.client(t).NewPoller(rest.PollerOptions{})
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		failures := 0
		for _, err := range p.Events(ctx) {
			if failures++; !errors.Is(err, rest.ErrInternal) {
				t.Errorf("got %v", err)
			}
		}
		// After 20, 40 and then 60 s.
		if failures < 11 || failures > 13 {
			t.Errorf("%d failures in 10 minutes", failures)
		}
		f.set(func(f *fake) { f.status = 0 })
		f.put("key", "a")
		full := errors.New("full")
		if err := p.Run(t.Context(), func(rest.Event) error { return full }); !errors.Is(err, full) {
			t.Errorf("run ended with %v", err)
		}
	})
}

// TestFeedThatCannotBeFollowed: events without ids, pages that do not advance.
func TestFeedThatCannotBeFollowed(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]string{
		`{"values":[{"type":"service.join"}],"metadata":{}}`:                       "an event has no id",
		`{"values":[{"id":"x","timestamp":1}],"metadata":{"next_marker":"start"}}`: "the feed does not advance",
		`{"values":[{"id":"x","timestamp":"1"}]}`:                                  "not what the API promises",
	} {
		srv := newCanned(t, withToken(func(received) answer { return answer{status: 200, body: body} }))
		p, err := newClient(t, srv.URL).NewPoller(rest.PollerOptions{Marker: "start"})
		if err != nil {
			t.Fatal(err)
		}
		for _, err := range p.Events(t.Context()) {
			if err != nil {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("got %v, want %q", err, want)
				}
				break
			}
		}
	}
}
