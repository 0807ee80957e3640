package scenarios

import (
	"errors"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"telford.dev/telford"
)

// rate is how many calls a second the scenarios make.
const rate = 2000

// An instance that is killed costs no more than the calls that were in flight on it, and
// nobody goes to it any more.
func TestKilledInstance(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	addr := freeAddr(t)
	victim := c.worker(func(s *workerSpec) { s.Listen = addr })
	c.workers(2)
	caller := c.caller(3)
	loads := []*load{
		startLoad(t, caller, "direct", rate/2, 2*time.Millisecond, telford.Transport(telford.Direct)),
		startLoad(t, caller, "auto", rate/4, 2*time.Millisecond),
		// A cut session may be resumed, so that a command on it waits for that until its
		// deadline.
		startLoad(t, caller, "proxy", rate/4, 2*time.Millisecond, telford.Transport(telford.Proxy), telford.Timeout(4*time.Second)),
	}
	within(t, patience, "the victim is called on every way", func() bool {
		for _, l := range loads {
			if l.since(time.Time{})[victim.id] < 50 {
				return false
			}
		}
		return true
	})
	for _, l := range loads {
		l.after(t, 200)
	}

	before := time.Now()
	victim.kill(t)
	dead := time.Now()
	// In its place somebody counts who comes.
	visits := countVisits(t, addr)
	during(2*time.Second, nil)
	early := visits.Load()
	during(size(2*time.Second, 2*time.Minute), nil)
	if late := visits.Load() - early; late > 0 {
		t.Errorf("%d connections to the dead instance later than 2 s after its end", late)
	}
	t.Logf("%d connections to the dead instance in the first 2 s", early)
	for _, l := range loads {
		l.cuts = []cut{{before, dead}}
		l.onlyInFlight(t)
		for _, o := range failures(l.outcomes) {
			if !errors.Is(o.err, telford.ErrUnavailable) && (l.mode != "proxy" || !errors.Is(o.err, telford.ErrDeadlineExceeded)) {
				t.Errorf("a call failed with %v", o.err)
			}
		}
		for _, o := range l.outcomes {
			if o.begin.After(dead) && o.instance == victim.id {
				t.Errorf("the dead instance has answered")
			}
		}
	}
	onceEach(t, c, loads...)
}

// countVisits listens and counts who connects.
func countVisits(t testing.TB, addr string) *atomic.Int64 {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	must(t, err)
	n := new(atomic.Int64)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := ln.Accept()
			if err != nil {
				return
			}
			n.Add(1)
			_ = nc.Close() // it is nobody
		}
	}()
	t.Cleanup(func() {
		_ = ln.Close()
		<-done
	})
	return n
}
