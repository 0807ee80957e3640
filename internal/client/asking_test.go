package client

import (
	"slices"
	"testing"
	"time"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/errs"
)

// A snapshot does not say what it answers, so that a second service is asked for only
// when the first answer is there.
func TestOneWatchIsAskedForAtATime(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	watches := make(chan *telfordv1.WatchRequest, 10)
	answer := make(chan struct{})
	f.set(func() {
		f.answer = func(c *fakeConn, m *telfordv1.ClientMessage) {
			if w := m.GetWatch(); w != nil {
				watches <- w
				go func() {
					select {
					case <-answer:
						f.agree(c, m)
					case <-c.link.Done():
					}
				}()
				return
			}
			f.agree(c, m)
		}
	})
	s, events := f.open()
	go func() { _ = s.Start(t.Context()) }()
	expect(t, events, "connected")
	<-watches
	s.opt.View.Want("third")
	s.Rewatch()
	s.opt.View.Want("fourth")
	s.Rewatch()
	select {
	case w := <-watches:
		t.Fatalf("%v is asked for before the first answer", w.GetServices())
	case <-time.After(50 * time.Millisecond):
	}
	if s.opt.View.Covers("third") {
		t.Error("what nobody has answered counts as known")
	}
	answer <- struct{}{}
	if w := <-watches; !slices.Equal(w.GetServices(), []string{"fourth", "other", "third"}) {
		t.Errorf("then %v is asked for", w.GetServices())
	}
	answer <- struct{}{}
	within(t, func() bool { return s.opt.View.Covers("third") && s.opt.View.Covers("fourth") })
}

// A session that was cut before the runtime had confirmed the registration registers
// again when it is resumed.
func TestRegistersUntilConfirmed(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	registrations := make(chan struct{}, 10)
	first := true
	f.set(func() {
		f.answer = func(c *fakeConn, m *telfordv1.ClientMessage) {
			if m.GetRegister() != nil {
				registrations <- struct{}{}
				if first {
					first = false
					c.link.Close(errs.New(errs.Unavailable, "cut"))
					return
				}
			}
			f.agree(c, m)
		}
	})
	s, _ := f.open()
	started(t, s)
	<-registrations
	<-registrations
	f.mu.Lock()
	defer f.mu.Unlock()
	if n := len(f.hellos); n != 2 || f.hellos[1].GetResumeToken() != "token" {
		t.Errorf("said %v", f.hellos)
	}
}

// within polls until cond holds.
func within(t *testing.T, cond func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for late := time.After(10 * time.Second); !cond(); {
		select {
		case <-tick.C:
		case <-late:
			t.Fatal("it never came to that")
		}
	}
}
