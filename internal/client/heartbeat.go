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
	if silent := s.unreceived(); silent >= 2*p.interval() {
		return errs.New(errs.Unavailable, "the runtime at %s answers, but has not taken a command for %s", s.opt.Server, silent.Round(time.Second)).
			With(errs.MetaReason, errs.ReasonDeaf)
	}
	return nil
}

// interval is that of the heartbeat.
func (p *port) interval() time.Duration {
	if d := micros(p.ack.GetHeartbeatIntervalUs()); d > 0 {
		return d
	}
	return session.Interval
}

// unreceived is for how long a command has waited to be taken; 0 when none waits.
func (s *Session) unreceived() time.Duration {
	if oldest, waiting := s.peer.OldestUnreceived(); waiting {
		return s.opt.Clock.Now().Sub(oldest)
	}
	return 0
}

// moved notes a sign of life, which is progress when the instance is on the map and the
// commands that it sends are taken.
func (s *Session) moved(p *port) {
	if s.registered && s.unreceived() < p.interval() {
		s.hearing.progress(3 * p.interval()) // a deaf one is found out within two
	}
}

// deafness tells that the instance has turned deaf, or hears again.
func (s *Session) deafness(deaf bool, since time.Time, cause error) {
	if deaf {
		s.opt.Log.Warn("deaf: nothing has moved between this instance and the runtime for long; it is not ready until something does",
			"server", s.opt.Server, "since", since, "cause", cause)
	} else {
		s.opt.Log.Warn("no longer deaf: the runtime is heard again", "server", s.opt.Server)
	}
	s.change()
	if s.opt.Events.Deaf != nil {
		s.opt.Events.Deaf(deaf, since, cause)
	}
}
