package rest_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/registry/rest"
)

// watching collects the states of a watch.
func watching(t *testing.T, f *fake, o rest.WatchOptions) (states func() []rest.Configuration, errs func() int) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	var mu sync.Mutex
	var seen []rest.Configuration
	var failed int
	done := make(chan struct{})
	go func() {
		defer close(done)
		for s, err := range f.client(t).WatchConfiguration(ctx, o) {
			mu.Lock()
			if err != nil {
				failed++
			} else {
				seen = append(seen, s)
			}
			mu.Unlock()
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return func() []rest.Configuration {
			mu.Lock()
			defer mu.Unlock()
			return slices.Clone(seen)
		}, func() int {
			mu.Lock()
			defer mu.Unlock()
			return failed
		}
}

func TestWatch(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.put("/prod/a", "1")
		f.put("/prod2/a", "other")
		f.put("/prod", "itself")
		f.put("plain", "x")
		states, failed := watching(t, f, rest.WatchOptions{Namespace: "/prod/"})
		pass(time.Minute)
		f.put("/prod/a", "2")
		f.put("/prod/a", "3")
		f.put("/prod/b", "new")
		f.put("/prod2/a", "changed")
		pass(time.Minute)
		f.remove("/prod/a")
		f.set(func(f *fake) { f.down = true })
		pass(time.Minute)
		f.set(func(f *fake) { f.down = false })
		pass(2 * time.Minute)
		want := []rest.Configuration{
			{Values: map[string]string{"/prod": "itself", "/prod/a": "1"}, Changed: []rest.ConfigurationChange{{ID: "/prod", New: ptr("itself")}, {ID: "/prod/a", New: ptr("1")}}},
			{Values: map[string]string{"/prod": "itself", "/prod/a": "3", "/prod/b": "new"}, Changed: []rest.ConfigurationChange{{ID: "/prod/a", Old: ptr("1"), New: ptr("3")}, {ID: "/prod/b", New: ptr("new")}}},
			{Values: map[string]string{"/prod": "itself", "/prod/b": "new"}, Changed: []rest.ConfigurationChange{{ID: "/prod/a", Old: ptr("3")}}},
		}
		if diff := cmp.Diff(want, states()); diff != "" {
			t.Errorf("states (-want +got):\n%s", diff)
		}
		if failed() == 0 {
			t.Error("the outage was not told")
		}
	})
}

// TestWatchMissesNothingWhileItReads: what changes while the values are being read is in
// the next state, and nothing goes back.
func TestWatchMissesNothingWhileItReads(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.put("key", "1")
		f.onList = func() {
			f.put("key", "2")
			f.put("key", "3")
			f.put("late", "x")
		}
		states, _ := watching(t, f, rest.WatchOptions{})
		pass(time.Minute)
		var got []string
		for _, s := range states() {
			got = append(got, fmt.Sprint(s.Values))
		}
		if diff := cmp.Diff([]string{"map[key:3 late:x]"}, got); diff != "" {
			t.Errorf("states (-want +got):\n%s", diff)
		}
	})
}

// TestWatchReadsAnew when the registry does not know its marker any more, and when a
// change cannot be read.
func TestWatchReadsAnew(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.put("key", "1")
		f.put("gone", "1")
		states, _ := watching(t, f, rest.WatchOptions{})
		pass(time.Minute)
		f.set(func(f *fake) {
			f.floor = f.serial + 1
			f.events = nil
			f.values = map[string]string{"key": "2"}
		})
		f.put("other", "x")
		pass(time.Minute)
		f.set(func(f *fake) {
			f.values["key"] = "3"
			f.event(rest.ConfigurationUpdate, []byte(`{"new_value":7}`))
		})
		pass(time.Minute)
		var got []string
		for _, s := range states() {
			got = append(got, fmt.Sprint(s.Values))
		}
		want := []string{"map[gone:1 key:1]", "map[key:2 other:x]", "map[key:3 other:x]"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("states (-want +got):\n%s", diff)
		}
	})
}

func TestWatchOfWrongOptions(t *testing.T) {
	t.Parallel()
	n := 0
	for _, err := range newFake().client(t).WatchConfiguration(t.Context(), rest.WatchOptions{Interval: time.Hour}) {
		if n++; err == nil {
			t.Error("an interval of an hour is taken")
		}
	}
	if n != 1 {
		t.Errorf("%d steps", n)
	}
	f := newFake()
	f.status = 404
	for _, err := range f.client(t).WatchConfiguration(t.Context(), rest.WatchOptions{}) {
		if !errors.Is(err, rest.ErrNotFound) {
			t.Errorf("got %v", err)
		}
		break
	}
}
