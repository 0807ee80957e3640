package router

import (
	"context"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/match"
)

// look is how often a call that waits for an instance looks again by itself: one that
// comes back in another guise is not announced.
const look = 100 * time.Millisecond

// announce wakes the calls that wait for an instance to come back.
func (r *Router) announce() {
	next := make(chan struct{})
	close(*r.attached.Swap(&next))
}

// Leave has no call wait for instances to come back any more: a router that is about to
// end will not see them.
func (r *Router) Leave() {
	r.leaving.Store(true)
	r.announce()
}

// pickOrWait is pick for a router that has just begun: when all that stands in the way is
// that instances known from before have no link yet, it waits until one has, at most
// until the end of ctx or of the time that they are given.
func (p *picking) pickOrWait(ctx context.Context) (*entry, *errs.Error) {
	r := p.router
	for {
		attached := *r.attached.Load()
		s, v := r.current(p.key)
		e, err := p.pick(s, v)
		if err == nil {
			// What was asked before may have been about other instances, or by other rules.
			if err := p.permit(v); err != nil {
				return nil, err
			}
			return e, nil
		}
		left := r.returnBy.Sub(r.clock.Now())
		if left <= 0 || r.leaving.Load() || p.exhausted || !p.returning(v) {
			return nil, err
		}
		timer := r.clock.NewTimer(min(left, look))
		select {
		case <-attached:
		case <-timer.C():
		case <-ctx.Done():
			timer.Stop()
			return nil, err
		}
		timer.Stop()
		p.now = r.clock.Now()
	}
}

// returning reports whether an instance that would be picked has never had a link here.
func (p *picking) returning(v *view) bool {
	if v == nil {
		return false
	}
	rt, _ := v.route(p.req.Call.Method)
	if rt == nil {
		return false
	}
	q := &p.query
	meant := make([]*entry, 0, len(rt.entries))
	for _, e := range rt.entries {
		d := e.declaration()
		if e.takes && e.seen(q) && e.method.Kind == q.kind && e.addressed(q) &&
			(match.ExactVersion(d, q.target.Version) || match.CompatibleVersion(d, q.target.Version)) {
			meant = append(meant, e)
		}
	}
	away := func(e *entry) bool { return !e.met() }
	return match.Choose(match.Shapes(meant, (*entry).speaker), q.wish(), away) >= 0
}
