package view

import (
	"slices"

	"telford.dev/telford/internal/catalog"
)

// shown is what a process sees of an instance under one policy.
type shown struct {
	of *catalog.Instance
	as *catalog.Instance // nil when it is hidden
}

// Hidden reports whether instances of a service are known and policy forbids to call any
// of them.
func (s *Snapshot) Hidden(service string) bool {
	return len(s.all[service]) > 0 && len(s.Services[service]) == 0
}

// visible leaves out, with mu held, what policy forbids to call. What was shown of an
// instance stays the same value for as long as the instance and the policy do.
func (v *View) visible(all map[string][]*catalog.Instance) map[string][]*catalog.Instance {
	if v.policy == nil {
		return all
	}
	out, kept := make(map[string][]*catalog.Instance, len(all)), make(map[string]shown)
	for service, list := range all {
		for _, i := range list {
			s := v.shown[i.ID]
			if s.of != i {
				s = shown{i, v.show(i)}
			}
			kept[i.ID] = s
			if s.as != nil {
				out[service] = append(out[service], s.as)
			}
		}
	}
	v.shown = kept
	return out
}

// show returns the instance with the methods that may be called: itself where that is
// all of them, nil where it is none.
func (v *View) show(i *catalog.Instance) *catalog.Instance {
	service := i.Declaration.Service
	may := func(m catalog.Method) bool { return v.policy.Permits(v.self, service, m.Name) }
	methods := i.Declaration.Methods
	if !slices.ContainsFunc(methods, func(m catalog.Method) bool { return !may(m) }) {
		return i
	}
	if !slices.ContainsFunc(methods, may) {
		return nil
	}
	c := *i
	c.Declaration.Methods = slices.DeleteFunc(slices.Clone(methods), func(m catalog.Method) bool { return !may(m) })
	return &c
}
