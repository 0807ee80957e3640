package registry

import (
	"slices"
	"strings"
	"sync/atomic"

	"telford.dev/telford/internal/catalog"
)

// namespace is the index of one namespace. Namespaces stay once they were used.
type namespace struct {
	name     string
	services map[string]*service   // guarded by Registry.mu
	last     uint64                // the latest delta
	watchers map[*Watcher]struct{} // of all services
	quota    int                   // of instances; 0: any number
	joining  int                   // instances that are being registered and not yet counted
	dirty    bool                  // to be published at the end of the change
	public   atomic.Pointer[public]
}

// public is what readers see of a namespace without a lock.
type public struct {
	services map[string]*service // those with a visible instance
	names    []string            // the same, sorted
	grpc     map[string][]string // gRPC service to the services that register it, sorted
}

// service is one name within a namespace. It is kept while it has members or
// watchers, or a delta of it is retained.
type service struct {
	ns       *namespace
	name     string
	members  []*entry // sorted by id, also OFFLINE ones
	visible  int
	grpc     map[string]int // gRPC services, by the number of visible members
	last     uint64         // the latest delta
	watchers map[*Watcher]struct{}
	dirty    bool // to be published at the end of the change
	// candidates are the visible instances, sorted by id.
	candidates atomic.Pointer[[]*catalog.Instance]
}

// Candidates returns the instances of a service that are not OFFLINE, sorted by id,
// whether reachable, draining or neither. It takes no lock and allocates nothing. The
// slice and what it points to belong to the Registry and never change.
func (r *Registry) Candidates(namespace, service string) []*catalog.Instance {
	ns := (*r.namespaces.Load())[namespace]
	if ns == nil {
		return nil
	}
	s := ns.public.Load().services[service]
	if s == nil {
		return nil
	}
	return *s.candidates.Load()
}

// Services returns the names of the services that have an instance which is not
// OFFLINE, sorted. It takes no lock; the slice must not be changed.
func (r *Registry) Services(namespace string) []string {
	if ns := (*r.namespaces.Load())[namespace]; ns != nil {
		return ns.public.Load().names
	}
	return nil
}

// ServicesWithMethod returns the names of the services of which an instance that is
// not OFFLINE registers methods of the gRPC service, sorted. It takes no lock; the
// slice must not be changed.
func (r *Registry) ServicesWithMethod(namespace, grpcService string) []string {
	if ns := (*r.namespaces.Load())[namespace]; ns != nil {
		return ns.public.Load().grpc[grpcService]
	}
	return nil
}

// namespace returns the index of a namespace, making it first if need be. mu is held.
func (r *Registry) namespace(name string) *namespace {
	all := *r.namespaces.Load()
	if ns := all[name]; ns != nil {
		return ns
	}
	ns := &namespace{name: name, services: make(map[string]*service), watchers: make(map[*Watcher]struct{})}
	ns.public.Store(&public{})
	next := make(map[string]*namespace, len(all)+1)
	for k, v := range all {
		next[k] = v
	}
	next[name] = ns
	r.namespaces.Store(&next)
	return ns
}

func (ns *namespace) service(name string) *service {
	s := ns.services[name]
	if s == nil {
		s = &service{ns: ns, name: name, grpc: make(map[string]int), watchers: make(map[*Watcher]struct{})}
		s.candidates.Store(new([]*catalog.Instance))
		ns.services[name] = s
	}
	return s
}

// find returns where the member with this id is, or belongs.
func (s *service) find(id string) (int, bool) {
	return slices.BinarySearchFunc(s.members, id, func(e *entry, id string) int { return strings.Compare(e.id, id) })
}

// count adds by to what the methods of i register, and reports whether the set of gRPC
// services has changed.
func (s *service) count(i *catalog.Instance, by int) (changed bool) {
	seen := make(map[string]bool)
	for m := range i.Declaration.Methods {
		name, ok := catalog.GRPCService(i.Declaration.Methods[m].Name)
		if !ok || seen[name] {
			continue
		}
		seen[name] = true
		before := s.grpc[name]
		s.grpc[name] = before + by
		if before == 0 || before+by == 0 {
			changed = true
		}
		if before+by == 0 {
			delete(s.grpc, name)
		}
	}
	return changed
}

// publish makes what readers see of the namespace anew.
func (ns *namespace) publish() {
	p := &public{services: make(map[string]*service), grpc: make(map[string][]string)}
	for name, s := range ns.services {
		if s.visible == 0 {
			continue
		}
		p.services[name] = s
		p.names = append(p.names, name)
		for g := range s.grpc {
			p.grpc[g] = append(p.grpc[g], name)
		}
	}
	slices.Sort(p.names)
	for _, names := range p.grpc {
		slices.Sort(names)
	}
	ns.public.Store(p)
}

// publish makes the candidates anew.
func (s *service) publish() {
	list := make([]*catalog.Instance, 0, s.visible)
	for _, e := range s.members {
		if visible(e.inst) {
			list = append(list, e.inst)
		}
	}
	s.candidates.Store(&list)
}

// forget drops a service that nothing needs any more: without members, watchers and
// retained deltas.
func (s *service) forget(oldest uint64) {
	if len(s.members) == 0 && len(s.watchers) == 0 && s.last < oldest && s.ns.services[s.name] == s {
		delete(s.ns.services, s.name)
	}
}
