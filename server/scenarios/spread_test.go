package scenarios

import (
	"maps"
	"slices"
	"testing"
	"time"

	"telford.dev/telford"
)

// A fourth instance has its share of the calls within three seconds.
func TestFourthInstance(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.workers(3)
	caller := c.caller(3)
	loads := []*load{
		startLoad(t, caller, "direct", rate/4, 2*time.Millisecond, telford.Transport(telford.Direct)),
		startLoad(t, caller, "proxy", rate/4, 2*time.Millisecond, telford.Transport(telford.Proxy)),
	}
	for _, l := range loads {
		l.after(t, 500)
	}
	fourth := c.worker(nil)
	ready := time.Now()
	during(3*time.Second, nil)
	settled := time.Now()
	during(size(2*time.Second, 20*time.Second), nil)
	for _, l := range loads {
		count := l.since(settled)
		all := 0
		for _, n := range count {
			all += n
		}
		share := float64(count[fourth.id]) / float64(all)
		t.Logf("%s: the fourth instance has %.1f %% of %d calls, from 3 s after it was ready (%v)", l.name, 100*share, all, settled.Sub(ready).Round(time.Millisecond))
		if share < 0.2 || share > 0.3 {
			t.Errorf("%s: the share of the fourth instance is %.1f %%, want 20 to 30; all: %v", l.name, 100*share, count)
		}
		l.noFailure(t)
	}
}

// Calls stay in the locality of their caller as long as somebody runs there, and spill
// over when nobody does any more.
func TestLocality(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	at := func(where string) func(*workerSpec) { return func(s *workerSpec) { s.Locality = where } }
	near := c.worker(at("rack-1"))
	far := c.worker(at("rack-2"))
	caller := c.caller(2, telford.Locality("rack-1"))
	// So few calls that a machine that stands still for a moment does not fill the near
	// instance: a full one spills over, as it should.
	loads := []*load{
		startLoad(t, caller, "direct", rate/40, 2*time.Millisecond, telford.Transport(telford.Direct)),
		startLoad(t, caller, "proxy", rate/40, 2*time.Millisecond, telford.Transport(telford.Proxy), telford.Timeout(4*time.Second)),
	}
	for _, l := range loads {
		l.after(t, 20)
	}
	warm := time.Now()
	for _, l := range loads {
		l.after(t, 100)
	}
	for _, l := range loads {
		if got := slices.Collect(maps.Keys(l.since(warm))); !slices.Equal(got, []string{near.id}) {
			t.Errorf("%s: calls left the locality: %v", l.name, l.since(warm))
		}
	}
	before := time.Now()
	near.kill(t)
	dead := time.Now()
	for _, l := range loads {
		l.after(t, 60)
		if got := slices.Collect(maps.Keys(l.since(dead))); !slices.Equal(got, []string{far.id}) {
			t.Errorf("%s: %v", l.name, l.since(dead))
		}
	}
	near = c.worker(at("rack-1"))
	for _, l := range loads {
		back := time.Now()
		took := within(t, 10*time.Second, "the calls return to the locality", func() bool { return l.since(back)[near.id] > 20 })
		t.Logf("%s: back in the locality %v after an instance was ready there", l.name, took)
		l.cuts = []cut{{before, dead}}
		l.onlyInFlight(t)
	}
	onceEach(t, c, loads...)
}
