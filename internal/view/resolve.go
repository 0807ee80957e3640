package view

import (
	"slices"
	"strings"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/match"
	"telford.dev/telford/internal/message"
)

// Resolution is the answer to: who may run this method?
type Resolution struct {
	// Method is the whole name of the method.
	Method string
	Kind   catalog.Kind
	// Instances speak the content type of the caller and have an address.
	Instances []*catalog.Instance
	// Unfit says why Instances is empty although somebody has the method: nobody of
	// them is healthy, reachable directly, or speaks the content type.
	Unfit string
}

// Resolve finds the instances of a service that a call may go to directly, all of one
// contract. A bare last segment names a method when it is unique. The rules are those of
// the runtime: realm, version or compatible version, contract. The error of a caller whose
// contract nobody speaks has the reason contract; a method that policy forbids to call
// gives its denial.
func (s *Snapshot) Resolve(service, method string, ct message.ContentType, target message.Target) (Resolution, error) {
	all := s.all[service]
	if len(all) == 0 {
		return Resolution{}, errs.New(errs.NoInstance, "no instance of %s is known", service).Unstarted().With("service", service)
	}
	name, kind, err := s.method(all, service, method)
	if err != nil {
		return Resolution{}, err
	}
	r := Resolution{Method: name, Kind: kind}
	if d := s.policy.Verdict(s.self, service, name); !d.Allowed {
		return r, d.Err(s.self, service, name)
	}
	var having []candidate
	for _, i := range all {
		m := lookup(i, name)
		if m != nil && (target.Instance == "" || i.ID == target.Instance) && match.Realm(target.Realm, match.RealmOf(&i.Declaration)) &&
			(match.ExactVersion(&i.Declaration, target.Version) || match.CompatibleVersion(&i.Declaration, target.Version)) {
			having = append(having, candidate{i, m})
		}
	}
	if len(having) == 0 {
		return r, errs.New(errs.NoInstance, "no instance of %s fits: %s", service, describe(target)).Unstarted().With("service", service)
	}
	if !slices.ContainsFunc(having, candidate.takes) {
		r.Unfit = "none of its instances is ready for calls"
		return r, nil
	}
	meant, refusal := choose(service, name, having, target)
	if refusal != nil {
		return r, refusal
	}
	addressed := filter(meant, func(c candidate) bool { return Address(c.instance) != "" })
	if len(addressed) == 0 {
		r.Unfit = "none of its instances has an address for direct calls"
		return r, nil
	}
	speaking := filter(addressed, func(c candidate) bool { return slices.Contains(c.method.ContentTypes, ct.String()) })
	if len(speaking) == 0 {
		r.Unfit = "none of its instances takes " + ct.String()
		return r, nil
	}
	r.Instances = make([]*catalog.Instance, 0, len(speaking))
	for _, c := range speaking {
		r.Instances = append(r.Instances, c.instance)
	}
	return r, nil
}

// candidate is an instance with the method that is asked for.
type candidate struct {
	instance *catalog.Instance
	method   *catalog.Method
}

// takes reports whether the instance is given calls.
func (c candidate) takes() bool {
	return c.instance.Declaration.Status.Receives() && !c.instance.Draining
}

// reached reports whether the runtime reaches the instance too: what it has lost has
// mostly ended.
func (c candidate) reached() bool { return c.takes() && c.instance.Reachable }

func (c candidate) declaration() *catalog.Declaration { return &c.instance.Declaration }

func (c candidate) speaker() match.Speaker {
	s := match.Speaker{ID: c.instance.ID, Version: c.instance.Declaration.Version, Contract: c.method.Contract}
	switch {
	case !c.instance.Declaration.Status.Receives():
		s.Unready = "status " + string(c.instance.Declaration.Status)
	case c.instance.Draining:
		s.Unready = "draining"
	}
	return s
}

// choose narrows instances, of which one takes calls at least, to those of one version
// and one contract. What the runtime does not reach comes second: while the runtime is
// away, or just back, that is everybody, and they are called directly all the same.
func choose(service, method string, having []candidate, target message.Target) ([]candidate, error) {
	wish := match.Wish{Contract: target.Contract, Lenient: target.PreferContract}
	taking := filter(having, candidate.takes)
	for _, ready := range []func(candidate) bool{candidate.reached, candidate.takes} {
		shapes := match.Shapes(match.Version(taking, candidate.declaration, target.Version, ready), candidate.speaker)
		if at := match.Choose(shapes, wish, ready); at >= 0 {
			return shapes[at].Members, nil
		}
	}
	having = match.Version(having, candidate.declaration, target.Version, candidate.takes)
	speakers := make([]match.Speaker, 0, len(having))
	for _, c := range having {
		speakers = append(speakers, c.speaker())
	}
	return nil, match.Refusal(service, method, target.Contract, speakers)
}

// method resolves a name among the methods of all instances of a service.
func (s *Snapshot) method(all []*catalog.Instance, service, name string) (string, catalog.Kind, error) {
	for _, i := range all {
		if m := lookup(i, name); m != nil {
			return name, m.Kind, nil
		}
	}
	var names match.Names
	kinds := make(map[string]catalog.Kind)
	for _, i := range all {
		for k := range i.Declaration.Methods {
			m := &i.Declaration.Methods[k]
			names.Add(m.Name)
			kinds[m.Name] = m.Kind
		}
	}
	full, several := names.Bare(name)
	switch {
	case full != "":
		return full, kinds[full], nil
	case several != nil:
		return "", "", errs.New(errs.InvalidArgument, "service %s has several methods %q: %s; use the whole name",
			service, name, strings.Join(several, ", ")).Unstarted()
	}
	return "", "", errs.New(errs.MethodNotFound, "service %s has no method %q", service, name).Unstarted().
		With("service", service).With("method", name)
}

// Address returns where an instance can be called directly, "" if nowhere.
func Address(i *catalog.Instance) string {
	for _, e := range i.Declaration.Endpoints {
		if e.Kind == "link" {
			return joinHostPort(e.Host, e.Port)
		}
	}
	return ""
}

func lookup(i *catalog.Instance, name string) *catalog.Method {
	for k := range i.Declaration.Methods {
		if i.Declaration.Methods[k].Name == name {
			return &i.Declaration.Methods[k]
		}
	}
	return nil
}

func filter(list []candidate, keep func(candidate) bool) []candidate {
	out := make([]candidate, 0, len(list))
	for _, c := range list {
		if keep(c) {
			out = append(out, c)
		}
	}
	return out
}

func describe(t message.Target) string {
	var parts []string
	for _, p := range []struct{ what, value string }{{"realm", t.Realm}, {"version", t.Version}, {"instance", t.Instance}} {
		if p.value != "" {
			parts = append(parts, p.what+" "+p.value)
		}
	}
	if len(parts) == 0 {
		return "none has the method"
	}
	return strings.Join(parts, ", ")
}

// Denial returns what policy says against a method that was not declared, as those that
// only plain gRPC carries are not; nil when it says nothing.
func (s *Snapshot) Denial(service, method string) *errs.Error {
	return s.policy.Verdict(s.self, service, method).Err(s.self, service, method)
}
