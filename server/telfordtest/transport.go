package telfordtest

import (
	"context"
	"testing"
	"time"

	"telford.dev/telford/internal/transport"
	"telford.dev/telford/server/internal/identity"
)

// SetTransport lays down which way calls go that do not say so themselves, as "telford
// transport set" does, in namespace "default". An empty service or method means every
// one; an empty mode or fallback and a timeout of 0 say nothing. Running services hear of
// it within a moment.
func (s *Server) SetTransport(t testing.TB, service, method, mode, fallback string, timeout time.Duration) {
	t.Helper()
	r := transport.Rule{Service: service, Method: method, Mode: mode, Fallback: fallback, Timeout: timeout}
	if _, err := s.current.Rules().SetTransport(context.Background(), identity.DefaultNamespace, r, author); err != nil {
		t.Fatalf("telfordtest: transport of %s: %v", service, err)
	}
}
