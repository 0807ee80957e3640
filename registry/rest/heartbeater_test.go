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

	"github.com/google/go-cmp/cmp"

	telford "telford.dev/telford"
	"telford.dev/telford/registry/rest"
)

// beating starts a Heartbeater for db1 and returns what it tells its callbacks.
func beating(t *testing.T, f *fake, o rest.HeartbeaterOptions) (*rest.Heartbeater, func() string) {
	t.Helper()
	var mu sync.Mutex
	var log []string
	begun := time.Now()
	note := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		log = append(log, fmt.Sprintf("%ds %s", int(time.Since(begun).Round(time.Second).Seconds()), what))
	}
	o.OnRegistered = func() { note("registered") }
	o.OnLost = func(error) { note("lost") }
	h, err := f.client(t).NewHeartbeater(db1(), o)
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	return h, func() string {
		mu.Lock()
		defer mu.Unlock()
		return strings.Join(log, ", ")
	}
}

func stop(t *testing.T, h *rest.Heartbeater) {
	t.Helper()
	if err := h.Stop(t.Context()); err != nil {
		t.Errorf("stop: %v", err)
	}
	<-h.Done()
}

// pass lets virtual time go by.
func pass(d time.Duration) {
	<-time.After(d)
	synctest.Wait()
}

func TestHeartbeater(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		h, told := beating(t, f, rest.HeartbeaterOptions{})
		if err := h.Start(t.Context()); err != nil {
			t.Errorf("starting again: %v", err)
		}
		pass(10 * time.Minute)
		// Every 21.6 to 24 s.
		if n := f.count("POST /services/dfw1-db1/heartbeat"); n < 25 || n > 27 {
			t.Errorf("%d heartbeats in 10 minutes", n)
		}
		if !h.Registered() || h.Err() != nil {
			t.Errorf("registered %v, error %v", h.Registered(), h.Err())
		}
		stop(t, h)
		stop(t, h)
		pass(time.Minute)
		if diff := cmp.Diff([]string{"service.join dfw1-db1", "service.remove dfw1-db1"}, f.feed()); diff != "" {
			t.Errorf("feed (-want +got):\n%s", diff)
		}
		if told() != "0s registered" {
			t.Errorf("told %s", told())
		}
		if err := h.Start(t.Context()); !errors.Is(err, telford.ErrFailedPrecondition) {
			t.Errorf("start after stop: %v", err)
		}
	})
}

// TestHeartbeaterSurvives what networks and registries do.
func TestHeartbeaterSurvives(t *testing.T) {
	t.Parallel()
	const join, timeout, removal = "service.join dfw1-db1", "service.timeout dfw1-db1", "service.remove dfw1-db1"
	tests := map[string]struct {
		break_ func(f *fake) // after 30 s
		mend   func(f *fake) // 4 minutes later
		feed   []string      // until 6 minutes have passed
		lost   int
	}{
		"nothing": {nil, nil, []string{join}, 0},
		"errors":  {func(f *fake) { f.status = 500 }, func(f *fake) { f.status = 0; f.sweep() }, []string{join, timeout, join}, 1},
		"away":    {func(f *fake) { f.down = true }, func(f *fake) { f.down = false; f.sweep() }, []string{join, timeout, join}, 1},
		"hanging": {func(f *fake) { f.hang = true }, func(f *fake) { f.hang = false; f.sweep() }, []string{join, timeout, join}, 1},
		// Nobody has noticed: the late heartbeat is taken.
		"unnoticed": {func(f *fake) { f.down = true }, func(f *fake) { f.down = false }, []string{join}, 0},
		"one failure": {func(f *fake) {
			f.down = true
			time.AfterFunc(20*time.Second, func() { f.set(func(f *fake) { f.down = false }) })
		}, nil, []string{join}, 0},
		"removed": {func(f *fake) { f.services = map[string]*fakeService{} }, nil, []string{join, join}, 1},
		// The token that the lost answer had is gone: the service is ours, and is made anew.
		"lost answer": {func(f *fake) { f.lose = 1 }, nil, []string{join, removal, join}, 1},
		// Two answers lost, the second of them to the removal.
		"lost answers": {func(f *fake) { f.lose = 3 }, nil, []string{join, removal, join}, 1},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFake()
				h, told := beating(t, f, rest.HeartbeaterOptions{})
				pass(30 * time.Second)
				if test.break_ != nil {
					f.set(test.break_)
				}
				pass(4 * time.Minute)
				if test.mend != nil {
					f.set(test.mend)
				}
				pass(90 * time.Second)
				if !h.Registered() {
					t.Error("it is not registered in the end")
				}
				if diff := cmp.Diff(test.feed, f.feed()); diff != "" {
					t.Errorf("feed (-want +got):\n%s", diff)
				}
				if n := strings.Count(told(), "lost"); n != test.lost {
					t.Errorf("told %s, want %d times lost", told(), test.lost)
				}
				stop(t, h)
			})
		})
	}
}

