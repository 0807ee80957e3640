package sessions

import (
	"context"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
)

// revoked is told of who is newly revoked: their sessions end, everybody else hears of
// it. It does not wait.
func (s *Server) revoked(keys, instances []string) {
	news := &telfordv1.Revocation{Keys: keys, Instances: instances}
	trust := s.cfg.Authority.Trust()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopping.Load() {
		return
	}
	for _, h := range s.sessions {
		if err := trust.CheckRevoked(h.identity()); err != nil {
			s.goRun(func() { s.expel(h, errs.From(err)) })
		}
	}
	for p := range s.ports {
		if h := p.held.Load(); h != nil {
			// The credential of a connection that is being replaced may be another one.
			if err := trust.CheckRevoked(p.owner.Identity); err != nil {
				s.goRun(func() { p.t.Close(err) })
			}
		}
		p.mu.Lock()
		p.revoked = append(p.revoked, news)
		p.mu.Unlock()
		select {
		case p.news <- struct{}{}:
		default:
		}
	}
}

// expel ends the session of whoever is revoked, first of all, and takes the instance
// off the map.
func (s *Server) expel(h *held, cause *errs.Error) {
	s.end(h, cause, nil)
	ctx, cancel := context.WithTimeout(context.Background(), storeTimeout)
	defer cancel()
	err := s.cfg.Registry.Deregister(ctx, h.key.namespace, h.key.instance, catalog.Revoked)
	if err != nil && errs.CodeOf(err) != errs.NotFound {
		s.cfg.Log.Warn("deregister a revoked instance", "namespace", h.key.namespace, "instance", h.key.instance, "error", err)
	}
}

// sendRevoked sends everything that is revoked at present.
func (p *Port) sendRevoked() error {
	p.mu.Lock()
	p.revoked = nil // it is in what follows
	p.mu.Unlock()
	keys, instances := p.server.cfg.Authority.Revocations()
	return p.say(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Revocation{
		Revocation: &telfordv1.Revocation{Snapshot: true, Keys: keys, Instances: instances},
	}})
}

// sendRevocations sends what was revoked since.
func (p *Port) sendRevocations() {
	p.mu.Lock()
	list := p.revoked
	p.revoked = nil
	p.mu.Unlock()
	for _, r := range list {
		if p.say(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Revocation{Revocation: r}}) != nil {
			return // the end of the connection is noticed elsewhere
		}
	}
}
