package view

import (
	"slices"
	"strings"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
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

// Resolve finds the instances of a service that a call may go to directly. A bare last
// segment names a method when it is unique. The order of the rules is that of the
// runtime: realm, version or compatible version, contract, status.
func (s *Snapshot) Resolve(service, method string, ct message.ContentType, target message.Target) (Resolution, error) {
	all := s.Services[service]
	if len(all) == 0 {
		return Resolution{}, errs.New(errs.NoInstance, "no instance of %s is known", service).Unstarted().With("service", service)
	}
	name, kind, err := s.method(all, service, method)
	if err != nil {
		return Resolution{}, err
	}
	r := Resolution{Method: name, Kind: kind}
	having := filter(all, func(i *catalog.Instance) bool {
		return lookup(i, name) != nil && (target.Instance == "" || i.ID == target.Instance) && matchRealm(target.Realm, i.Declaration.Realm)
	})
	having = byVersion(having, target.Version)
	if len(having) == 0 {
		return r, errs.New(errs.NoInstance, "no instance of %s fits: %s", service, describe(target)).Unstarted().With("service", service)
	}
	having = filter(having, func(i *catalog.Instance) bool { return i.Declaration.Status.Receives() && !i.Draining })
	if len(having) == 0 {
		r.Unfit = "none of its instances is ready for calls"
		return r, nil
	}
	addressed := filter(having, func(i *catalog.Instance) bool { return Address(i) != "" })
	if len(addressed) == 0 {
		r.Unfit = "none of its instances has an address for direct calls"
		return r, nil
	}
	speaking := filter(addressed, func(i *catalog.Instance) bool {
		return slices.Contains(lookup(i, name).ContentTypes, ct.String())
	})
	if len(speaking) == 0 {
		r.Unfit = "none of its instances takes " + ct.String()
		return r, nil
	}
	if target.Contract != "" {
		if same := filter(speaking, func(i *catalog.Instance) bool { return lookup(i, name).Contract == target.Contract }); len(same) > 0 {
			speaking = same
		}
	}
	r.Instances = speaking
	return r, nil
}

// method resolves a name among the methods of all instances of a service.
func (s *Snapshot) method(all []*catalog.Instance, service, name string) (string, catalog.Kind, error) {
	var found []string
	var kind catalog.Kind
	for _, i := range all {
		for k := range i.Declaration.Methods {
			m := &i.Declaration.Methods[k]
			if m.Name == name {
				return name, m.Kind, nil
			}
			if !strings.Contains(name, "/") && strings.HasSuffix(m.Name, "/"+name) && !slices.Contains(found, m.Name) {
				found, kind = append(found, m.Name), m.Kind
			}
		}
	}
	switch len(found) {
	case 1:
		return found[0], kind, nil
	case 0:
		return "", "", errs.New(errs.MethodNotFound, "service %s has no method %q", service, name).Unstarted().
			With("service", service).With("method", name)
	}
	slices.Sort(found)
	return "", "", errs.New(errs.InvalidArgument, "service %s has several methods %q: %s; use the whole name",
		service, name, strings.Join(found, ", ")).Unstarted()
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

func filter(list []*catalog.Instance, keep func(*catalog.Instance) bool) []*catalog.Instance {
	out := make([]*catalog.Instance, 0, len(list))
	for _, i := range list {
		if keep(i) {
			out = append(out, i)
		}
	}
	return out
}

// byVersion keeps the instances of exactly this version; when none runs, those that
// say they are compatible with it.
func byVersion(list []*catalog.Instance, version string) []*catalog.Instance {
	if version == "" {
		return list
	}
	if exact := filter(list, func(i *catalog.Instance) bool { return i.Declaration.Version == version }); len(exact) > 0 {
		return exact
	}
	return filter(list, func(i *catalog.Instance) bool { return slices.Contains(i.Declaration.CompatibleVersions, version) })
}

// matchRealm matches a realm against a pattern in which * stands for any run of
// characters; the empty pattern matches every realm.
func matchRealm(pattern, realm string) bool {
	if pattern == "" {
		return true
	}
	head, rest, wild := strings.Cut(pattern, "*")
	if !wild {
		return pattern == realm
	}
	if !strings.HasPrefix(realm, head) {
		return false
	}
	realm = realm[len(head):]
	parts := strings.Split(rest, "*")
	for _, part := range parts[:len(parts)-1] {
		at := strings.Index(realm, part)
		if at < 0 {
			return false
		}
		realm = realm[at+len(part):]
	}
	return strings.HasSuffix(realm, parts[len(parts)-1])
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
