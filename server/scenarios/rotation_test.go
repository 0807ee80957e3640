package scenarios

import (
	"sync"
	"testing"
	"time"

	"telford.dev/telford"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/link"
)

// Certificates of 20 s are renewed under load without a failed call, and a connection
// whose end does not renew is closed when its certificate ends.
func TestRotation(t *testing.T) {
	t.Parallel()
	const life = 20 * time.Second
	c := newCluster(t, "--leaf-life", life.String())
	workers := c.workers(2)
	caller := c.caller(2)
	first := caller.Identity().NotAfter
	loads := []*load{
		startLoad(t, caller, "direct", rate/4, 2*time.Millisecond, telford.Transport(telford.Direct)),
		startLoad(t, caller, "auto", rate/4, 2*time.Millisecond),
		startLoad(t, caller, "proxy", rate/4, 2*time.Millisecond, telford.Transport(telford.Proxy)),
	}

	// Who never renews: a session with the runtime and a link to an instance.
	stale := c.certify(c.key("stale"), "stale", "in-stale")
	end := stale.Identity().NotAfter
	toRuntime := c.session(stale, nil, "").Conn
	address := caller.ServiceMap()["work"].Instances[0]
	toInstance, err := dialLink(t, address.Address, stale, ident.Expect{Instance: address.ID}, link.Options{})
	must(t, err)
	var wg sync.WaitGroup
	for name, conn := range map[string]*link.Conn{"the runtime": toRuntime, "an instance": toInstance} {
		wg.Go(func() {
			limit := time.NewTimer(time.Until(end) + slack)
			defer limit.Stop()
			select {
			case <-conn.Done():
				t.Logf("the link to %s ended %v after the certificate: %v", name, time.Since(end).Round(time.Millisecond), conn.Err())
				if early := time.Until(end); early > slack {
					t.Errorf("the link to %s ended %v before the certificate", name, early)
				}
			case <-limit.C:
				t.Errorf("the link to %s outlives the certificate", name)
			}
		})
	}

	during(size(17*time.Second, 2*time.Minute), nil)
	for _, l := range loads {
		l.noFailure(t)
	}
	if at := caller.Identity().NotAfter; !at.After(first) {
		t.Error("the caller has the certificate of the start")
	}
	onceEach(t, c, loads...)
	wg.Wait()
	for _, w := range workers {
		w.stop(t)
	}
}
