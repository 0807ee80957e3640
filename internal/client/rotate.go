package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
)

// rotation is one renewal under way. Its methods do nothing on nil.
type rotation struct {
	cancel context.CancelFunc
	result chan *port // gets one, nil for a failure
	// handing: the runtime may have the successor already.
	handing atomic.Bool
	taken   bool // of the driver
}

// handed brings the successor, or nil when there is none.
func (r *rotation) handed() <-chan *port {
	if r == nil {
		return nil
	}
	return r.result
}

// end gives the rotation up, unless its successor was taken.
func (r *rotation) end() {
	if r == nil {
		return
	}
	r.cancel()
	if r.taken {
		return
	}
	if next := <-r.result; next != nil {
		next.conn.Close(errs.New(errs.Unavailable, "the connection is not needed"))
	}
}

// rotate renews the certificate, when that is due, and opens a connection with the one in
// force, which then takes the place of the one in use.
func (s *Session) rotate(p *port) *rotation {
	due := s.renewDue()
	ctx, cancel := context.WithCancel(s.ctx)
	r := &rotation{cancel: cancel, result: make(chan *port, 1)}
	s.goFunc(func() {
		next, err := s.successor(ctx, r, p, due)
		if err != nil && ctx.Err() == nil {
			s.opt.Log.Warn("the certificate could not be renewed; it is tried again", "error", err, "not_after", s.opt.Trust.Identity().NotAfter)
		}
		r.result <- next
	})
	return r
}

// awaitSuccessor waits, when a connection has ended, for the one that may be the reason;
// nil: there is none.
func (s *Session) awaitSuccessor(r *rotation) *port {
	if r == nil || !r.handing.Load() {
		return nil
	}
	s.setUp(false)
	next := <-r.result // connecting has an end, also with the session
	r.taken = true
	return next
}

func (s *Session) successor(ctx context.Context, r *rotation, p *port, due time.Time) (*port, error) {
	// A certificate that an earlier attempt has brought is not fetched again; and where
	// only that of the runtime is about to end, the own one stays.
	if s.opt.Trust.Certificate() == p.own && !s.opt.Trust.Clock().Now().Before(due) {
		if err := s.renew(ctx); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	token := s.token
	s.mu.Unlock()
	r.handing.Store(true)
	return s.connect(ctx, token)
}

// retireTimeout is how long a replaced connection may take to deliver what it has.
const retireTimeout = 30 * time.Second

// retire lets a replaced connection finish.
func (s *Session) retire(p *port) {
	s.goFunc(func() {
		ctx, cancel := context.WithTimeout(s.ctx, retireTimeout)
		defer cancel()
		if err := p.conn.Drain(ctx); err != nil && !errors.Is(err, context.Canceled) {
			s.opt.Log.Warn("a replaced connection did not finish in time", "error", err)
		}
	})
}

// lookAgain is how late a machine that was asleep, or whose clock was set, finds out
// that a renewal is due: timers do not count such time.
const lookAgain = time.Minute

// renewal is the timer of the next renewal; the zero value never fires.
type renewal struct {
	clock clock.Clock
	at    time.Time
	timer clock.Timer
}

// arm sets the timer, to look again at the latest.
func (r *renewal) arm() {
	r.timer = r.clock.NewTimer(min(max(r.at.Sub(r.clock.Now()), time.Millisecond), lookAgain))
}

// due reports, when the timer has fired, whether it is time; else it sets it again.
func (r *renewal) due() bool {
	if r.clock.Now().Before(r.at) {
		r.arm()
		return false
	}
	return true
}

func (r *renewal) c() <-chan time.Time {
	if r.timer == nil {
		return nil
	}
	return r.timer.C()
}

func (r *renewal) stop() {
	if r.timer != nil {
		r.timer.Stop()
	}
}

// renewTimer is for the successor of p; after a failure it fires in a part of the time
// that is left.
func (s *Session) renewTimer(p *port, failed bool) renewal {
	if s.opt.Key == nil {
		return renewal{} // the certificate is not ours to renew
	}
	clk := s.opt.Trust.Clock()
	now := clk.Now()
	left := p.notAfter.Sub(now)
	d := s.renewDue().Sub(now)
	if p.notAfter.Before(s.opt.Trust.Identity().NotAfter) {
		// The certificate of the runtime ends first, and the connection with it.
		share := 2.0 / 3 * (1 - 0.1*rand.Float64()) //nolint:gosec // spreads load, guards nothing
		d = min(d, time.Duration(float64(left)*share))
	}
	if failed {
		d = min(max(left/10, 500*time.Millisecond), 30*time.Second)
	}
	r := renewal{clock: clk, at: now.Add(max(d, 10*time.Millisecond))}
	r.arm()
	return r
}
