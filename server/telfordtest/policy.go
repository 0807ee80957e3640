package telfordtest

import (
	"context"
	"testing"

	"telford.dev/telford/internal/policy"
	"telford.dev/telford/server/internal/identity"
)

// author is who makes rules here.
const author = "telfordtest"

// Allow lays down a rule of the policy in namespace "default", as "telford policy allow"
// does, and returns its id: service may do action ("rpc.call", "rpc.handle", ...) with the
// services that match peer, to what matches target; empty patterns mean any. Running
// services hear of it within a moment.
func (s *Server) Allow(t testing.TB, service, action, peer, target string) string {
	t.Helper()
	return s.rule(t, policy.Rule{Service: service, Action: policy.Action(action), Effect: policy.Allow, Peer: peer, Target: target})
}

// Deny is Allow for what is denied.
func (s *Server) Deny(t testing.TB, service, action, peer, target string) string {
	t.Helper()
	return s.rule(t, policy.Rule{Service: service, Action: policy.Action(action), Effect: policy.Deny, Peer: peer, Target: target})
}

func (s *Server) rule(t testing.TB, r policy.Rule) string {
	t.Helper()
	out, err := s.current.Rules().AddRule(context.Background(), identity.DefaultNamespace, r, author)
	if err != nil {
		t.Fatalf("telfordtest: rule of %s: %v", r.Service, err)
	}
	return out.Rule.ID
}

// SetShadow makes a rule one that is only counted, or one that holds.
func (s *Server) SetShadow(t testing.TB, id string, on bool) {
	t.Helper()
	if _, err := s.current.Rules().SetShadow(context.Background(), identity.DefaultNamespace, id, on, author); err != nil {
		t.Fatalf("telfordtest: rule %s: %v", id, err)
	}
}

// RemoveRule takes a rule of the policy away again.
func (s *Server) RemoveRule(t testing.TB, id string) {
	t.Helper()
	if _, err := s.current.Rules().RemoveRule(context.Background(), identity.DefaultNamespace, id, author); err != nil {
		t.Fatalf("telfordtest: rule %s: %v", id, err)
	}
}

// SetCapability switches an action of a service off or on, as "telford policy capability"
// does.
func (s *Server) SetCapability(t testing.TB, service, action string, on bool) {
	t.Helper()
	if err := s.current.Rules().SetCapability(context.Background(), identity.DefaultNamespace, service, action, on, author); err != nil {
		t.Fatalf("telfordtest: capability %s of %s: %v", action, service, err)
	}
}
