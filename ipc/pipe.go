package ipc

import (
	"errors"
	"net"
	"sync"
	"time"
)

// errFull is why a connection is closed whose peer does not read.
var errFull = errors.New("the peer does not read what is sent to it")

// flushAt is how much is gathered before it is written in the midst of a batch.
const flushAt = 64 << 10

// pipe is the sending half of a connection: a bounded queue of whole frames. Whoever
// sends also writes, as far as the socket takes it without waiting; the rest is written
// by a goroutine that ends with the queue.
type pipe struct {
	nc    *net.UnixConn
	bound int // what may wait, in bytes, when another frame is added
	wg    *sync.WaitGroup

	mu      sync.Mutex
	pending []byte
	spare   []byte
	writing bool
	closed  bool
	idle    chan struct{} // closed when the queue runs empty; only while somebody waits
}

// send adds frames to the queue. It writes nothing unless much is waiting.
func (p *pipe) send(frames []byte) error {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		return net.ErrClosed
	}
	if len(p.pending) >= p.bound {
		p.mu.Unlock()
		p.close()
		return errFull
	}
	p.pending = append(p.pending, frames...)
	much := len(p.pending) >= flushAt
	p.mu.Unlock()
	if much {
		p.flush()
	}
	return nil
}

// flush writes what is waiting. It never waits for the peer.
func (p *pipe) flush() {
	p.mu.Lock()
	for !p.writing && !p.closed && len(p.pending) > 0 {
		out := p.pick()
		p.mu.Unlock()
		n, err := writeNow(p.nc, out)
		p.mu.Lock()
		if err != nil {
			p.writing = false
			p.mu.Unlock()
			p.close()
			return
		}
		if p.closed {
			break // nobody waits for a goroutine that begins now
		}
		if n < len(out) {
			p.wg.Add(1)
			go p.drain(out, n)
			break
		}
		p.put(out)
	}
	p.mu.Unlock()
}

// pick takes all that waits, to be written by the caller alone.
func (p *pipe) pick() []byte {
	out := p.pending
	p.pending, p.spare = p.spare[:0], nil
	p.writing = true
	return out
}

// put gives the buffer of what was written back.
func (p *pipe) put(out []byte) {
	p.writing = false
	if cap(out) <= 4*flushAt {
		p.spare = out[:0]
	}
	if len(p.pending) == 0 && p.idle != nil {
		close(p.idle)
		p.idle = nil
	}
}

// drain writes what the socket did not take at once, and what came behind it.
func (p *pipe) drain(out []byte, written int) {
	defer p.wg.Done()
	for {
		_, err := p.nc.Write(out[written:])
		p.mu.Lock()
		if err != nil {
			p.writing = false
			p.mu.Unlock()
			p.close()
			return
		}
		p.put(out)
		if p.closed || len(p.pending) == 0 {
			p.mu.Unlock()
			return
		}
		out, written = p.pick(), 0
		p.mu.Unlock()
	}
}

// finish waits until the queue is written, for as long as d at most.
func (p *pipe) finish(d time.Duration) {
	p.flush()
	p.mu.Lock()
	if p.closed || !p.writing && len(p.pending) == 0 {
		p.mu.Unlock()
		return
	}
	if p.idle == nil {
		p.idle = make(chan struct{})
	}
	idle := p.idle
	p.mu.Unlock()
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-idle:
	case <-timer.C:
	}
}

// close drops the queue and closes the connection, whose reader then ends.
func (p *pipe) close() {
	p.mu.Lock()
	p.closed = true
	p.pending, p.spare = nil, nil
	if p.idle != nil {
		close(p.idle)
		p.idle = nil
	}
	p.mu.Unlock()
	_ = p.nc.Close() // it is given up
}
