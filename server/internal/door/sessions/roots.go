package sessions

import (
	telfordv1 "telford.dev/telford/api/telford/v1"
)

// rooted is told that the roots to trust, or which of them signs, have changed: every
// instance hears of it. It does not wait.
func (s *Server) rooted() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for p := range s.ports {
		p.rooted.Store(true)
		select {
		case p.news <- struct{}{}:
		default:
		}
	}
}

// sendRoots sends the roots to trust now.
func (p *Port) sendRoots() error {
	p.rooted.Store(false)
	authority := p.server.cfg.Authority
	signing, within := authority.SigningRoot()
	m := &telfordv1.Roots{Signing: signing[:], RenewWithinUs: within.Microseconds()}
	for _, root := range authority.Trust().Roots() {
		m.Roots = append(m.Roots, root.Raw)
	}
	return p.say(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Roots{Roots: m}})
}
