package invoke

import (
	"context"
	"math/rand/v2"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/resilience"
)

// Call makes a unary call. The error is that of the path; the failure of the handler
// is in the reply.
func (v *Invoker) Call(ctx context.Context, r *Route, c *Call) (*message.Reply, error) {
	reply, err := v.attempt(ctx, r, c)
	if err == nil {
		return reply, nil
	}
	return v.retry(ctx, r, c, err)
}

// retry makes the further attempts of a call whose first one has failed.
func (v *Invoker) retry(ctx context.Context, r *Route, c *Call, err error) (*message.Reply, error) {
	for attempts := 1; ; attempts++ {
		if d := v.decide(c, err, attempts, false); !d.Retry {
			return nil, v.final(ctx, r, c, err)
		} else if werr := v.wait(ctx, r, c, d.Delay); werr != nil {
			return nil, v.final(ctx, r, c, err)
		}
		c.Attempt = attempts
		reply, next := v.attempt(ctx, r, c)
		if next == nil {
			return reply, nil
		}
		err = next
	}
}

// maxWait is the longest pause between two looks for an instance of a call that waits
// until one is there.
const maxWait = time.Second

func (v *Invoker) decide(c *Call, err error, attempts int, stream bool) resilience.Decision {
	f := resilience.Failure{Err: errs.From(err), Attempts: attempts, Stream: stream}
	if !c.Deadline.IsZero() {
		f.HasDeadline, f.Remaining = true, c.Deadline.Sub(v.opt.Clock.Now())
	}
	policy := c.Policy
	if c.Wait && f.Err.NotStarted {
		policy.MaxAttempts, policy.Cap = attempts+1, min(policy.Cap, maxWait)
		f.Stream = false
	}
	return policy.Decide(f, rand.Float64()) //nolint:gosec // spreads load, guards nothing
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
	switch {
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

// attempt offers the call once to each path that its mode allows.
func (v *Invoker) attempt(ctx context.Context, r *Route, c *Call) (*message.Reply, error) {
	if c.Mode != Proxy {
		reply, err := v.direct(ctx, r, c)
		if err == nil {
			return reply, nil
		}
		if c.Mode == Direct || !v.fallsBack(err) || !v.opt.Proxy.Available() {
			return nil, err
		}
	}
	if e := v.checkProxy(c); e != nil {
		return nil, e
	}
	r.throughRuntime(c)
	return v.opt.Proxy.Call(ctx, &c.Call)
}

// throughRuntime readies a call for the runtime, which resolves it itself.
func (r *Route) throughRuntime(c *Call) {
	c.Conn, c.Method = nil, r.key.method
	c.Target.Contract, c.Target.PreferContract = r.key.wish.Contract, r.key.wish.Lenient
}

// directly readies a call for an instance of the wanted contract.
func (k *resolved) directly(c *Call) {
	c.Method = k.method
	c.Target.Contract, c.Target.PreferContract = "", false
}

func (v *Invoker) checkProxy(c *Call) error {
	switch {
	case !v.opt.Proxy.Available():
		return errs.New(errs.Unavailable, "there is no runtime to call through").Unstarted()
	case c.FailFast && !v.opt.Proxy.Up():
		return errs.New(errs.Unavailable, "the runtime is away and the call does not wait for it").Unstarted()
	}
	return nil
}

// fallsBack reports whether a call that failed directly may go through the runtime: it
// was provably not begun, and the runtime might know better. Of contracts it knows what
// it has told this process, as long as they are connected.
func (v *Invoker) fallsBack(err error) bool {
	e := errs.From(err)
	if e.Code == errs.NoInstance && e.Meta[errs.MetaReason] == errs.ReasonContract && v.opt.Proxy.Up() {
		return false
	}
	return resilience.Repick(e) || e.NotStarted && e.Code == errs.InvalidArgument && e.Meta["path"] == "direct"
}

// direct offers the call to instances, one after another while they refuse it unbegun.
func (v *Invoker) direct(ctx context.Context, r *Route, c *Call) (*message.Reply, error) {
	known := v.resolve(r, c.Target)
	if known.err != nil && known.err.Code == errs.NoInstance {
		if err := v.discover(ctx, r, c); err != nil && c.Mode == Direct {
			return nil, errs.New(errs.NoInstance, "the runtime has not said where %s is: %w", r.key.service, err).Unstarted()
		}
		known = v.resolve(r, c.Target)
	}
	if known.err != nil {
		return nil, known.err
	}
	known.directly(c)
	var w way
	for {
		p, conn, err := v.pickPeer(ctx, c.Deadline, known, &w)
		if err != nil {
			return nil, err
		}
		conn.Used()
		p.Load.Begin()
		reply, err := conn.Call(ctx, &c.Call)
		p.Load.End()
		if err == nil {
			c.Conn = conn
			return reply, nil
		}
		e := errs.From(err)
		if !resilience.Repick(e) {
			return nil, err
		}
		if e.Code == errs.Unavailable {
			p.Refused(conn) //nolint:contextcheck // the connection belongs to the pool
		}
		w.try(p, err)
	}
}
