package registry

import "telford.dev/telford/internal/catalog"

// Policy says what of a declaration has no effect because an operator has forbidden it.
// Its methods do not wait.
type Policy interface {
	// Handles reports whether a service may be asked to run methods.
	Handles(namespace, service string) bool
	// Warnings says what of a declaration is forbidden.
	Warnings(namespace string, d *catalog.Declaration) []catalog.DeclarationWarning
}

func (r *Registry) handles(namespace, service string) bool {
	return r.cfg.Policy == nil || r.cfg.Policy.Handles(namespace, service)
}

// forbidden says what of a declaration the policy forbids.
func (r *Registry) forbidden(namespace string, d *catalog.Declaration) []Warning {
	if r.cfg.Policy == nil {
		return nil
	}
	return r.cfg.Policy.Warnings(namespace, d)
}

// Apply publishes the instances of a namespace again whose methods the policy has taken
// away or given back since. It does not wait.
func (r *Registry) Apply(namespace string) {
	if r.cfg.Policy == nil {
		return
	}
	r.change(func(c *change) {
		ns := (*r.namespaces.Load())[namespace]
		if ns == nil {
			return
		}
		for _, s := range ns.services {
			hidden := !r.handles(namespace, s.name)
			for _, e := range s.members {
				if e.hidden == hidden {
					continue
				}
				e.hidden = hidden
				next := *e.inst
				if next.Declaration.Methods = e.methods; hidden {
					next.Declaration.Methods = nil
				}
				c.publish(e, &next, 0)
			}
		}
	})
}

// Forbidden says what of the declaration of an instance has no effect at present because
// the policy forbids it; nil also when it is not registered.
func (r *Registry) Forbidden(namespace, id string) []Warning {
	if r.cfg.Policy == nil {
		return nil
	}
	r.mu.RLock()
	e := r.entries[key{namespace, id}]
	var d catalog.Declaration
	if e != nil {
		d = e.inst.Declaration
		d.Methods = e.methods
	}
	r.mu.RUnlock()
	if e == nil {
		return nil
	}
	return r.forbidden(namespace, &d)
}