// TestHeartbeaterTakesNothingFromOthers: a service that somebody else registered under
// the id is waited out, at the start and later, and never removed.
func TestHeartbeaterTakesNothingFromOthers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		other, err := f.client(t).NewHeartbeater(db1(), rest.HeartbeaterOptions{KeepOnStop: true})
		if err != nil {
			t.Fatal(err)
		}
		if err := other.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		h, told := beating(t, f, rest.HeartbeaterOptions{})
		pass(5 * time.Minute)
		if h.Registered() || told() != "" {
			t.Errorf("it took the id of another: %s", told())
		}
		if err := other.Stop(t.Context()); err != nil {
			t.Fatal(err)
		}
		pass(35 * time.Second)
		if !h.Registered() {
			t.Error("it did not take over after the other had lapsed")
		}
		// Somebody takes the id away and uses it.
		f.set(func(f *fake) {
			f.services["dfw1-db1"].token = "theirs"
			f.services["dfw1-db1"].deadline = time.Now().Add(time.Hour)
		})
		pass(5 * time.Minute)
		if h.Registered() {
			t.Error("it says that it is registered")
		}
		stop(t, h)
		if diff := cmp.Diff([]string{"service.join dfw1-db1", "service.timeout dfw1-db1", "service.join dfw1-db1"}, f.feed()); diff != "" {
			t.Errorf("feed (-want +got):\n%s", diff)
		}
	})
}

// TestLostCreation: the answer to the creation was lost, and with it the first token.
// The service that is there is ours, and made anew; one that differs is somebody else's.
func TestLostCreation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.lose = 1
		h, told := beating(t, f, rest.HeartbeaterOptions{})
		pass(5 * time.Second)
		if !h.Registered() || told() != "0s registered" {
			t.Errorf("told %q", told())
		}
		stop(t, h)
		if diff := cmp.Diff([]string{"service.join dfw1-db1", "service.remove dfw1-db1", "service.join dfw1-db1", "service.remove dfw1-db1"}, f.feed()); diff != "" {
			t.Errorf("feed (-want +got):\n%s", diff)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.add("dfw1-db1")
		f.lose = 1
		h, told := beating(t, f, rest.HeartbeaterOptions{})
		pass(time.Minute)
		if h.Registered() || told() != "" || f.count("DELETE") > 0 {
			t.Errorf("it took the id of another: %s", told())
		}
		stop(t, h)
	})
}

func TestHeartbeaterWithoutRecreation(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		c := f.client(t)
		token, err := c.CreateService(t.Context(), db1())
		if err != nil {
			t.Fatal(err)
		}
		h, told := beating(t, f, rest.HeartbeaterOptions{Token: token, NoRecreate: true, Interval: 10 * time.Second})
		pass(time.Minute)
		if n := f.count("POST /services/dfw1-db1/heartbeat"); n < 6 || n > 7 || !h.Registered() {
			t.Errorf("%d heartbeats in a minute, every 9 to 10 s", n)
		}
		if err := c.RemoveService(t.Context(), "dfw1-db1"); err != nil {
			t.Fatal(err)
		}
		<-h.Done()
		if !errors.Is(h.Err(), rest.ErrNotFound) || told() == "" || h.Registered() {
			t.Errorf("ended with %v, told %s", h.Err(), told())
		}
		stop(t, h)
		if n := f.count("DELETE"); n != 1 {
			t.Errorf("%d removals, want ours alone", n)
		}
	})
}

// TestHeartbeaterUpdate: what is changed is registered again as it is.
func TestHeartbeaterUpdate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		h, _ := beating(t, f, rest.HeartbeaterOptions{KeepOnStop: true})
		pass(time.Second)
		changed := map[string]string{"color": "red"}
		if err := h.Update(t.Context(), rest.ServiceUpdate{Metadata: changed}); err != nil {
			t.Fatal(err)
		}
		if err := h.Update(t.Context(), rest.ServiceUpdate{HeartbeatTimeout: time.Second}); !errors.Is(err, telford.ErrInvalidArgument) {
			t.Errorf("a timeout of a second: %v", err)
		}
		f.set(func(f *fake) { clear(f.services) })
		pass(time.Minute)
		stop(t, h)
		got := f.services["dfw1-db1"]
		if got == nil || !cmp.Equal(got.Metadata, changed) || !cmp.Equal(got.Tags, db1().Tags) {
			t.Errorf("registered again is %+v", got)
		}
	})
}

// TestHeartbeaterStops at once, also in the middle of a request, and before its start.
func TestHeartbeaterStops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFake()
		f.hang = true
		h, _ := beating(t, f, rest.HeartbeaterOptions{})
		pass(time.Second)
		begun := time.Now()
		stop(t, h)
		if d := time.Since(begun); d > 0 {
			t.Errorf("stopping took %s", d)
		}

		unstarted, err := f.client(t).NewHeartbeater(db1(), rest.HeartbeaterOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := unstarted.Stop(t.Context()); err != nil {
			t.Errorf("stop before start: %v", err)
		}

		f.set(func(f *fake) { f.hang = false; f.add("dfw1-db1") })
		created, err := f.client(t).NewHeartbeater(db1(), rest.HeartbeaterOptions{Token: "token"})
		if err != nil {
			t.Fatal(err)
		}
		stopped := created.Stop(t.Context())
		if len(f.services) > 0 || stopped != nil {
			t.Errorf("stop before start of a service that was created: %v", stopped)
		}
		ctx, cancel := context.WithCancel(t.Context())
		bound, err := f.client(t).NewHeartbeater(db1(), rest.HeartbeaterOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if err := bound.Start(ctx); err != nil {
			t.Fatal(err)
		}
		pass(time.Second)
		cancel()
		<-bound.Done()
		if f.count("DELETE") != 1 {
			t.Error("the end of the context removed the service")
		}
		f.set(func(f *fake) { f.hang = true })
		late, giveUp := context.WithTimeout(t.Context(), time.Second)
		defer giveUp()
		if err := bound.Stop(late); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a removal that hangs: %v", err)
		}
	})
}
