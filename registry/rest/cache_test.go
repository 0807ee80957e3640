package rest_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	telford "telford.dev/telford"
	"telford.dev/telford/registry/rest"
)

// describe shows a list as "ids age stale".
func describe(l rest.ServiceList, err error) string {
	if err != nil {
		return "error"
	}
	var ids []string
	for _, s := range l.Services {
		ids = append(ids, s.ID)
	}
	return fmt.Sprintf("%s %s %v", strings.Join(ids, ","), l.Age, l.Stale && l.Err != nil)
}

func cacheOf(t *testing.T, f *fake, o rest.CacheOptions) *rest.ServiceCache {
	t.Helper()
	s, err := f.client(t).NewServiceCache(o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (f *fake) add(ids ...string) {
	for _, id := range ids {
		f.services[id] = &fakeService{Service: rest.Service{ID: id, Tags: []string{"tag-" + id}}, deadline: time.Now().Add(24 * time.Hour)}
	}
}

func TestCache(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.add("api", "web")
		s := cacheOf(t, f, rest.CacheOptions{MaxStale: time.Hour})
		step := func(after time.Duration, want string, change func(*fake)) {
			t.Helper()
			pass(after)
			if change != nil {
				f.set(change)
			}
			if got := describe(s.Services(t.Context(), "")); got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
		step(0, "error", func(f *fake) { f.down = true })
		step(0, "error", func(f *fake) { f.down = false }) // it is not asked again at once
		step(2*time.Second, "api,web 0s false", nil)
		step(9*time.Second, "api,web 9s false", func(f *fake) { f.add("new") })
		step(time.Second, "api,new,web 0s false", nil)
		step(time.Minute, "api,new,web 1m0s true", func(f *fake) { f.down = true })
		step(0, "api,new,web 1m0s true", func(f *fake) { f.down, f.status = false, 503 })
		step(2*time.Second, "api,new,web 1m2s true", nil)
		step(time.Minute, "error", func(f *fake) { f.status = 400 }) // an answer is an answer
		step(0, "api,new,web 0s false", func(f *fake) { f.status = 0 })
		step(time.Hour, "api,new,web 1h0m0s true", func(f *fake) { f.down = true })
		step(time.Second, "error", nil)
		if _, err := s.Services(t.Context(), ""); !errors.Is(err, telford.ErrUnavailable) || !strings.Contains(err.Error(), "1h0m1s old, more than MaxStale 1h0m0s") {
			t.Errorf("too old: %v", err)
		}
		step(2*time.Second, "api,new,web 0s false", func(f *fake) { f.down = false })
	})
}

// TestCacheAsksOnce for all who need the same list, and gives what is known to those who
// cannot wait.
func TestCacheAsksOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.add("api")
		s := cacheOf(t, f, rest.CacheOptions{})
		var wg sync.WaitGroup
		for range 100 {
			wg.Go(func() {
				if got := describe(s.Services(t.Context(), "")); got != "api 0s false" {
					t.Errorf("got %s", got)
				}
			})
		}
		wg.Wait()
		if n := f.count("GET /services"); n != 1 {
			t.Errorf("asked %d times for 100 callers", n)
		}
		pass(time.Minute)
		f.set(func(f *fake) { f.hang = true })
		for range 100 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				if got := describe(s.Services(ctx, "")); got != "api 1m1s true" {
					t.Errorf("a caller with a second got %s", got)
				}
			})
		}
		wg.Wait()
		pass(time.Minute)
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(time.Second, cancel)
		for range 2 {
			wg.Go(func() {
				if _, err := s.Services(ctx, ""); !errors.Is(err, context.Canceled) {
					t.Errorf("a caller who left got %v", err)
				}
			})
		}
		wg.Wait()
		f.set(func(f *fake) { f.hang = false })
		if got := describe(s.Services(t.Context(), "")); got != "api 0s false" {
			t.Errorf("after one who left: %s", got)
		}
	})
}

// TestCacheIsBounded in the number of its lists and the length of each.
func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.add("aaa", "bbb", "ccc")
		s := cacheOf(t, f, rest.CacheOptions{MaxLists: 2, MaxServices: 2})
		for _, tag := range []string{"tag-aaa", "tag-bbb", "tag-aaa", "tag-ccc", "tag-aaa", "tag-bbb"} {
			if l, err := s.Services(t.Context(), tag); err != nil || len(l.Services) != 1 || l.Services[0].Tags[0] != tag {
				t.Errorf("%s: got %+v, %v", tag, l, err)
			}
		}
		// The first of each, and tag-bbb again, which had made room for tag-ccc.
		if n := f.count("GET /services"); n != 4 {
			t.Errorf("asked %d times", n)
		}
		if _, err := s.Services(t.Context(), ""); !errors.Is(err, telford.ErrResourceExhausted) || !strings.Contains(err.Error(), "more than MaxServices 2") {
			t.Errorf("got %v", err)
		}
	})
}
