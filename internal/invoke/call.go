package invoke

import (
	"context"
	"math/rand/v2"
	"strings"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/resilience"
)

// Call makes a unary call. The error is that of the path; the failure of the handler
// is in the reply.
func (v *Invoker) Call(ctx context.Context, r *Route, c *Call) (*message.Reply, error) {
	if err := v.begin(r, c); err != nil {
		return nil, v.final(ctx, r, c, err)
	}
	reply, err := v.attempt(ctx, r, c)
	if err == nil && (reply.Err == nil || !resilience.IsUnknown(reply.Err)) {
		return reply, nil
	}
	return v.retry(ctx, r, c, reply, err)
}

// retry makes the further attempts of a call whose first one has failed. The runtime
// reports in its reply that it lost a call on the way to an instance.
func (v *Invoker) retry(ctx context.Context, r *Route, c *Call, reply *message.Reply, err error) (*message.Reply, error) {
	for attempts, before := 1, c.Attempt; ; attempts++ {
		failure := err
		if failure == nil {
			failure = reply.Err
		}
		d := v.decide(r, c, failure, attempts, before > 0, false)
		if d.Retry && d.Charged && !r.budget.Spend(v.opt.Pool.Now()) {
			d.Retry, failure = false, resilience.Exhausted(errs.From(failure))
		}
		if !d.Retry || v.wait(ctx, r, c, d.Delay) != nil {
			return nil, v.final(ctx, r, c, failure)
		}
		c.Attempt = before + attempts
		reply, err = v.attempt(ctx, r, c)
		if err == nil && (reply.Err == nil || !resilience.IsUnknown(reply.Err)) {
			return reply, nil
		}
	}
}

func (v *Invoker) decide(r *Route, c *Call, err error, attempts int, inner, stream bool) resilience.Decision {
	f := resilience.Failure{
		Err: errs.From(err), Attempts: attempts, Stream: stream, Inner: inner, Waiting: c.Wait,
		Keyed: c.IdempotencyKey != "",
	}
	if f.Keyed && !f.Err.NotStarted {
		f.NotRetryable = v.notRetryable(r)
	}
	if !c.Deadline.IsZero() {
		f.HasDeadline, f.Remaining = true, c.Deadline.Sub(v.opt.Clock.Now())
	}
	return c.Policy.Decide(f, rand.Float64()) //nolint:gosec // spreads load, guards nothing
}

// notRetryable reports whether an instance that is known has declared that the method is
// never to be run again.
func (v *Invoker) notRetryable(r *Route) bool {
	for _, i := range v.opt.View.Snapshot().Services[r.key.service] {
		for k := range i.Declaration.Methods {
			m := &i.Declaration.Methods[k]
			if m.NotRetryable && (m.Name == r.key.method || strings.HasSuffix(m.Name, "/"+r.key.method)) {
				return true
			}
		}
	}
	return false
}

