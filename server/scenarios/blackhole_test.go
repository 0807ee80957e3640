package scenarios

import (
	"errors"
	"testing"
	"time"

	"telford.dev/telford"
)

// The bounds of the heartbeats: the longest silence before a ping, and two pings of 2 s
// without an answer. Between instances silence is at most 3 s while calls wait; between
// an instance and the runtime at most a sixth of the lease of 90 s.
const (
	directBound  = 3*time.Second + 2*2*time.Second
	sessionBound = 15*time.Second + 2*2*time.Second
)

// slack is what a busy machine may add to a bound.
const slack = time.Second

// An instance that the network has swallowed is given up within the bound of the
// heartbeat, and called again when it is back.
func TestBlackHoleBetweenInstances(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	addr := freeAddr(t)
	line := newRelay(t, addr)
	victim := c.worker(func(s *workerSpec) {
		s.Listen, s.Advertise, s.Port = addr, "127.0.0.1", portOf(t, line.addr())
	})
	c.workers(2)
	caller := c.caller(3)
	loads := []*load{
		startLoad(t, caller, "direct", rate/4, 2*time.Millisecond, telford.Transport(telford.Direct)),
		startLoad(t, caller, "auto", rate/4, 2*time.Millisecond),
	}
	called := func(from time.Time) func() bool {
		return func() bool { return loads[0].since(from)[victim.id] > 20 && loads[1].since(from)[victim.id] > 20 }
	}
	within(t, patience, "the victim is called", called(time.Time{}))
	line.freeze()
	frozen := time.Now()
	during(directBound+slack+size(2*time.Second, 5*time.Minute), nil)
	line.thaw()
	thawed := time.Now()
	took := within(t, patience, "the victim is called again", called(thawed))
	t.Logf("it was called again %v after the hole", took)
	for _, l := range loads {
		l.throughHole(t, frozen, directBound)
	}
	onceEach(t, c, loads...)
}

// throughHole ends the load; calls may have failed, or waited, only if they began before
// the hole was found out.
func (l *load) throughHole(t testing.TB, frozen time.Time, bound time.Duration) {
	t.Helper()
	all := l.stop()
	l.report(t)
	var late []outcome
	stuck, lastStuck := 0, time.Duration(0)
	for _, o := range all {
		// Two seconds are more than any call takes that is not stuck.
		if o.err == nil && o.end.Sub(o.begin) < 2*time.Second {
			continue
		}
		stuck++
		lastStuck = max(lastStuck, o.begin.Sub(frozen))
		if o.begin.After(frozen.Add(bound + slack)) {
			if o.err == nil {
				o.err = errors.New("it was stuck")
			}
			late = append(late, o)
		}
	}
	t.Logf("%s: %d calls were stuck or failed, the last of them begun %v after the hole opened", l.name, stuck, lastStuck.Round(time.Millisecond))
	if len(late) > 0 {
		l.complain(t, late)
	}
}

// An instance that the runtime cannot reach any more is not picked for calls through it,
// is never reported gone, goes on serving direct calls, and is back after the hole.
func TestBlackHoleToTheRuntime(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	line := newRelay(t, c.grpc)
	victim := c.worker(func(s *workerSpec) { s.Server = line.addr() })
	c.workers(2)
	caller := c.caller(3)
	direct := startLoad(t, caller, "direct", rate/8, 2*time.Millisecond, telford.Transport(telford.Direct))
	proxy := startLoad(t, caller, "proxy", rate/8, 2*time.Millisecond, telford.Transport(telford.Proxy), telford.Timeout(3*time.Second))
	within(t, patience, "the victim is called", func() bool { return proxy.since(time.Time{})[victim.id] > 20 })
	line.freeze()
	frozen := time.Now()
	found := within(t, sessionBound+slack, "the runtime gives the session up", func() bool {
		return c.reachable() == 2
	})
	t.Logf("found out after %v", found)
	during(size(5*time.Second, 5*time.Minute), nil)
	if n := direct.since(frozen.Add(found))[victim.id]; n == 0 {
		t.Error("the instance gets no direct calls although it is registered")
	}
	line.thaw()
	thawed := time.Now()
	// After a long hole the next attempt may be as far away as the backoff allows.
	took := within(t, size(patience, 2*patience), "the victim is called through the runtime again", func() bool { return proxy.since(thawed)[victim.id] > 20 })
	t.Logf("it was called again %v after the hole", took)
	direct.noFailure(t)
	if gone := c.tombstones(); len(gone) > 0 && !soak { // the lease ends in a long hole
		t.Errorf("there are tombstones: %v", gone)
	}
	proxy.throughHole(t, frozen, found)
	onceEach(t, c, direct, proxy)
}
