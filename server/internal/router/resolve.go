package router

import (
	"maps"
	"slices"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/message"
)

// ResolveMethod finds a method of a service by its full name, or by the last segment of
// it when that is unique. An empty service means the only one that registers the gRPC
// service of the method. Where instances declare it differently, the newest version
// counts. Errors are those of Router.Call.
func (r *Router) ResolveMethod(namespace, service, name string) (catalog.Method, error) {
	return r.ResolveContract(namespace, service, name, "")
}

// ResolveContract is ResolveMethod for a call of the given contract: where an instance has
// that, the method is as the newest of these declare it.
func (r *Router) ResolveContract(namespace, service, name, contract string) (catalog.Method, error) {
	key, err := r.admit(&Request{Namespace: namespace, Call: &message.Call{Service: service, Method: name}})
	if err != nil {
		return catalog.Method{}, err
	}
	if methods := (*r.locals.Load())[key.name]; methods != nil {
		if methods[name] == nil {
			return catalog.Method{}, unknownMethod(key.name, name, slices.Sorted(maps.Keys(methods)))
		}
		return localMethod(name), nil
	}
	s, v := r.current(key)
	if v == nil || len(v.nodes) == 0 {
		return catalog.Method{}, r.unknownService(key.namespace, key.name, name, s != nil)
	}
	rt, several := v.route(name)
	switch {
	case rt != nil:
		return *rt.meant(contract), nil
	case several != nil:
		return catalog.Method{}, ambiguousMethod(key.name, name, several)
	default:
		return catalog.Method{}, unknownMethod(key.name, name, v.methods())
	}
}
