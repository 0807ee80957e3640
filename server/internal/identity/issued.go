package identity

import (
	"sync"
	"time"

	"telford.dev/telford/internal/ident"
)

// maxIssued bounds the certificates remembered; beyond it the registry's word counts.
const maxIssued = 100_000

// issued remembers which service has which instance id by a certificate that has not
// ended.
type issued struct {
	mu   sync.Mutex
	live map[string]holding // by "namespace/instance"
}

type holding struct {
	service  string
	notAfter time.Time
}

func newIssued() *issued { return &issued{live: make(map[string]holding)} }

func (s *issued) put(id ident.Identity) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := id.QualifiedInstance()
	if _, known := s.live[name]; !known && len(s.live) >= maxIssued {
		return
	}
	s.live[name] = holding{id.Service, id.NotAfter}
}

func (s *issued) holder(id ident.Identity, now time.Time) (service string, held bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h, ok := s.live[id.QualifiedInstance()]
	if !ok || now.After(h.notAfter) {
		return "", false
	}
	return h.service, true
}

func (s *issued) sweep(now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for name, h := range s.live {
		if now.After(h.notAfter) {
			delete(s.live, name)
		}
	}
}
