package handlers

import (
	"context"
	"errors"
	"runtime/debug"
	"time"

	"google.golang.org/grpc/codes"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/limit"
	"telford.dev/telford/internal/message"
)

func (t *Table) limitOptions() limit.Options {
	return limit.Options{Clock: t.opt.Clock, Stop: t.drained}
}

// SetLimits puts what operators have laid down for this service in the place of what it
// declares: a rule with a method in that of the method's own limits, one without in that
// of the bounds of the instance. What a rule has replaced holds again once the rule is
// not among them any more. Calls that run go on, and those that wait keep their places.
func (t *Table) SetLimits(rules []limit.Rule) {
	byMethod := make(map[string][]catalog.Limit)
	for i := range rules {
		if r := &rules[i]; r.Service == t.opt.Service {
			byMethod[r.Method] = append(byMethod[r.Method], r.Limit)
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.rules = byMethod
	for _, m := range t.building {
		t.relimit(m)
	}
	t.boundInstance(byMethod[""])
}

// relimit puts the limits of a method in force; mu is held.
func (t *Table) relimit(m *Method) {
	limits, ruled := t.rules[m.Name]
	if !ruled {
		limits = m.Limits
	}
	for i := range limits {
		if limits[i].Key == catalog.KeyFunc && m.Key == nil {
			t.opt.Log.Warn("a limit is counted by a function that the handler does not have; all calls are counted together", "method", m.Name)
		}
	}
	m.limits.Replace(limits)
}

// boundInstance puts the bounds of the instance in force; mu is held. A concurrency
// without a key replaces those of calls and of streams, each counted for itself; all else
// comes on top of them.
func (t *Table) boundInstance(limits []catalog.Limit) {
	calls, streams := [2]int{t.opt.MaxRunning, t.opt.MaxWaiting}, [2]int{t.opt.MaxStreams, t.opt.MaxStreamsWaiting}
	var extra []catalog.Limit
	for _, l := range limits {
		if l.Key == "" && l.Concurrency > 0 {
			calls = [2]int{l.Concurrency, l.Queue}
			streams = calls
			l.Concurrency, l.Queue = 0, 0
		}
		if l.Concurrency > 0 || l.Rate > 0 {
			extra = append(extra, l)
		}
	}
	t.calls.Set(calls[0], calls[1])
	t.streams.Set(streams[0], streams[1])
	t.instance.Replace(extra)
}

// Limits returns what is in force for a method; "" means the instance, whose bounds of
// calls come first and those of streams second.
func (t *Table) Limits(method string) []catalog.Limit {
	if method == "" {
		var calls, streams catalog.Limit
		calls.Concurrency, calls.Queue = t.calls.Bounds()
		streams.Concurrency, streams.Queue = t.streams.Bounds()
		return append([]catalog.Limit{calls, streams}, t.instance.Limits()...)
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if m := t.building[method]; m != nil {
		return m.limits.Limits()
	}
	return nil
}

// admitted is what a call holds while it runs.
type admitted struct {
	gate    *limit.Gate
	held    limit.Held
	cancel  context.CancelFunc // of the timeout of the method
	timeout time.Duration
}

// leave gives back what the call holds.
func (a *admitted) leave() {
	if a.cancel != nil {
		a.cancel()
	}
	a.gate.Leave()
	a.held.Leave()
}

// facts are what the limits of a call on a link are counted by.
func (t *Table) facts(ctx context.Context, conn *Conn, m *Method, call *message.Call) limit.Facts {
	f := limit.Facts{Caller: call.Caller.Service, Headers: call.Headers, ContentType: call.ContentType, Body: call.Body}
	if m.Input != nil {
		f.Input = m.Input.Descriptor()
	}
	if m.Key != nil {
		f.Func = func() string {
			return t.keyOf(m, &Context{Context: ctx, call: *call, body: call.Body, conn: conn, m: m}, nil)
		}
	}
	return f
}

// keyOf asks the function of the handler; one that panics gives no key.
func (t *Table) keyOf(m *Method, c *Context, req any) (key string) {
	defer func() {
		if p := recover(); p != nil {
			t.opt.Log.Error("the function that gives the key of a limit panicked", "method", m.Name, "panic", p, "stack", string(debug.Stack()))
			key = ""
		}
	}()
	return m.Key(c, req)
}

// admit lets a call in through the limits of its method, and then through those of the
// instance: who waits for its method takes no place from others.
func (t *Table) admit(ctx context.Context, m *Method, f *limit.Facts, stream bool, in *admitted) *errs.Error {
	if r := m.limits.Enter(ctx, f, &in.held); r != nil {
		return t.limited(r, "method "+m.Name)
	}
	if r := t.instance.Enter(ctx, f, &in.held); r != nil {
		return t.limited(r, "instance of "+t.opt.Service)
	}
	in.gate = t.calls
	if stream {
		in.gate = t.streams
	}
	if r := in.gate.Enter(ctx); r != nil {
		in.held.Undo()
		r.Limit.Concurrency, r.Limit.Queue = in.gate.Bounds()
		what := "inbound calls of this instance of "
		if stream {
			what = "inbound streams of this instance of "
		}
		return t.limited(r, what+t.opt.Service)
	}
	// Whoever waits for the end of all calls has set draining first, and counts this
	// one only if it got in before.
	if t.draining.Load() {
		in.gate.Leave()
		in.held.Undo()
		return t.drainError()
	}
	return nil
}

func (t *Table) limited(r *limit.Refusal, what string) *errs.Error {
	if r.Reason == limit.Stopped {
		return t.drainError()
	}
	return r.Err(what)
}

// errOvertime is why the context of a handler ended when its own limit was the cause.
var errOvertime = errors.New("the handler took longer than its method may")

// within returns the context in which the method runs: it ends with the method's own
// timeout, if there is one.
func (a *admitted) within(ctx context.Context, m *Method) context.Context {
	if m.Timeout <= 0 {
		return ctx
	}
	ctx, a.cancel = context.WithTimeoutCause(ctx, m.Timeout, errOvertime)
	a.timeout = m.Timeout
	return ctx
}

// overtime says whose limit it was where a handler failed because its time had ended.
func (a *admitted) overtime(c *Context, err error) error {
	if err == nil || a.timeout == 0 || !errors.Is(context.Cause(c.Context), errOvertime) {
		return err
	}
	if f := Failure(err); f.Code != errs.DeadlineExceeded && f.Code != errs.Canceled && f.GRPCCode != codes.DeadlineExceeded {
		return err // it failed for another reason
	}
	return errs.New(errs.DeadlineExceeded, "the handler of %s ran into the limit of %v that its method sets itself, not into a deadline of the caller", c.m.Name, a.timeout).
		In("sdk", "serve "+c.m.Name).WithCause(err).With("reason", "timeout").With("timeout", a.timeout.String()).With("method", c.m.Name)
}