// wait lets the time before the next attempt pass. A call that lacks an instance goes
// on as soon as the view changes.
func (v *Invoker) wait(ctx context.Context, _ *Route, c *Call, d time.Duration) error {
	var changed <-chan struct{}
	if c.Wait {
		changed = v.opt.View.Changed()
	}
	t := v.opt.Clock.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C():
		return nil
	case <-changed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// final says what was called when the last attempt has failed.
func (v *Invoker) final(ctx context.Context, r *Route, c *Call, err error) error {
	e := errs.From(err)
	v.denied(r, e)
	switch {
	case isAway(e) && ctx.Err() != context.Canceled:
		// What stood in the way was not the time.
	case ctx.Err() != nil:
		if cause := errs.From(ctx.Err()); e.Code != cause.Code {
			e = errs.New(cause.Code, "%w; before that: %s", ctx.Err(), e.Message)
		}
	case e.NotStarted && !c.Deadline.IsZero() && !v.opt.Clock.Now().Before(c.Deadline):
		if e.Code != errs.DeadlineExceeded {
			e = errs.New(errs.DeadlineExceeded, "the deadline has passed; before that: %s", e.Message)
		}
	}
	out := *e
	out.Operation = "call " + r.key.service + "/" + r.key.method
	if out.Component == "" {
		out.Component = "sdk"
	}
	return &out
}

// attempt offers the call once to each path that its plan allows.
func (v *Invoker) attempt(ctx context.Context, r *Route, c *Call) (*message.Reply, error) {
	var w way
	switch c.plan {
	case Proxy:
		return v.proxied(ctx, r, c)
	case proxyElseDirect:
		reply, err := v.proxied(ctx, r, c)
		if err == nil {
			return reply, nil
		}
		if err = v.passOn(r, err); err != nil {
			return nil, err
		}
		reply, _, err = v.direct(ctx, r, c, &w)
		return reply, err
	}
	reply, known, err := v.direct(ctx, r, c, &w)
	if err == nil {
		return reply, nil
	}
	if err = v.toRuntime(r, c, &w, known, err); err != nil {
		return nil, err
	}
	return v.proxied(ctx, r, c)
}

// toRuntime decides whether a call that has failed directly goes on through the runtime,
// and tells the runtime then whom to avoid; else the error stands.
func (v *Invoker) toRuntime(r *Route, c *Call, w *way, known *resolved, err error) error {
	if c.plan == Direct || c.plan == eitherOnly && w.nTried > 0 || !v.opt.Proxy.Available() {
		return err
	}
	e := errs.From(err)
	if v.settled(e) {
		return err
	}
	if e.NotStarted && e.Code == errs.InvalidArgument && e.Meta["path"] == "direct" {
		return nil // the runtime reads what an instance does not
	}
	if err := v.passOn(r, err); err != nil {
		return err
	}
	c.Avoid = v.avoiding(known, w)
	return nil
}

// passOn decides whether a call that has failed on one path may take another: it was
// provably not begun, another might know better, and the budget allows it. Else the
// error stands.
func (v *Invoker) passOn(r *Route, err error) error {
	e := errs.From(err)
	switch {
	case !resilience.Repick(e), e.Meta[resilience.MetaRetry] == resilience.BudgetExhausted:
		return err
	case resilience.RepickCharged(e) && !r.budget.Spend(v.opt.Pool.Now()):
		return resilience.Exhausted(e)
	}
	return nil
}

// proxied offers the call to the runtime.
func (v *Invoker) proxied(ctx context.Context, r *Route, c *Call) (*message.Reply, error) {
	if err := v.checkProxy(c); err != nil {
		return nil, err
	}
	r.throughRuntime(c)
	reply, err := v.opt.Proxy.Call(ctx, &c.Call)
	if err != nil && c.IdempotencyKey != "" && !v.opt.Proxy.Up() {
		if e := errs.From(err); e.NotStarted && e.Code == errs.DeadlineExceeded {
			return nil, away("and has been away until the deadline of the call")
		}
	}
	return reply, err
}

func (v *Invoker) checkProxy(c *Call) error {
	keyed := c.IdempotencyKey != ""
	switch available := v.opt.Proxy.Available(); {
	case !available && keyed:
		return away("and there is none")
	case !available:
		return errs.New(errs.Unavailable, "there is no runtime to call through").Unstarted()
	case !c.FailFast && c.plan != proxyElseDirect || v.opt.Proxy.Up():
		return nil
	case keyed:
		return away("which is away, and the call does not wait for it")
	default:
		return errs.New(errs.Unavailable, "the runtime is away and the call does not wait for it").Unstarted()
	}
}

// whyAway is the reason of calls that cannot do without the runtime.
const whyAway = "runtime_away"

func away(text string) error {
	return errs.New(errs.Unavailable, "a call with an idempotency key goes only through the runtime, %s", text).
		Unstarted().With(errs.MetaReason, whyAway)
}

func isAway(e *errs.Error) bool { return e.Meta[errs.MetaReason] == whyAway }

// direct offers the call to instances, one after another while they refuse it unbegun.
func (v *Invoker) direct(ctx context.Context, r *Route, c *Call, w *way) (*message.Reply, *resolved, error) {
	known, err := v.locate(ctx, r, c)
	if err != nil {
		return nil, known, err
	}
	for {
		ch, err := v.choose(ctx, r, c, known, w)
		if err != nil {
			return nil, known, err
		}
		ch.conn.Used()
		ch.peer.Load.Begin()
		reply, err := ch.conn.Call(ctx, &c.Call)
		ch.peer.Load.End()
		if err == nil {
			ch.peer.Ended(ch.ticket, resilience.Succeeded)
			c.Conn = ch.conn
			return reply, known, nil
		}
		if !v.refused(known, ch, w, err) { //nolint:contextcheck // the connection belongs to the pool
			return nil, known, err
		}
	}
}

// locate returns the instances to call directly, waiting for the runtime to name them
// where it has not yet.
func (v *Invoker) locate(ctx context.Context, r *Route, c *Call) (*resolved, error) {
	known := v.resolve(r, c.Target)
	if known.err != nil && known.err.Code == errs.NoInstance {
		if err := v.discover(ctx, r, c); err != nil && c.plan == Direct {
			return known, errs.New(errs.NoInstance, "the runtime has not said where %s is: %w", r.key.service, err).Unstarted()
		}
		known = v.resolve(r, c.Target)
	}
	if known.err != nil {
		return known, known.err
	}
	known.directly(c)
	return known, nil
}

// refused takes in the failure of an attempt and reports whether another instance may be
// asked.
func (v *Invoker) refused(known *resolved, ch choice, w *way, err error) bool {
	e := errs.From(err)
	v.failed(known, ch, e)
	if !resilience.Repick(e) {
		return false
	}
	if e.Code == errs.Unavailable {
		ch.peer.Refused(ch.conn)
	}
	w.try(ch.peer, err)
	return true
}
