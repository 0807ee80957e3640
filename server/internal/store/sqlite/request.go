package sqlite

import (
	"fmt"
	"runtime/debug"
	"sync/atomic"

	"telford.dev/telford/server/internal/tx"
)

// The states of a request. Both the caller that leaves and the writer that begins try
// to move it out of queued; one of them succeeds.
const (
	queued int32 = iota
	begun
	left
)

// request is one write on its way through the writer.
type request struct {
	f     func(tx.Tx) error
	state atomic.Int32
	after []func()
	err   error
	panic *panicked
	done  chan struct{} // capacity 1: one answer
}

// panicked is what a function of the caller panicked with, raised again in Write.
type panicked struct {
	value any
	stack []byte
}

func (p *panicked) String() string { return fmt.Sprintf("%v\n\nin the writer:\n%s", p.value, p.stack) }

func newRequest(f func(tx.Tx) error) *request {
	return &request{f: f, done: make(chan struct{}, 1)}
}

// begin claims the request for the writer; false: its caller has left.
func (r *request) begin() bool { return r.state.CompareAndSwap(queued, begun) }

// leave takes the request back; false: the writer has begun it.
func (r *request) leave() bool { return r.state.CompareAndSwap(queued, left) }

// run calls the function inside t, which it may not outlive.
func (r *request) run(t *txn) {
	defer func() {
		if v := recover(); v != nil {
			r.panic = &panicked{v, debug.Stack()}
			r.err = t.Finish(fmt.Errorf("panic: %v", v))
		}
	}()
	r.err = t.Finish(r.f(t))
	r.after = t.After()
}

// committed runs the functions that waited for the commit.
func (r *request) committed() {
	for _, f := range r.after {
		r.protect(f)
	}
}

func (r *request) protect(f func()) {
	defer func() {
		if v := recover(); v != nil && r.panic == nil {
			r.panic = &panicked{v, debug.Stack()}
		}
	}()
	f()
}

// answer releases the caller.
func (r *request) answer() { r.done <- struct{}{} }

// refuse answers with an error.
func (r *request) refuse(err error) {
	r.err = err
	r.answer()
}
