package client

import (
	"context"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/session"
)

// pong is the end of a ping: a round trip, or a failure.
type pong struct {
	p   *port
	rtt time.Duration
	err error
}

// nextBeat is how long to wait for a sign of life from now.
func (s *Session) nextBeat(beat *session.Heartbeat, p *port) time.Duration {
	quiet := s.opt.Clock.Now().Sub(p.conn.LastReceived())
	return max(beat.Next()-quiet, 100*time.Millisecond)
}

// ping asks for a sign of life on a goroutine of its own.
func (s *Session) ping(p *port, timeout time.Duration) {
	s.goFunc(func() {
		ctx, cancel := context.WithTimeout(s.ctx, timeout)
		defer cancel()
		rtt, err := p.conn.Ping(ctx)
		select {
		case s.pongs <- pong{p, rtt, err}:
		case <-s.ctx.Done():
		}
	})
}

// deaf reports a runtime that answers pings and takes no commands.
func (s *Session) deaf(p *port) error {
	interval := micros(p.ack.GetHeartbeatIntervalUs())
	if interval <= 0 {
		interval = session.Interval
	}
	oldest, waiting := s.peer.OldestUnreceived()
	if silent := s.opt.Clock.Now().Sub(oldest); waiting && silent >= 2*interval {
		return errs.New(errs.Unavailable, "the runtime at %s answers, but has not taken a command for %s", s.opt.Server, silent.Round(time.Second))
	}
	return nil
}
