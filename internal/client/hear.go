package client

import (
	"context"
	"math/rand/v2"
	"time"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/catalogpb"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
)

// rest handles what had arrived before the end of a connection.
func (s *Session) rest(p *port) error {
	for {
		select {
		case m := <-p.mail:
			if w, ok := m.GetMessage().(*telfordv1.ServerMessage_Watch); ok {
				s.update(p, w.Watch)
				continue
			}
			if err := s.handle(p, m); err != nil {
				return err
			}
		default:
			return nil
		}
	}
}

// handle takes in the messages that any connection may bring at any time.
func (s *Session) handle(p *port, m *telfordv1.ServerMessage) error {
	switch v := m.GetMessage().(type) {
	case *telfordv1.ServerMessage_Ping:
		p.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Pong{Pong: &telfordv1.Pong{Id: v.Ping.GetId()}}})
	case *telfordv1.ServerMessage_Permits:
		if v.Permits.GetLane() == "" || v.Permits.GetLane() == "calls" {
			s.peer.SetPermits(int(v.Permits.GetTotal()))
		}
	case *telfordv1.ServerMessage_Roots:
		s.rooted(v.Roots)
	case *telfordv1.ServerMessage_Fenced:
		return fenced(v.Fenced.GetReason())
	}
	return nil
}

// rooted puts roots in force. When another root than ours signs now, the certificate is
// renewed within the time that the runtime says, at a moment drawn here so that
// instances do not come together.
func (s *Session) rooted(m *telfordv1.Roots) {
	roots, err := ident.ParseCertificates(m.GetRoots())
	if err != nil || len(roots) == 0 {
		s.opt.Log.Error("the runtime has sent roots that cannot be read", "error", err)
		return
	}
	s.opt.Trust.SetRoots(roots)
	within := micros(m.GetRenewWithinUs())
	if len(m.GetSigning()) != 32 || within <= 0 {
		s.wanted = wanted{}
		return
	}
	signing := [32]byte(m.GetSigning())
	if s.wanted.signing != signing {
		d := time.Duration(rand.Float64() * float64(within)) //nolint:gosec // spreads load, guards nothing
		s.wanted = wanted{signing, s.opt.Trust.Clock().Now().Add(d)}
	}
}

// wanted is the root below which the certificate should be, and by when. The zero value
// wants nothing.
type wanted struct {
	signing [32]byte
	by      time.Time
}

// wantLater gives a renewal that has brought another certificate from below the wrong
// root, by a node that has not heard of the right one, time until the next attempt.
func (s *Session) wantLater() {
	own, now := s.opt.Trust.Identity(), s.opt.Trust.Clock().Now()
	if w := &s.wanted; !w.by.IsZero() && !now.Before(w.by) && !s.opt.Trust.Under(w.signing) {
		w.by = now.Add(own.NotAfter.Sub(now) / 20)
	}
}

// revoked applies a revocation: connections of who is named close at once.
func (s *Session) revoked(r *telfordv1.Revocation) {
	s.opt.Trust.Revoke(r.GetSnapshot(), r.GetKeys(), qualify(s.opt.Trust.Identity().Namespace, r.GetInstances()))
}

// update takes in a step of the watch, and reports false while it lacks its last part.
func (s *Session) update(p *port, u *telfordv1.WatchUpdate) bool {
	whole := p.parts.Add(catalogpb.UpdateFromProto(u))
	if whole == nil {
		return false
	}
	if whole.Snapshot {
		defer s.answered(p)
	}
	if gone := s.opt.View.Apply(whole); len(gone) > 0 {
		s.opt.Events.Gone(gone)
	}
	return true
}

// drained follows the wish of the runtime that this connection end: what runs may
// finish, new calls wait for the next connection.
func (s *Session) drained(p *port, d *telfordv1.Drain) error {
	s.opt.Events.Draining(d.GetReason())
	s.peer.Detach(p.conn, errs.New(errs.Unavailable, "the runtime is draining: %s", d.GetReason()))
	s.setUp(false)
	left := retireTimeout
	if us := d.GetDeadlineUs(); us > 0 {
		left = min(left, micros(us))
	}
	s.goFunc(func() {
		ctx, cancel := context.WithTimeout(s.ctx, left)
		defer cancel()
		_ = p.conn.Drain(ctx) // it closes the connection either way
	})
	return errDrained(d)
}

func errDrained(d *telfordv1.Drain) error {
	return errs.New(errs.Unavailable, "the runtime is draining: %s", d.GetReason()).After(micros(d.GetReconnectAfterUs()))
}
