package scenarios

import (
	"context"
	"sync/atomic"
	"testing"
	"time"

	"telford.dev/telford"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/session"
)

// deafHandler takes calls and never answers.
type deafHandler struct {
	taken atomic.Int64
	end   chan struct{}
}

func (d *deafHandler) HandleCall(context.Context, *message.Call) *message.Reply {
	d.taken.Add(1)
	<-d.end
	return &message.Reply{}
}

func (d *deafHandler) HandleStream(context.Context, *message.Call, message.Sender) *message.Reply {
	return &message.Reply{}
}

// A worker that answers pings and acknowledges nothing is found within two intervals of
// the heartbeat; from then on others do its work.
func TestDeafWorker(t *testing.T) {
	t.Parallel()
	c := newCluster(t)
	c.workers(2)
	deaf := &deafHandler{end: make(chan struct{})}
	t.Cleanup(func() { close(deaf.end) })
	s := c.session(c.certify(c.key("work"), "work", "in-deaf"), deaf, "work")
	caller := c.caller(3)
	l := startLoad(t, caller, "proxy", rate/20, time.Millisecond, telford.Transport(telford.Proxy), telford.Timeout(40*time.Second))
	within(t, patience, "the deaf worker is given a call", func() bool { return deaf.taken.Load() > 0 })
	begin := time.Now()
	const bound = 2 * session.Interval
	// The runtime looks every half interval.
	took := within(t, bound+session.Interval/2+slack, "the session of the deaf worker ends", func() bool {
		select {
		case <-s.Done():
			return true
		default:
			return false
		}
	})
	given := deaf.taken.Load()
	t.Logf("found after %v, with %d calls taken: %v", took, given, s.Err())
	l.after(t, 100)
	if n := deaf.taken.Load(); n != given {
		t.Errorf("the deaf worker was given %d more calls", n-given)
	}
	l.throughHole(t, begin, took)
	if failed := failures(l.outcomes); int64(len(failed)) > given {
		t.Errorf("%d calls failed, and the deaf worker had taken %d", len(failed), given)
	}
}
