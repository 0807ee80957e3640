package registry

import (
	"cmp"
	"context"
	"slices"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/server/internal/tx"
)

// Filter narrows a list. Empty fields do not narrow.
type Filter struct {
	Namespace string
	Service   string
	Tag       string
	Status    catalog.Status
}

func (f Filter) match(i *catalog.Instance) bool {
	d := &i.Declaration
	return (f.Namespace == "" || f.Namespace == i.Namespace) &&
		(f.Service == "" || f.Service == d.Service) &&
		(f.Status == "" || f.Status == d.Status) &&
		(f.Tag == "" || slices.Contains(d.Tags, f.Tag))
}

// Get returns an instance, whatever its status. not_found: not registered.
func (r *Registry) Get(namespace, id string) (*catalog.Instance, error) {
	k := key{namespace, id}
	r.mu.RLock()
	defer r.mu.RUnlock()
	if e := r.entries[k]; e != nil {
		return e.inst, nil
	}
	return nil, notFound("get instance", k)
}

// List returns the instances that match, whatever their status, ordered by namespace,
// service and id. The instances belong to the Registry.
func (r *Registry) List(f Filter) []*catalog.Instance {
	var out []*catalog.Instance
	take := func(e *entry) {
		if f.match(e.inst) {
			out = append(out, e.inst)
		}
	}
	r.mu.RLock()
	if f.Namespace != "" && f.Service != "" {
		if ns := (*r.namespaces.Load())[f.Namespace]; ns != nil && ns.services[f.Service] != nil {
			for _, e := range ns.services[f.Service].members {
				take(e)
			}
		}
	} else {
		for _, e := range r.entries {
			take(e)
		}
	}
	r.mu.RUnlock()
	slices.SortFunc(out, func(a, b *catalog.Instance) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace),
			cmp.Compare(a.Declaration.Service, b.Declaration.Service), cmp.Compare(a.ID, b.ID))
	})
	return out
}

// Tombstones returns why instances went that are not registered now, oldest first, as
// far back as they are kept. Only namespace and service of the filter apply.
func (r *Registry) Tombstones(ctx context.Context, f Filter) ([]catalog.Tombstone, error) {
	since := stored(r.clock.Now().Add(-r.cfg.KeepTombstones))
	var list []catalog.Tombstone
	err := r.cfg.DB.Read(ctx, func(t tx.Tx) (err error) {
		list, err = r.cfg.Storage.Tombstones(t, since)
		return err
	})
	if err != nil {
		return nil, storeError("list tombstones", err)
	}
	r.mu.RLock()
	defer r.mu.RUnlock()
	return slices.DeleteFunc(list, func(s catalog.Tombstone) bool {
		_, back := r.entries[key{s.Namespace, s.ID}]
		return back || (f.Namespace != "" && f.Namespace != s.Namespace) || (f.Service != "" && f.Service != s.Service)
	}), nil
}
