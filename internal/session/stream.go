package session

import (
	"context"
	"errors"
	"sync"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/internal/message"
)

// Stream runs a streaming command. It lives and dies with the connection it began on.
func (p *Peer) Stream(ctx context.Context, m *message.Call) (message.Stream, error) {
	if err := p.acquire(ctx, m.Method); err != nil {
		return nil, err
	}
	for {
		p.mu.Lock()
		t, changed, closed := p.transport, p.changed, p.closed
		var unsent *errs.Error
		switch {
		case closed != nil:
			unsent = closed.Unstarted()
		case t == nil && p.opt.NoWait:
			unsent = p.cut(errs.Unavailable, m).Unstarted()
		}
		p.mu.Unlock()
		if unsent == nil && t == nil {
			if err := wait(ctx, m.Deadline, changed); err == nil {
				continue
			} else {
				p.mu.Lock()
				unsent = p.cut(errs.CodeOf(err), m).Unstarted()
				p.mu.Unlock()
			}
		}
		if unsent != nil {
			p.release()
			return nil, unsent
		}
		s, err := t.Stream(ctx, m)
		if err == nil {
			return &countedStream{Stream: s, release: sync.OnceFunc(p.release)}, nil
		}
		if errors.Is(err, link.ErrEnded) {
			p.Detach(t, err)
			var e *errs.Error
			if errors.As(err, &e) && e.NotStarted && !p.opt.NoWait {
				continue
			}
		}
		p.release()
		return nil, err
	}
}

// countedStream gives its permit back at its end.
type countedStream struct {
	message.Stream
	release func()
}

// Recv implements message.Stream.
func (s *countedStream) Recv() ([]byte, error) {
	b, err := s.Stream.Recv()
	if err != nil {
		s.release()
	}
	return b, err
}

// Close implements message.Stream.
func (s *countedStream) Close() {
	s.Stream.Close()
	s.release()
}
