package router

import (
	"context"
	"maps"
	"slices"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// LocalFunc runs a method of a built-in service on the goroutine of the caller. The
// request is its own to keep, the call and the body in it are not.
type LocalFunc func(ctx context.Context, req *Request) (*message.Reply, error)

// localTable holds the built-in methods: service, method, function. It never changes.
type localTable map[string]map[string]LocalFunc

// HandleLocal makes fn the method of a built-in service, in every namespace and ahead of
// any instance that registers the same service name. It replaces an earlier one of the
// same names. Local methods are unary and see the body as the caller sent it.
func (r *Router) HandleLocal(service, method string, fn LocalFunc) {
	r.mu.Lock()
	defer r.mu.Unlock()
	next := maps.Clone(*r.locals.Load())
	methods := maps.Clone(next[service])
	if methods == nil {
		methods = make(map[string]LocalFunc)
	}
	methods[method] = fn
	next[service] = methods
	r.locals.Store(&next)
}

// local runs a built-in method, with a copy of the request and of the call.
func (r *Router) local(ctx context.Context, methods map[string]LocalFunc, key serviceKey, deadline time.Time, req Request) (*message.Reply, error) {
	r.nowhere.inFlight.Add(1)
	defer r.nowhere.inFlight.Add(-1)
	fn := methods[req.Call.Method]
	if fn == nil {
		err := unknownMethod(key.name, req.Call.Method, slices.Sorted(maps.Keys(methods)))
		r.nowhere.ended.count(err)
		return nil, err
	}
	call := *req.Call
	call.Service, call.Caller, call.Deadline = key.name, req.Caller, deadline
	if call.RequestID == "" {
		call.RequestID = r.requestID()
	}
	if call.ChainRoot == "" {
		call.ChainRoot = call.RequestID
	}
	req.Namespace, req.Call = key.namespace, &call
	reply, err := fn(ctx, &req)
	if err != nil {
		e := errs.From(err).In("router", operation(key.name, call.Method))
		r.nowhere.ended.count(e)
		return nil, e
	}
	if reply == nil {
		reply = new(message.Reply)
	}
	r.nowhere.ended.count(reply.Err)
	return reply, nil
}

// unaryOnly is the answer to a streaming call of a built-in service.
func unaryOnly(service, method string, methods map[string]LocalFunc) *errs.Error {
	if methods[method] == nil {
		return unknownMethod(service, method, slices.Sorted(maps.Keys(methods)))
	}
	return notAStream(service, method)
}

// localMethod describes a built-in method.
func localMethod(name string) catalog.Method { return catalog.Method{Name: name, Kind: catalog.Unary} }

// serviceNames returns the names of all services that a namespace can call, sorted.
func (r *Router) serviceNames(namespace string) []string {
	names := slices.Clone(r.index.Services(namespace))
	for name := range *r.locals.Load() {
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}
