package router

import (
	"context"
	"errors"
	"slices"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/pick"
	"telford.dev/telford/internal/resilience"
)

// Failing is told of instances that calls fail on, so that others avoid them too. It is
// called on the goroutine of a call: it does not block.
type Failing interface {
	// SetFailing says that an instance is better not picked before until.
	SetFailing(namespace, instance string, until time.Time)
}

// failingTime is how long others avoid an instance whose breaker has opened here.
const failingTime = 60 * time.Second

// fraction returns a number in [0, 1).
func (r *Router) fraction() float64 { return float64(r.rand()>>11) / (1 << 53) }

// screen adds to ex the instances that are better not picked, or not to be picked at
// all. alone: every instance that is left is cut off by its breaker.
func (p *picking) screen(o *options, ex *pick.Exclusions, now time.Duration) (alone bool) {
	var few [16]resilience.Standing
	standings := few[:0]
	var all resilience.Standing
	left := 0
	for _, e := range o.entries {
		s := e.endpoint.health.Standing(now)
		if e.instance.FailingUntil.After(p.now) {
			s |= resilience.Hinted
		}
		all |= s
		switch {
		case e.endpoint.load.Away() || slices.Contains(p.tried, &e.endpoint.load):
			s |= resilience.Cutoff // it is out for another reason
		case s&resilience.Cutoff == 0:
			left++
		}
		standings = append(standings, s)
	}
	if all == 0 {
		return false
	}
	if alone = left == 0; alone {
		for i, e := range o.entries {
			if e.endpoint.health.StandingAlone(now)&resilience.Cutoff == 0 {
				standings[i] &^= resilience.Cutoff // those that were tried or are away stay out
			}
		}
	}
	avoid := resilience.Screen(standings)
	ex.Avoid, ex.Tried = slices.Clip(ex.Avoid), slices.Clip(ex.Tried)
	for i, s := range standings {
		switch load := &o.entries[i].endpoint.load; {
		case s&resilience.Cutoff != 0:
			ex.Tried = append(ex.Tried, load)
		case s&avoid != 0:
			ex.Avoid = append(ex.Avoid, load)
		}
	}
	return alone
}

// cutOff returns the failure of a call for which all instances that could take it are cut
// off by their breakers; nil when it is something else.
func (p *picking) cutOff(rt *route, o *options, now time.Duration) *errs.Error {
	var cut []resilience.Cut
	for _, e := range o.entries {
		if e.ready() && e.endpoint.health.Standing(now)&resilience.Cutoff != 0 {
			cut = append(cut, resilience.Cut{Instance: e.instance.ID, Next: e.endpoint.health.Next(now)})
		}
	}
	if len(cut) == 0 {
		return nil
	}
	return resilience.Open(p.key.name, rt.name, cut).In("router", operation(p.key.name, rt.name))
}

// verdict returns what the end of an attempt says about the instance. An answer of the
// handler, whatever it says, speaks for the instance.
func verdict(reply *message.Reply, err error) resilience.Verdict {
	switch {
	case err != nil:
		return resilience.Judge(errs.From(err))
	case reply == nil:
		return resilience.Failed
	case reply.Err != nil && reply.Err.NotStarted:
		return resilience.Judge(reply.Err)
	}
	return resilience.Succeeded
}

// judge takes in how an attempt on an instance has ended, now.
func (p *picking) judge(e *entry, v resilience.Verdict, now time.Time) {
	r := p.router
	at := r.sinceEpoch(now)
	ticket := p.ticket
	p.ticket = 0
	if v == resilience.Succeeded {
		e.endpoint.health.Record(at, ticket, v, 0)
		return
	}
	if e.endpoint.health.Record(at, ticket, v, r.fraction()) {
		r.log.Warn("calls of an instance are cut off because they fail", "namespace", p.key.namespace, "service", p.key.name, "instance", e.instance.ID)
		if r.failing != nil {
			r.failing.SetFailing(p.key.namespace, e.instance.ID, now.Add(failingTime))
		}
	}
	if v == resilience.Failed {
		p.compare(e, at)
	}
}

// compareEvery is how often at most the instances of a service are compared.
const compareEvery = 100 * time.Millisecond

// compare ejects the instances that fail where others do not.
func (p *picking) compare(failed *entry, now time.Duration) {
	s := (*p.router.services.Load())[p.key]
	if s == nil {
		return
	}
	v := s.view.Load()
	if v == nil {
		return
	}
	rt := v.routes[failed.method.Name]
	if rt == nil || len(rt.entries) < 2 {
		return
	}
	if last := s.compared.Load(); last != 0 && now-time.Duration(last) < compareEvery || !s.compared.CompareAndSwap(last, int64(max(now, 1))) {
		return
	}
	group := make([]resilience.Stats, 0, len(rt.entries))
	ready := make([]*entry, 0, len(rt.entries))
	for _, e := range rt.entries {
		if e.ready() {
			group, ready = append(group, e.endpoint.health.Stats(now)), append(ready, e)
		}
	}
	for _, i := range resilience.Outliers(group) {
		ready[i].endpoint.health.Eject(now, p.router.fraction())
		p.router.log.Warn("an instance is avoided because it fails where others of its service do not",
			"namespace", p.key.namespace, "service", p.key.name, "instance", ready[i].instance.ID)
	}
}

// unknown marks a failure after which nobody knows whether the handler began.
func unknown(e *entry, err *errs.Error) *errs.Error {
	if err.NotStarted {
		return err
	}
	err = resilience.Unknown(err)
	if e.method.NotRetryable {
		err = err.With(resilience.MetaRetry, resilience.Never)
	}
	return err
}

// lostStream tells the failure of the way to an instance from the one that its handler
// has ended a stream with.
func lostStream(err error) bool {
	var e *errs.Error
	return !errors.As(err, &e) || e.NotStarted || e.Component == "link" || e.Component == "session" ||
		errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// maxSpins bounds how often one pick looks again because another call took the probe.
const maxSpins = 64

// take makes a pick among o, and takes the probe of the instance where it is one; nil
// when nobody is left.
func (p *picking) take(rt *route, o *options) (*entry, *errs.Error) {
	r := p.router
	now := r.sinceEpoch(p.now)
	for range maxSpins {
		ex, alone := pick.Exclusions{Avoid: o.avoid, Tried: p.tried}, false
		if rt.hinted || r.tracker.Trouble() {
			alone = p.screen(o, &ex, now)
		}
		i := pick.Pick(o.candidates, ex, now, r.rand())
		if i < 0 {
			break
		}
		if t, ok := o.entries[i].endpoint.health.Claim(now, alone); ok {
			p.ticket = t
			return o.entries[i], nil
		}
	}
	return nil, p.cutOff(rt, o, now)
}
