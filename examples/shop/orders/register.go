package orders

import (
	"context"
	"sync"

	shopv1 "telford.dev/telford/examples/shop/v1"
)

// register keeps orders by id and lets each be worked on by one caller at a time. It is
// safe for concurrent use.
type register struct {
	mu      sync.Mutex
	done    map[string]*shopv1.Order
	order   []string
	working map[string]chan struct{}
}

func newRegister() *register {
	return &register{done: map[string]*shopv1.Order{}, working: map[string]chan struct{}{}}
}

// once returns the order if it is done; else it runs work, unless somebody else does,
// which it waits for. Work that failed leaves no trace, so that it may be repeated.
func (r *register) once(ctx context.Context, id string, work func() (*shopv1.Order, error)) (*shopv1.Order, error) {
	for {
		r.mu.Lock()
		if o := r.done[id]; o != nil {
			r.mu.Unlock()
			return o, nil
		}
		busy := r.working[id]
		if busy == nil {
			r.working[id] = make(chan struct{})
			r.mu.Unlock()
			break
		}
		r.mu.Unlock()
		select {
		case <-busy:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	var o *shopv1.Order
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		close(r.working[id])
		delete(r.working, id)
		if o != nil {
			r.done[id] = o
			r.order = append(r.order, id)
		}
	}()
	got, err := work()
	if err != nil {
		return nil, err
	}
	o = got
	return o, nil
}

func (r *register) get(id string) *shopv1.Order {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.done[id]
}

func (r *register) all() []*shopv1.Order {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := make([]*shopv1.Order, len(r.order))
	for i, id := range r.order {
		all[i] = r.done[id]
	}
	return all
}
