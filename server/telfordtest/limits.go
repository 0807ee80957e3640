package telfordtest

import (
	"context"
	"testing"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/limit"
	"telford.dev/telford/server/internal/identity"
)

// Limit is a limit as "telford limits set" takes it. Fields that are 0 do not bind.
type Limit struct {
	// Concurrency is how many run at once, Queue how many more wait.
	Concurrency, Queue int
	// Rate is how many begin in a second, Burst how many at once after a pause.
	Rate  float64
	Burst int
	// Key is "", "caller", "header:NAME", "field:NAME" or "func".
	Key string
	// PerService divides the limit among the instances of the service.
	PerService bool
	// Instances is, of a namespace, the most instances that are registered.
	Instances int
}

// SetLimit lays down a limit in namespace "default" and returns its id: of a method, of the
// instances of a service where method is empty, of the namespace where service is empty
// too. Running services hear of it within a moment.
func (s *Server) SetLimit(t testing.TB, service, method string, l Limit) string {
	t.Helper()
	scope := ""
	if l.PerService {
		scope = catalog.LimitService
	}
	out, err := s.current.Rules().SetLimit(context.Background(), identity.DefaultNamespace, limit.Rule{
		Service: service, Method: method, Instances: l.Instances,
		Limit: catalog.Limit{Concurrency: l.Concurrency, Queue: l.Queue, Rate: l.Rate, Burst: l.Burst, Key: l.Key, Scope: scope},
	}, author)
	if err != nil {
		t.Fatalf("telfordtest: limit of %s/%s: %v", service, method, err)
	}
	return out.Rule.ID
}

// RemoveLimit takes a limit away, so that what is declared holds again.
func (s *Server) RemoveLimit(t testing.TB, id string) {
	t.Helper()
	if _, err := s.current.Rules().RemoveLimit(context.Background(), identity.DefaultNamespace, id, author); err != nil {
		t.Fatalf("telfordtest: remove limit %s: %v", id, err)
	}
}
