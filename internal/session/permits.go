package session

import (
	"context"

	"telford.dev/telford/internal/errs"
)

// SetPermits changes how many commands of this end may run at once; 0 is no bound.
func (p *Peer) SetPermits(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.permits = n
	p.admitQueued()
}

// Permits is how many commands of this end may run at once; 0 is no bound.
func (p *Peer) Permits() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.permits
}

// admitQueued gives permits, with mu held, to those who wait in line.
func (p *Peer) admitQueued() {
	for len(p.queue) > 0 && (p.permits == 0 || p.running < p.permits) {
		p.running++
		close(p.queue[0])
		p.queue = p.queue[1:]
	}
}

// acquire takes a permit, waiting in line for it.
func (p *Peer) acquire(ctx context.Context, method string) error {
	p.mu.Lock()
	switch {
	case p.closed != nil:
		defer p.mu.Unlock()
		return p.closed.Unstarted()
	case p.permits == 0 || p.running < p.permits:
		p.running++
		p.mu.Unlock()
		return nil
	case len(p.queue) >= maxQueued:
		defer p.mu.Unlock()
		return errs.New(errs.ResourceExhausted, "%d commands run on the session and %d wait", p.permits, len(p.queue)).In("session", "call "+method).Unstarted()
	}
	turn := make(chan struct{})
	p.queue = append(p.queue, turn)
	p.mu.Unlock()
	select {
	case <-turn:
		return nil
	case <-ctx.Done():
	}
	p.mu.Lock()
	for i, q := range p.queue {
		if q == turn {
			p.queue = append(p.queue[:i], p.queue[i+1:]...)
			p.mu.Unlock()
			return errs.From(ctx.Err()).In("session", "call "+method).Unstarted()
		}
	}
	p.mu.Unlock()
	p.release() // the turn came at the same moment
	return errs.From(ctx.Err()).In("session", "call "+method).Unstarted()
}

func (p *Peer) release() {
	p.mu.Lock()
	p.running--
	p.admitQueued()
	if p.running == 0 {
		p.announce()
	}
	p.mu.Unlock()
}
