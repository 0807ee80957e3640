package postgres

import "sync"

// order lets what follows a commit run one after another, in the order of tickets.
type order struct {
	mu      sync.Mutex
	next    uint64 // the next ticket
	turn    uint64 // the ticket whose turn it is
	waiting map[uint64]chan struct{}
}

// take returns the next ticket. Its holder calls wait and then done, whatever happens.
func (o *order) take() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := o.next
	o.next++
	return n
}

// wait blocks until all earlier tickets are done.
func (o *order) wait(ticket uint64) {
	o.mu.Lock()
	if o.turn == ticket {
		o.mu.Unlock()
		return
	}
	if o.waiting == nil {
		o.waiting = map[uint64]chan struct{}{}
	}
	c := make(chan struct{})
	o.waiting[ticket] = c
	o.mu.Unlock()
	<-c
}

// done ends the turn of the ticket whose turn it is.
func (o *order) done() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.turn++
	if c := o.waiting[o.turn]; c != nil {
		delete(o.waiting, o.turn)
		close(c)
	}
}
