package restreg

import (
	"encoding/json"
	"maps"
	"slices"
	"time"

	"telford.dev/telford/internal/errs"
)

// Service is one service as clients see it.
type Service struct {
	ID       string
	Tags     []string
	Metadata map[string]string
	// Timeout is how long after a heartbeat the next one is due: whole seconds.
	Timeout time.Duration
	// LastSeen is when the last heartbeat came; zero: none has.
	LastSeen time.Time
}

// Change is what an update replaces; nil leaves it.
type Change struct {
	Tags     *[]string
	Metadata *map[string]string
	Timeout  *time.Duration
}

// Empty reports whether it changes nothing.
func (c *Change) Empty() bool { return c.Tags == nil && c.Metadata == nil && c.Timeout == nil }

// spec is what is stored of a Service.
type spec struct {
	Tags     []string          `json:"tags"`
	Metadata map[string]string `json:"metadata"`
	Timeout  int64             `json:"heartbeat_timeout"` // seconds
}

// payload is a service in an event, its fields in the order of the wire.
type payload struct {
	ID       string            `json:"id"`
	Timeout  int64             `json:"heartbeat_timeout"`
	Tags     []string          `json:"tags"`
	Metadata map[string]string `json:"metadata"`
}

// service is one service as it is kept. All but what heartbeats move is replaced, never
// changed.
type service struct {
	id       string
	keyID    string
	created  time.Time
	revision int64
	spec     spec

	// Guarded by account.mu.

	// deadline is when the service ends unless a heartbeat comes.
	deadline time.Time
	lastSeen time.Time
	// floor is the earliest deadline that a token may have which was made before the
	// memory was; zero: the token in force is that of deadline, and no other.
	floor   time.Time
	ending  bool // its end is being written
	joining bool // it has a place reserved, and is not yet in it
	place   int  // in the queue; -1: not in it
	end     func()
}

func (s *service) timeout() time.Duration { return time.Duration(s.spec.Timeout) * time.Second }

// shown is the service as clients see it; account.mu is held.
func (s *service) shown() Service {
	return Service{
		ID: s.id, Tags: slices.Clone(s.spec.Tags), Metadata: maps.Clone(s.spec.Metadata), Timeout: s.timeout(), LastSeen: s.lastSeen,
	}
}

func (s *service) payload() ([]byte, error) {
	return encode(payload{ID: s.id, Timeout: s.spec.Timeout, Tags: s.spec.Tags, Metadata: s.spec.Metadata})
}

// row is what is stored of it now; account.mu is held.
func (s *service) row(namespace string, now time.Time, author string) (*Row, error) {
	raw, err := encode(s.spec)
	if err != nil {
		return nil, err
	}
	return &Row{
		Namespace: namespace, ID: s.id, Spec: raw, KeyID: s.keyID, Created: s.created, Deadline: s.deadline,
		LastSeen: s.lastSeen, Revision: s.revision, Updated: now, Author: author,
	}, nil
}

// fill makes what is absent empty.
func (s *spec) fill() {
	if s.Tags == nil {
		s.Tags = []string{}
	}
	if s.Metadata == nil {
		s.Metadata = map[string]string{}
	}
}

func specOf(row *Row) (s spec, err error) {
	if err := json.Unmarshal(row.Spec, &s); err != nil {
		return s, errs.New(errs.Internal, "service %s of namespace %s cannot be read: %w", row.ID, row.Namespace, err)
	}
	s.fill()
	return s, nil
}

func encode(v any) ([]byte, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, errs.New(errs.Internal, "encode a service: %w", err)
	}
	return b, nil
}
