package scenarios

import (
	"context"
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"telford.dev/telford"
)

// A runtime that is killed and comes back is not missed by direct calls; what is called
// through it waits for it; and nobody is ever reported gone.
func TestKilledRuntime(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	workers := c.workers(3)
	caller := c.caller(3)
	direct := startLoad(t, caller, "direct", rate, 2*time.Millisecond, telford.Transport(telford.Direct))
	auto := startLoad(t, caller, "auto", 100, 2*time.Millisecond)
	proxy := startLoad(t, caller, "proxy", 100, 2*time.Millisecond, telford.Transport(telford.Proxy))
	for _, l := range []*load{direct, auto, proxy} {
		l.after(t, 100)
	}
	var missing []string
	watch := func() {
		known := caller.ServiceMap()["work"].Instances
		for _, w := range workers {
			if !slices.ContainsFunc(known, func(i telford.InstanceInfo) bool { return i.ID == w.id }) {
				missing = append(missing, w.id)
			}
		}
	}
	for range size(1, 10) {
		before := time.Now()
		c.runtime.kill(t)
		dead := time.Now()
		during(500*time.Millisecond, watch)
		c.serve()
		back := time.Now()
		proxy.after(t, 100)
		within(t, patience, "all sessions are back", func() bool { watch(); return c.reachable() == 3 })
		t.Logf("away for %v; the sessions were back %v after the ready line", back.Sub(dead).Round(time.Millisecond), time.Since(back).Round(time.Millisecond))
		during(size(time.Second, 10*time.Second), watch)
		proxy.cuts = append(proxy.cuts, cut{before, dead})
	}
	direct.noFailure(t)
	auto.noFailure(t)
	proxy.onlyInFlight(t)
	if len(missing) > 0 {
		t.Errorf("the watch has reported instances gone %d times: %v", len(missing), slices.Compact(slices.Sorted(slices.Values(missing))))
	}
	if gone := c.tombstones(); len(gone) > 0 {
		t.Errorf("there are tombstones: %v", gone)
	}
	onceEach(t, c, direct, auto, proxy)
}

// reachable counts the workers that the runtime can reach.
func (c *cluster) reachable() int {
	out, err := c.try("services", "list", "work")
	if err != nil {
		return -1
	}
	n := 0
	for line := range strings.Lines(out) {
		if f := strings.Fields(line); len(f) > 5 && f[0] == "work" && f[5] == "yes" {
			n++
		}
	}
	return n
}

// A runtime that is restarted in order costs no call on any way.
func TestRestartedRuntime(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.workers(3)
	caller := c.caller(3)
	loads := []*load{
		startLoad(t, caller, "direct", rate/2, 2*time.Millisecond, telford.Transport(telford.Direct)),
		startLoad(t, caller, "auto", rate/4, 2*time.Millisecond),
		startLoad(t, caller, "proxy", rate/4, 2*time.Millisecond, telford.Transport(telford.Proxy)),
	}
	for range size(1, 10) {
		for _, l := range loads {
			l.after(t, 100)
		}
		c.runtime.stop(t)
		c.serve()
		for _, l := range loads {
			l.after(t, 300)
		}
	}
	for _, l := range loads {
		l.noFailure(t)
	}
	if gone := c.tombstones(); len(gone) > 0 {
		t.Errorf("there are tombstones: %v", gone)
	}
	onceEach(t, c, loads...)
}

// Instances that are restarted in order, one after another, cost no call, and no call
// runs twice.
func TestRestartedInstances(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	workers := c.workers(3)
	caller := c.caller(3)
	loads := []*load{
		startLoad(t, caller, "direct", rate/4, 2*time.Millisecond, telford.Transport(telford.Direct)),
		startLoad(t, caller, "auto", rate/2, 2*time.Millisecond),
		startLoad(t, caller, "proxy", rate/4, 2*time.Millisecond, telford.Transport(telford.Proxy)),
	}
	for range size(2, 10) {
		for i, w := range workers {
			for _, l := range loads {
				l.after(t, 100)
			}
			w.stop(t)
			workers[i] = c.worker(nil)
		}
	}
	since := time.Now()
	within(t, 10*time.Second, "the last ones are called", func() bool {
		for _, l := range loads {
			if called := slices.Sorted(maps.Keys(l.since(since))); len(called) != 3 {
				return false
			}
		}
		return true
	})
	for _, l := range loads {
		l.noFailure(t)
	}
	onceEach(t, c, loads...)
}

// After each of many restarts of the runtime, every one of many sessions receives work
// within ten seconds.
func TestManySessionsReturn(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	var ids []string
	for range size(10, 50) {
		s, err := telford.New("work", telford.WithServer(c.grpc), telford.WithKey(c.key("work")))
		must(t, err)
		must(t, telford.Handle(s, "work", func(_ context.Context, in *workReq) (*workResp, error) {
			return &workResp{ID: in.ID, Instance: s.Identity().Instance}, nil
		}))
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		must(t, s.Start(ctx))
		cancel()
		t.Cleanup(func() { _ = s.Stop(context.Background()) }) // the cluster ends as well
		ids = append(ids, s.Identity().Instance)
	}
	caller := c.caller(len(ids))
	var worst time.Duration
	for n := range size(2, 20) {
		if n%2 == 0 {
			c.runtime.kill(t)
		} else {
			c.runtime.stop(t)
		}
		c.serve()
		ready := time.Now()
		for _, id := range ids {
			left := 10*time.Second - time.Since(ready)
			for {
				_, err := telford.Call[workResp](t.Context(), caller, "work", "work", &workReq{}, telford.Transport(telford.Proxy),
					telford.Instance(id), telford.Timeout(max(left, time.Millisecond)), telford.WaitForReady())
				if err == nil {
					break
				}
				if left = 10*time.Second - time.Since(ready); left <= 0 || !errors.Is(err, telford.ErrNoInstance) && !errors.Is(err, telford.ErrUnavailable) {
					t.Fatalf("restart %d: %s has no work %v after the ready line: %v", n, id, time.Since(ready), err)
				}
			}
		}
		worst = max(worst, time.Since(ready))
	}
	t.Logf("%d sessions had work at most %v after the ready line", len(ids), worst.Round(time.Millisecond))
}
