package scenarios

import (
	"testing"
	"time"

	"telford.dev/telford"
)

// A rolling restart of everything, the instances one after another and then the runtime,
// again and again under load, costs no call, and no call runs twice.
func TestRollingRestartOfEverything(t *testing.T) {
	alone(t)
	c := newCluster(t)
	workers := c.workers(3)
	caller := c.caller(3)
	loads := []*load{
		startLoad(t, caller, "auto", rate/2, 2*time.Millisecond),
		startLoad(t, caller, "proxy", rate/2, 2*time.Millisecond, telford.Transport(telford.Proxy)),
	}
	served := func(n int64) {
		for _, l := range loads {
			l.after(t, n)
		}
	}
	for range size(1, 10) {
		for i, w := range workers {
			served(100)
			w.stop(t)
			workers[i] = c.worker(nil)
		}
		served(100)
		c.runtime.stop(t)
		c.serve()
		served(300)
	}
	for _, l := range loads {
		l.noFailure(t)
	}
	onceEach(t, c, loads...)
}
