package router

import (
	"context"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// Policy decides who may call what. It is asked on every request: it does not block.
type Policy interface {
	// MayCall returns permission_denied, naming the rule, or nil.
	MayCall(namespace string, caller *message.Caller, service string, m *catalog.Method) *errs.Error
	// Handles reports whether a service may be asked to run methods. While it may not, it
	// has none that can be seen.
	Handles(namespace, service string) bool
}

// Keys runs calls that carry an idempotency key, so that each key is answered once.
type Keys interface {
	// Call returns the answer kept for the key of the call, or that of run. The call
	// names its service and method in full, its caller and its deadline, and is not kept.
	// once says that the method must not run again where it may have run. The error, an
	// *errs.Error, is that of the way.
	Call(ctx context.Context, namespace string, call *message.Call, once bool, run KeyedRun) (*message.Reply, error)
}

// KeyedRun runs a call. claim is called with the id of the instance that is about to be
// given the call, and says whether the method of that one must not run again; when it
// fails nobody is given the call, and its error is that of run.
type KeyedRun = func(ctx context.Context, call *message.Call, claim func(instance string, once bool) error) (*message.Reply, error)

// permit asks the policy about a call, once the method it means is known. A request for
// what nobody has is let pass: its own error says more.
func (p *picking) permit(v *view) *errs.Error {
	r := p.router
	if r.policy == nil || v == nil {
		return nil
	}
	rt, several := v.route(p.req.Call.Method)
	if rt == nil {
		if several != nil || r.policy.Handles(p.key.namespace, p.key.name) {
			return nil
		}
		return p.hidden()
	}
	if err := r.policy.MayCall(p.key.namespace, &p.req.Caller, p.key.name, rt.meant(p.req.Call.Target.Contract)); err != nil {
		return err.In("router", operation(p.key.name, rt.name)).Unstarted()
	}
	return nil
}

// hidden is the answer about a method of a service that may not handle calls.
func (p *picking) hidden() *errs.Error {
	service, method := p.key.name, p.req.Call.Method
	if err := p.router.policy.MayCall(p.key.namespace, &p.req.Caller, service, &catalog.Method{Name: method}); err != nil {
		return err.In("router", operation(service, method)).Unstarted()
	}
	return fail(errs.MethodNotFound, service, method,
		"the capability rpc.handle of service %q is off, so that none of its methods is on the map; to switch it on: telford policy capability %s rpc.handle on",
		service, service)
}
