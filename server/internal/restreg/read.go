package restreg

import (
	"context"
	"slices"
)

// Get returns a service; what is overdue has ended before. not_found: there is none.
func (d *Directory) Get(ctx context.Context, namespace, id string) (Service, error) {
	if err := d.Settle(ctx, namespace); err != nil {
		return Service{}, err
	}
	a := d.account(namespace)
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.services[id]
	if s == nil {
		return Service{}, notThere(ObjectService, id)
	}
	return s.shown(), nil
}

// List returns at most limit services from marker on, ordered by id as bytes compare, and
// the id of the first that had no place, "" if there is none. tag narrows to those that
// have it; "" does not. What is overdue has ended before.
func (d *Directory) List(ctx context.Context, namespace, tag, marker string, limit int) (page []Service, next string, err error) {
	if err := d.Settle(ctx, namespace); err != nil {
		return nil, "", err
	}
	a := d.account(namespace)
	a.mu.Lock()
	defer a.mu.Unlock()
	from, _ := slices.BinarySearch(a.ids, marker)
	for _, id := range a.ids[from:] {
		s := a.services[id]
		if tag != "" && !slices.Contains(s.spec.Tags, tag) {
			continue
		}
		if len(page) == limit {
			return page, id, nil
		}
		page = append(page, s.shown())
	}
	return page, "", nil
}
