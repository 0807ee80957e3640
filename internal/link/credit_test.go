package link

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"telford.dev/telford/internal/message"
)

// TestNoCreditIsLost runs random calls, streams and cancellations, and then compares
// what each end may send with what the other has given.
func TestNoCreditIsLost(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			rt.Fatal(err)
		}
		defer l.Close()
		accepted := make(chan *Conn, 1)
		go func() {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			c, err := Accept(nc, Options{Handler: fuzzHandler{}})
			if err != nil {
				return
			}
			accepted <- c
		}()
		nc, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			rt.Fatal(err)
		}
		d, err := Dial(t.Context(), nc, Options{Handler: fuzzHandler{}})
		if err != nil {
			rt.Fatal(err)
		}
		a := <-accepted
		defer d.Close(nil)
		defer a.Close(nil)

		sizes := rapid.SliceOfN(rapid.IntRange(0, 700_000), 1, 8).Draw(rt, "sizes")
		kinds := rapid.SliceOfN(rapid.IntRange(0, 2), len(sizes), len(sizes)).Draw(rt, "kinds")
		var wg sync.WaitGroup
		for i, n := range sizes {
			c := d
			if i%2 == 1 {
				c = a
			}
			wg.Go(func() {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				call := &message.Call{Method: "m", Body: make([]byte, n)}
				switch kinds[i] {
				case 0:
					if r, err := c.Call(ctx, call); err != nil || len(r.Body) != n {
						rt.Errorf("a call of %d bytes: %v", n, err)
					}
				case 1:
					time.AfterFunc(time.Duration(n%1000)*time.Microsecond, cancel)
					_, _ = c.Call(ctx, call)
				case 2:
					s, err := c.Stream(ctx, call)
					if err != nil {
						rt.Error(err)
						return
					}
					if n%3 == 0 {
						s.Close()
						return
					}
					if b, err := s.Recv(); err != nil || len(b) != n {
						rt.Errorf("a message of %d bytes: %d, %v", n, len(b), err)
					}
					if _, err := s.Recv(); !errors.Is(err, io.EOF) {
						rt.Errorf("the stream ended with %v", err)
					}
				}
			})
		}
		wg.Wait()
		if err := d.Drain(t.Context()); err != nil {
			rt.Fatal(err)
		}
		<-a.Done()
		for name, ends := range map[string][2]*Conn{"dialer": {d, a}, "acceptor": {a, d}} {
			from, to := ends[0], ends[1]
			from.mu.Lock()
			left := from.credit
			from.mu.Unlock()
			if got := left + to.recv.owed; got != to.recv.size {
				rt.Errorf("%s may send %d and is owed %d of a window of %d", name, left, to.recv.owed, to.recv.size)
			}
		}
	})
}
