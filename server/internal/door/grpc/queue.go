package grpcdoor

import (
	"context"
	"sync"
)

// queueBytes is how much waits to be written to a stream before senders wait.
const queueBytes = 1 << 20

// maxControlBytes is how much control messages may add beyond, before the stream is
// given up.
const maxControlBytes = 64 << 20

// item is one marshalled message on its way out.
type item struct {
	payload []byte
	// taken, when set, is told that the message is being written.
	taken func()
}

// queue holds what one stream is to write: control messages before all others. One
// goroutine takes, any number put.
type queue struct {
	mu      sync.Mutex
	control []item
	data    []item
	bytes   int
	closed  bool
	space   chan struct{} // closed when there is room again; nil while nobody waits
	ready   chan struct{} // has a token when there may be something to take
}

func newQueue() *queue { return &queue{ready: make(chan struct{}, 1)} }

// put adds a message, waiting for room until ctx ends; false when ctx has ended or the
// queue is closed.
func (q *queue) put(ctx context.Context, it item, control bool) bool {
	for {
		q.mu.Lock()
		if q.closed {
			q.mu.Unlock()
			return false
		}
		if q.bytes < queueBytes {
			break
		}
		if q.space == nil {
			q.space = make(chan struct{})
		}
		space := q.space
		q.mu.Unlock()
		select {
		case <-space:
		case <-ctx.Done():
			return false
		}
	}
	q.add(it, control)
	return true
}

// force adds a control message without waiting; false when there is far too much
// already, or the queue is closed.
func (q *queue) force(it item) bool {
	q.mu.Lock()
	if q.closed || q.bytes+len(it.payload) > maxControlBytes {
		q.mu.Unlock()
		return false
	}
	q.add(it, true)
	return true
}

// add appends, with mu held, and releases mu.
func (q *queue) add(it item, control bool) {
	if control {
		q.control = append(q.control, it)
	} else {
		q.data = append(q.data, it)
	}
	q.bytes += len(it.payload)
	q.mu.Unlock()
	select {
	case q.ready <- struct{}{}:
	default:
	}
}

// take returns the next message without waiting.
func (q *queue) take() (it item, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	from := &q.control
	if len(q.control) == 0 {
		from = &q.data
	}
	if len(*from) == 0 {
		return item{}, false
	}
	it = (*from)[0]
	(*from)[0] = item{}
	*from = (*from)[1:]
	q.bytes -= len(it.payload)
	if q.space != nil && q.bytes < queueBytes {
		close(q.space)
		q.space = nil
	}
	return it, true
}

// seal takes no more and lets nobody wait any longer; what is queued can still be taken.
func (q *queue) seal() {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.closed = true
	if q.space != nil {
		close(q.space)
		q.space = nil
	}
}

// drop seals the queue and throws away what it holds.
func (q *queue) drop() {
	q.seal()
	q.mu.Lock()
	defer q.mu.Unlock()
	q.control, q.data, q.bytes = nil, nil, 0
}

func (q *queue) empty() bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	return len(q.control) == 0 && len(q.data) == 0
}
