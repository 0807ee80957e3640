// Package notifications is the service that tells customers, and that lets others
// follow what was told, as a stream. Its handlers run on the goroutines of their calls;
// it starts none.
package notifications

import (
	"context"
	"sync"

	"telford.dev/telford"
)

// Name is the name of the service.
const Name = "notifications"

// The methods.
const (
	// MethodNotify takes a Notice and answers with a Sent.
	MethodNotify = "notify"
	// MethodFollow takes a Follow and streams every Notice, from the first on, until
	// the caller leaves.
	MethodFollow = "follow"
)

// Notice is what a customer is told about an order. Telling the same of one order
// twice tells it once.
type Notice struct {
	Order    string `json:"order"`
	Customer string `json:"customer"`
	Text     string `json:"text"`
}

// Sent says how many notices have been sent in all.
type Sent struct {
	Total int `json:"total"`
}

// Follow asks for the notices after the first Skip.
type Follow struct {
	Skip int `json:"skip"`
}

// Service keeps every notice in memory.
type Service struct {
	mu      sync.Mutex
	notices []*Notice
	told    map[string]bool
	// more is closed and replaced when a notice is added.
	more chan struct{}
}

// New has told nobody anything.
func New() *Service { return &Service{told: map[string]bool{}, more: make(chan struct{})} }

// Register adds the methods to a service.
func (s *Service) Register(svc *telford.Service) error {
	if err := telford.Handle(svc, MethodNotify, s.notify); err != nil {
		return err
	}
	return telford.HandleStream(svc, MethodFollow, s.follow)
}

func (s *Service) notify(_ context.Context, in *Notice) (*Sent, error) {
	if in.Order == "" || in.Text == "" {
		return nil, telford.Errorf(telford.CodeInvalidArgument, "a notice needs an order and a text")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if key := in.Order + "\x00" + in.Text; !s.told[key] {
		s.told[key] = true
		s.notices = append(s.notices, in)
		close(s.more)
		s.more = make(chan struct{})
	}
	return &Sent{Total: len(s.notices)}, nil
}

// after returns the notices after the first n, and what is closed when there are more.
func (s *Service) after(n int) ([]*Notice, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.notices[min(max(n, 0), len(s.notices)):], s.more
}

func (s *Service) follow(ctx context.Context, in *Follow, out *telford.Sender[Notice]) error {
	sent := max(in.Skip, 0)
	for {
		notices, more := s.after(sent)
		for _, n := range notices {
			if err := out.Send(n); err != nil {
				return err
			}
			sent++
		}
		select {
		case <-more:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
