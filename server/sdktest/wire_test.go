package sdktest

import (
	"io"
	"net"
	"sync"
	"testing"
)

// wire is a TCP relay that a test can cut or freeze: what happens to a process that is
// killed, and to a network that swallows everything.
type wire struct {
	ln     net.Listener
	target func() string

	mu     sync.Mutex
	conns  map[net.Conn]struct{}
	frozen chan struct{} // closed when bytes flow again; nil while they flow
	closed bool
	wg     sync.WaitGroup
}

// newWire relays to where target says.
func newWire(t *testing.T, target func() string) *wire {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	w := &wire{ln: ln, target: target, conns: make(map[net.Conn]struct{})}
	w.wg.Go(w.accept)
	t.Cleanup(w.close)
	return w
}

func (w *wire) addr() string { return w.ln.Addr().String() }

func (w *wire) port() int { return w.ln.Addr().(*net.TCPAddr).Port }

func (w *wire) accept() {
	for {
		in, err := w.ln.Accept()
		if err != nil {
			return
		}
		w.wg.Go(func() { w.relay(in) })
	}
}

func (w *wire) relay(in net.Conn) {
	if !w.track(in) {
		_ = in.Close()
		return
	}
	defer w.drop(in)
	w.pass()
	out, err := net.Dial("tcp", w.target())
	if err != nil {
		return
	}
	if !w.track(out) {
		_ = out.Close()
		return
	}
	defer w.drop(out)
	var both sync.WaitGroup
	both.Go(func() { w.copy(out, in); _ = out.Close() })
	both.Go(func() { w.copy(in, out); _ = in.Close() })
	both.Wait()
}

func (w *wire) copy(dst io.Writer, src io.Reader) {
	b := make([]byte, 32<<10)
	for {
		n, err := src.Read(b)
		w.pass()
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

// pass waits while the wire is frozen.
func (w *wire) pass() {
	w.mu.Lock()
	frozen := w.frozen
	w.mu.Unlock()
	if frozen != nil {
		<-frozen
	}
}

func (w *wire) track(c net.Conn) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return false
	}
	w.conns[c] = struct{}{}
	return true
}

func (w *wire) drop(c net.Conn) {
	w.mu.Lock()
	delete(w.conns, c)
	w.mu.Unlock()
	_ = c.Close()
}

// cut ends every connection; new ones are relayed again.
func (w *wire) cut() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for c := range w.conns {
		_ = c.Close()
	}
}

// freeze swallows everything, without a word to either end.
func (w *wire) freeze() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.frozen == nil {
		w.frozen = make(chan struct{})
	}
}

func (w *wire) thaw() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.frozen != nil {
		close(w.frozen)
		w.frozen = nil
	}
}

// kill is the end of the process behind the wire: every connection is reset and new
// ones are refused.
func (w *wire) kill() {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	_ = w.ln.Close()
	w.cut()
}

func (w *wire) close() {
	w.thaw()
	w.kill()
	w.wg.Wait()
}

// freePort returns an address that nobody listens on at the moment.
func freePort(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}
