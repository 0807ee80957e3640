package engine

import (
	"context"
	"fmt"
	"sync"
)

// Hooks are the functions that load in-memory state again. The zero value is empty
// and ready.
type Hooks struct {
	mu   sync.Mutex
	next int
	list []hook
}

type hook struct {
	id int
	f  func(context.Context) error
}

// Add appends a function; cancel removes it.
func (h *Hooks) Add(f func(context.Context) error) (cancel func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.next++
	id := h.next
	h.list = append(h.list, hook{id, f})
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		for i, k := range h.list {
			if k.id == id {
				h.list = append(h.list[:i:i], h.list[i+1:]...)
				return
			}
		}
	}
}

// Run calls the functions in the order of Add and stops at the first error.
func (h *Hooks) Run(ctx context.Context) error {
	h.mu.Lock()
	list := h.list
	h.mu.Unlock()
	for _, k := range list {
		if err := k.f(ctx); err != nil {
			return fmt.Errorf("load the state again: %w", err)
		}
	}
	return nil
}
