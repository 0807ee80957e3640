package scenarios

import (
	"io"
	"net"
	"sync"
	"testing"
)

// relay passes TCP connections on, until it becomes a black hole: it then takes
// everything and passes nothing on, and closes nothing.
type relay struct {
	ln     net.Listener
	target string

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	hole   chan struct{} // closed when bytes flow again; nil while they flow
	closed bool
	wg     sync.WaitGroup
}

func newRelay(t testing.TB, target string) *relay {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	r := &relay{ln: ln, target: target, conns: make(map[net.Conn]struct{})}
	r.wg.Go(r.accept)
	t.Cleanup(r.close)
	return r
}

func (r *relay) addr() string { return r.ln.Addr().String() }

func (r *relay) accept() {
	for {
		in, err := r.ln.Accept()
		if err != nil {
			return
		}
		r.wg.Go(func() { r.pass(in) })
	}
}

func (r *relay) pass(in net.Conn) {
	if !r.track(in) {
		return
	}
	defer r.drop(in)
	r.wait()
	out, err := net.Dial("tcp", r.target)
	if err != nil || !r.track(out) {
		return
	}
	defer r.drop(out)
	var both sync.WaitGroup
	both.Go(func() { r.copy(out, in); _ = out.Close() })
	both.Go(func() { r.copy(in, out); _ = in.Close() })
	both.Wait()
}

func (r *relay) copy(dst io.Writer, src io.Reader) {
	b := make([]byte, 32<<10)
	for {
		n, err := src.Read(b)
		r.wait() // the end of a connection does not get through either
		if n > 0 {
			if _, werr := dst.Write(b[:n]); werr != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}

// wait waits while nothing is passed on.
func (r *relay) wait() {
	r.mu.Lock()
	hole := r.hole
	r.mu.Unlock()
	if hole != nil {
		<-hole
	}
}

func (r *relay) track(c net.Conn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		_ = c.Close() // nobody has used it
		return false
	}
	r.conns[c] = struct{}{}
	return true
}

func (r *relay) drop(c net.Conn) {
	r.mu.Lock()
	delete(r.conns, c)
	r.mu.Unlock()
	_ = c.Close() // whatever became of it
}

// freeze makes a black hole, thaw ends it.
func (r *relay) freeze() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hole == nil {
		r.hole = make(chan struct{})
	}
}

func (r *relay) thaw() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.hole != nil {
		close(r.hole)
		r.hole = nil
	}
}

func (r *relay) close() {
	r.mu.Lock()
	r.closed = true
	for c := range r.conns {
		_ = c.Close() // its copies end
	}
	r.mu.Unlock()
	_ = r.ln.Close()
	r.thaw()
	r.wg.Wait()
}
