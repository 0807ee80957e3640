package router

import (
	"context"
	"slices"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// keyed runs a call with an idempotency key. The call may go on when its caller has
// gone, so that nothing of the request is held on to but copies.
func (r *Router) keyed(ctx context.Context, deadline time.Time, req *Request, key serviceKey, v *view) (*message.Reply, *errs.Error) {
	call := *req.Call
	call.Service, call.Caller, call.Deadline = key.name, req.Caller, deadline
	if call.RequestID == "" {
		call.RequestID = r.requestID()
	}
	once, err := r.resolveKeyed(&call, req, key, v)
	if err != nil {
		return nil, err
	}
	own := *req
	own.Call = nil
	own.Namespace, own.Avoid = key.namespace, slices.Clone(req.Avoid)
	method := call.Method
	reply, failed := r.keys.Call(ctx, key.namespace, &call, once,
		func(ctx context.Context, call *message.Call, claim func(instance string, once bool) error) (*message.Reply, error) {
			mine := own
			mine.Call = call
			s, v := r.current(key)
			start := r.clock.Now()
			m := r.meter(s)
			p := picking{router: r, key: key, now: start, req: &mine, query: r.query(&mine, key.namespace, catalog.Unary)}
			p.claim = func(e *entry) *errs.Error {
				if e.method.Name != method {
					return fail(errs.Unavailable, key.name, method, "the whole name of method %q became known only now, as %q: call again", clip(method), e.method.Name)
				}
				return errs.From(claim(e.instance.ID, e.method.NotRetryable))
			}
			if s != nil {
				s.budget.Deposit()
			}
			reply, err := p.run(ctx, call.Deadline, s, v, m)
			if err != nil {
				return nil, err
			}
			m.observe(p.ended.Sub(start))
			return reply, nil
		})
	if failed != nil {
		return nil, errs.From(failed).In("router", operation(key.name, method))
	}
	return reply, nil
}

// resolveKeyed gives a call the whole name of its method, under which its key is kept,
// and says whether that must not run again. A method that nobody has now keeps the name
// it was called by: its answers may be kept from before.
func (r *Router) resolveKeyed(call *message.Call, req *Request, key serviceKey, v *view) (once bool, err *errs.Error) {
	if v != nil {
		rt, several := v.route(call.Method)
		switch {
		case rt != nil:
			call.Method = rt.name
			return rt.meant(call.Target.Contract).NotRetryable, nil
		case several != nil:
			return false, ambiguousMethod(key.name, call.Method, several)
		}
	}
	if r.policy != nil {
		if err := r.policy.MayCall(key.namespace, &req.Caller, key.name, &catalog.Method{Name: call.Method}); err != nil {
			return false, err.In("router", operation(key.name, call.Method)).Unstarted()
		}
	}
	return false, nil
}

// keyedStream is the answer to a streaming call with an idempotency key.
func keyedStream(service string, call *message.Call) *errs.Error {
	return fail(errs.FailedPrecondition, service, call.Method,
		"the stream carries the idempotency key %q, and only the answers of unary calls are kept: leave the key out, or make it a unary call", clip(call.IdempotencyKey))
}
