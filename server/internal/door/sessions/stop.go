package sessions

import (
	"context"
	"math/rand/v2"
	"time"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/errs"
)

// perSession and maxSpread say over what time the instances are asked to come back, so
// that they do not come all at once.
const (
	perSession = 5 * time.Millisecond
	maxSpread  = 10 * time.Second
)

// spread returns a time from d to 2d, another one for each who asks.
func spread(d time.Duration) time.Duration {
	return d + rand.N(d) //nolint:gosec // no secret
}

// retire lets a connection that has a successor deliver what it has, and closes it.
func (p *Port) retire() {
	p.mu.Lock()
	p.retired = true
	p.mu.Unlock()
	p.stopWatching()
	cfg := &p.server.cfg
	p.server.goRun(func() {
		p.t.GoAway()
		// A connection that was cut without a word delivers nothing: the sooner it is
		// closed, the sooner what it carried goes on over the successor.
		ctx, cancel := context.WithTimeout(context.Background(), cfg.Interval/2)
		_, err := p.t.Ping(ctx)
		cancel()
		if err != nil {
			p.t.Close(errs.New(errs.Unavailable, "the connection has a successor and does not answer"))
			return
		}
		ctx, cancel = context.WithTimeout(context.Background(), cfg.DrainTimeout)
		defer cancel()
		_ = p.t.Drain(ctx) // closed either way
	})
}

func (p *Port) retiring() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.retired
}

// Stop drains: every instance is told to finish and when to come back, further
// connections are refused, and connections close when nothing runs on their session any
// more, at the latest when ctx ends. The registrations stay. It returns when no
// goroutine is left, and is safe more than once.
func (s *Server) Stop(ctx context.Context) {
	s.mu.Lock()
	first := !s.stopping.Swap(true)
	cancel := s.cancel
	s.cancel = nil
	ports := make([]*Port, 0, len(s.ports))
	for p := range s.ports {
		ports = append(ports, p)
	}
	s.mu.Unlock()
	for _, f := range cancel {
		f()
	}
	s.pushes.stop()
	if first {
		over := min(time.Duration(len(ports))*perSession+retryStopping, maxSpread)
		for _, p := range ports {
			comeBack := retryStopping + rand.N(over) //nolint:gosec // no secret
			s.goRun(func() { p.drain(ctx, comeBack) })
		}
	}
	s.wg.Wait()
	s.mu.Lock()
	rest := make([]*held, 0, len(s.sessions))
	for _, h := range s.sessions {
		rest = append(rest, h)
	}
	s.mu.Unlock()
	for _, h := range rest {
		s.end(h, errs.New(errs.Unavailable, "the runtime has stopped"), nil)
	}
	s.wg.Wait()
}

// drain asks one instance to go and closes its connection when it is idle or ctx ends.
func (p *Port) drain(ctx context.Context, comeBack time.Duration) {
	cause := errs.New(errs.Unavailable, "the runtime is stopping").After(comeBack)
	h := p.held.Load()
	if h == nil {
		p.t.Close(cause)
		return
	}
	m := &telfordv1.Drain{Reason: "the runtime is stopping", ReconnectAfterUs: comeBack.Microseconds()}
	if deadline, ok := ctx.Deadline(); ok {
		m.DeadlineUs = max(0, time.Until(deadline).Microseconds())
	}
	cut := context.AfterFunc(ctx, func() { p.t.Close(cause) })
	defer cut()
	if p.say(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Drain{Drain: m}}) != nil {
		return // it has gone
	}
	if h.peer.Drained(ctx) == nil {
		_ = p.t.Drain(ctx) // streams count here; closed either way
	}
}
