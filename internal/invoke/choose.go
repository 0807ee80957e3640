package invoke

import (
	"context"
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"telford.dev/telford/internal/direct"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/pick"
	"telford.dev/telford/internal/resilience"
)

// maxTried bounds how many instances one attempt is offered to.
const maxTried = resilience.MaxRepicks

// way is what one attempt has learnt about the instances.
type way struct {
	tried, avoid   [maxTried]*pick.Load
	nTried, nAvoid int
	refusal        error // the last one
	charged        bool  // the next instance is paid for from the budget
}

// choice is an instance that is about to be called.
type choice struct {
	peer   *direct.Peer
	conn   *direct.Conn
	ticket resilience.Ticket
}

// choose picks an instance and its connection. It prefers those that are connected: the
// others are dialed on the side. Who gets one tells how the attempt has ended.
func (v *Invoker) choose(ctx context.Context, r *Route, c *Call, known *resolved, w *way) (choice, error) {
	for tries := 0; w.nTried < maxTried && tries < 4*maxTried; tries++ {
		now := v.opt.Pool.Now()
		ex, alone := pick.Exclusions{Avoid: w.avoid[:w.nAvoid], Tried: w.tried[:w.nTried]}, false
		if known.hints != nil || v.opt.Pool.Trouble() {
			ex, alone = v.screen(known, ex, now) //nolint:contextcheck // dials belong to the pool
		}
		at := pick.Pick(known.candidates, ex, now, rand.Uint64()) //nolint:gosec // spreads load, guards nothing
		if at < 0 {
			break
		}
		p := known.peers[at]
		conn := p.Ready()
		if conn == nil {
			if w.nAvoid < maxTried && w.nAvoid < len(known.peers) && !contains(w.avoid[:w.nAvoid], &p.Load) {
				p.Connect() //nolint:contextcheck // the dial belongs to the pool
				w.avoid[w.nAvoid] = &p.Load
				w.nAvoid++
				if anyReady(known.peers, w) {
					continue
				}
			}
			// Nobody is connected: wait for this one.
			var err error
			if conn, err = waitConn(ctx, c.Deadline, p); err != nil {
				if code := errs.CodeOf(err); code == errs.DeadlineExceeded || code == errs.Canceled {
					return choice{}, err
				}
				w.try(p, err)
				continue
			}
		}
		ticket, ok := p.Health.Claim(now, alone)
		if !ok {
			continue // somebody else has just begun to probe it
		}
		if w.charged && !r.budget.Spend(now) {
			p.Ended(ticket, resilience.Neither)
			return choice{}, resilience.Exhausted(errs.From(w.refusal))
		}
		return choice{peer: p, conn: conn, ticket: ticket}, nil
	}
	if w.refusal != nil {
		return choice{}, w.refusal
	}
	return choice{}, v.nobody(r, known)
}

// screen returns ex with the instances that are better not called, or not to be called at
// all. alone: every instance that is left is cut off by its breaker.
func (v *Invoker) screen(known *resolved, ex pick.Exclusions, now time.Duration) (_ pick.Exclusions, alone bool) {
	var few [16]resilience.Standing
	standings := few[:0]
	var wall time.Time
	if known.hints != nil {
		wall = v.opt.Clock.Now()
	}
	var all resilience.Standing
	left := 0
	for i, p := range known.peers {
		s := p.Health.Standing(now)
		if known.hints != nil && known.hints[i].After(wall) {
			s |= resilience.Hinted
		}
		if s&resilience.Bad != 0 && known.reachable[i] {
			p.Probe()
		}
		all |= s
		if slices.Contains(ex.Tried, &p.Load) {
			s |= resilience.Cutoff // it is out for another reason
		}
		if s&resilience.Cutoff == 0 {
			left++
		}
		standings = append(standings, s)
	}
	if all == 0 {
		return ex, false
	}
	if alone = left == 0; alone {
		for i, p := range known.peers {
			if p.Health.StandingAlone(now)&resilience.Cutoff == 0 {
				standings[i] &^= resilience.Cutoff // those that were tried stay in ex
			}
		}
	}
	avoid := resilience.Screen(standings)
	ex.Avoid, ex.Tried = slices.Clip(ex.Avoid), slices.Clip(ex.Tried)
	for i, s := range standings {
		switch load := &known.peers[i].Load; {
		case s&resilience.Cutoff != 0:
			ex.Tried = append(ex.Tried, load)
		case s&avoid != 0:
			ex.Avoid = append(ex.Avoid, load)
		}
	}
	return ex, alone
}

// nobody says why there is nobody to call although instances are known.
func (v *Invoker) nobody(r *Route, known *resolved) error {
	now := v.opt.Pool.Now()
	var cut []resilience.Cut
	for _, p := range known.peers {
		if p.Health.Standing(now)&resilience.Cutoff != 0 {
			cut = append(cut, resilience.Cut{Instance: p.ID(), Next: p.Health.Next(now)})
		}
	}
	if len(cut) == 0 {
		return errs.New(errs.NoInstance, "no instance is left to be asked").Unstarted().With("service", r.key.service)
	}
	return resilience.Open(r.key.service, known.method, cut)
}

// compareEvery is how often at most the instances of a route are compared.
const compareEvery = 100 * time.Millisecond

// failed takes in the failure of an attempt.
func (v *Invoker) failed(known *resolved, ch choice, err *errs.Error) {
	verdict := resilience.Judge(err)
	if verdict == resilience.Failed && ch.ticket == 0 && errors.Is(err, link.ErrEnded) && !ch.conn.Lost() {
		verdict = resilience.Neither
	}
	ch.peer.Ended(ch.ticket, verdict)
	if verdict != resilience.Failed || len(known.peers) < 2 {
		return
	}
	now := v.opt.Pool.Now()
	if last := known.compared.Load(); last != 0 && now-time.Duration(last) < compareEvery || !known.compared.CompareAndSwap(last, int64(max(now, 1))) {
		return
	}
	group := make([]resilience.Stats, len(known.peers))
	for i, p := range known.peers {
		group[i] = p.Health.Stats(now)
	}
	for _, i := range resilience.Outliers(group) {
		known.peers[i].Eject()
	}
}

// avoiding returns the ids of the instances that something speaks against, for the
// runtime, which may pick among others.
func (v *Invoker) avoiding(known *resolved, w *way) []string {
	if known == nil || w.nTried == 0 && !v.opt.Pool.Trouble() {
		return nil
	}
	var ids []string
	now := v.opt.Pool.Now()
	for _, p := range known.peers {
		if len(ids) < message.MaxAvoid && (contains(w.tried[:w.nTried], &p.Load) || p.Health.Standing(now) != 0) {
			ids = append(ids, p.ID())
		}
	}
	return ids
}

// waitConn waits for a connection until the deadline of the call.
func waitConn(ctx context.Context, deadline time.Time, p *direct.Peer) (*direct.Conn, error) {
	if !deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	return p.Conn(ctx)
}

// try notes that an instance has refused the call.
func (w *way) try(p *direct.Peer, refusal error) {
	w.refusal = refusal
	w.charged = w.charged || resilience.RepickCharged(errs.From(refusal))
	if w.nTried < maxTried {
		w.tried[w.nTried] = &p.Load
		w.nTried++
	}
}

func contains(list []*pick.Load, l *pick.Load) bool { return slices.Contains(list, l) }

func anyReady(peers []*direct.Peer, w *way) bool {
	for _, p := range peers {
		if p.Ready() != nil && !contains(w.tried[:w.nTried], &p.Load) {
			return true
		}
	}
	return false
}
