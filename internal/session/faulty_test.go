package session

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"pgregory.net/rapid"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/internal/message"
)

// faultyConn is a connection that, once its fuse of bytes has burnt down, is cut, sends
// garbage, or from then on reads in tiny pieces.
type faultyConn struct {
	net.Conn
	fuse  atomic.Int64
	fault string
	slow  atomic.Bool
}

func (f *faultyConn) Write(p []byte) (int, error) {
	if f.fuse.Add(-int64(len(p))) < 0 && f.fault != "" {
		switch f.fault {
		case "cut":
			_, _ = f.Conn.Write(p[:len(p)/2])
			f.Conn.Close()
			return 0, net.ErrClosed
		case "garbage":
			f.fault = ""
			garbage := make([]byte, 64)
			for i := range garbage {
				garbage[i] = byte(rand.Uint32())
			}
			_, _ = f.Conn.Write(garbage)
		case "slow":
			f.slow.Store(true)
		}
	}
	return f.Conn.Write(p)
}

func (f *faultyConn) Read(p []byte) (int, error) {
	if f.slow.Load() && len(p) > 7 {
		p = p[:7]
	}
	return f.Conn.Read(p)
}

// world is two ends of a session whose connections keep failing.
type world struct {
	t        testing.TB
	client   *Peer
	server   *Peer
	listener net.Listener
	stop     context.CancelFunc
	wg       sync.WaitGroup
	links    atomic.Int64
}

func newWorld(t testing.TB, client, server PeerOptions, faults func() (string, int64)) *world {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	client.Client = true
	ctx, cancel := context.WithCancel(context.Background())
	w := &world{t: t, client: NewPeer(client), server: NewPeer(server), listener: l, stop: cancel}
	w.wg.Go(func() { w.connect(ctx, faults) })
	return w
}

// connect makes one connection after another carry the session.
func (w *world) connect(ctx context.Context, faults func() (string, int64)) {
	for resumed := false; ctx.Err() == nil; resumed = true {
		dn, err := net.Dial("tcp", w.listener.Addr().String())
		if err != nil {
			return
		}
		an, err := w.listener.Accept()
		if err != nil {
			dn.Close()
			return
		}
		fault, fuse := faults()
		fd := &faultyConn{Conn: dn, fault: fault}
		fd.fuse.Store(fuse)
		accepted := make(chan *link.Conn, 1)
		go func() {
			c, err := link.Accept(an, link.Options{Handler: w.server.Handler(), KeepRunning: true, Control: func(p []byte) {
				var m telfordv1.ClientMessage
				if proto.Unmarshal(p, &m) == nil {
					control(w.server, m.GetAck(), m.GetCancel())
				}
			}})
			if err != nil {
				accepted <- nil
				return
			}
			accepted <- c
		}()
		d, err := link.Dial(ctx, fd, link.Options{Handler: w.client.Handler(), KeepRunning: true, Control: func(p []byte) {
			var m telfordv1.ServerMessage
			if proto.Unmarshal(p, &m) == nil {
				control(w.client, m.GetAck(), m.GetCancel())
			}
		}})
		a := <-accepted
		if err != nil || a == nil {
			dn.Close()
			an.Close()
			if a != nil {
				a.Close(nil)
			}
			if d != nil {
				d.Close(nil)
			}
			continue
		}
		w.links.Add(1)
		cp, sp := w.client.Position(), w.server.Position()
		w.server.Attach(a, cp, resumed)
		w.client.Attach(d, sp, resumed)
		select {
		case <-d.Done():
		case <-a.Done():
		case <-ctx.Done():
		}
		d.Close(nil)
		a.Close(nil)
		w.client.Detach(d, d.Err())
		w.server.Detach(a, a.Err())
	}
}

func control(p *Peer, ack *telfordv1.Ack, cancel *telfordv1.Cancel) {
	if ack != nil {
		p.OnAck(ack)
	}
	if cancel != nil {
		p.OnCancel(cancel.GetSeq())
	}
}

func (w *world) close() {
	w.stop()
	w.listener.Close()
	w.wg.Wait()
	w.client.Close(nil)
	w.server.Close(nil)
}

// counting is a handler that notes how often each request was executed.
type counting struct {
	mu    sync.Mutex
	times map[string]int
}

func (c *counting) HandleCall(_ context.Context, call *message.Call) *message.Reply {
	body := string(call.Body)
	c.mu.Lock()
	c.times[body[:8]]++
	c.mu.Unlock()
	if call.Method == "fail" {
		return &message.Reply{Err: errs.New(errs.NotFound, "%s", body[:8])}
	}
	return &message.Reply{Body: []byte("re:" + body)}
}

func (c *counting) HandleStream(context.Context, *message.Call, message.Sender) *message.Reply {
	return &message.Reply{}
}

// TestExactlyOneAnswerOverFaultyConnections drives calls in both directions while
// connections are cut, carry garbage or are read slowly: every call is answered exactly
// once, with its own answer, and was executed exactly once; no permit is lost.
func TestExactlyOneAnswerOverFaultyConnections(t *testing.T) {
	t.Parallel()
	runs := 10
	if os.Getenv("TELFORD_SOAK") != "" {
		runs = 1000
	}
	rapid.Check(t, func(rt *rapid.T) {
		if runs--; runs < 0 {
			return // each run is hundreds of calls over dozens of connections
		}
		seed := rapid.Uint64().Draw(rt, "seed")
		rng, fate := rand.New(rand.NewPCG(seed, 1)), rand.New(rand.NewPCG(seed, 2))
		callers := rapid.IntRange(1, 24).Draw(rt, "callers")
		each := rapid.IntRange(1, 12).Draw(rt, "calls each")
		permits := rapid.SampledFrom([]int{0, 1, 7}).Draw(rt, "permits")
		var mu sync.Mutex
		faults := func() (string, int64) {
			mu.Lock()
			defer mu.Unlock()
			return [...]string{"cut", "garbage", "slow", "cut"}[fate.IntN(4)], fate.Int64N(60_000)
		}
		onClient, onServer := &counting{times: map[string]int{}}, &counting{times: map[string]int{}}
		w := newWorld(t, PeerOptions{Handler: onClient, Permits: permits}, PeerOptions{Handler: onServer, Permits: permits}, faults)
		defer w.close()
		ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
		defer cancel()
		var wg sync.WaitGroup
		var failures sync.Map
		for i := range callers {
			size := rng.IntN(3) * rng.IntN(30_000)
			for name, p := range map[string]*Peer{"c": w.client, "s": w.server} {
				wg.Go(func() {
					for j := range each {
						id := fmt.Sprintf("%s%03d%04d", name, i, j)
						body := id + string(make([]byte, size))
						method := "echo"
						if (i+j)%5 == 0 {
							method = "fail"
						}
						r, err := p.Call(ctx, &message.Call{Method: method, Body: []byte(body)})
						switch {
						case err != nil:
							failures.Store(id, err)
						case method == "fail" && (r.Err == nil || r.Err.Message != id):
							failures.Store(id, fmt.Sprintf("want its failure, got %v", r.Err))
						case method == "echo" && (r.Err != nil || string(r.Body) != "re:"+body):
							failures.Store(id, fmt.Sprintf("another answer: %v, %d bytes", r.Err, len(r.Body)))
						}
					}
				})
			}
		}
		wg.Wait()
		failures.Range(func(id, err any) bool {
			rt.Fatalf("call %v: %v", id, err)
			return false
		})
		for name, c := range map[string]*counting{"server": onServer, "client": onClient} {
			c.mu.Lock()
			if len(c.times) != callers*each {
				rt.Errorf("%s executed %d of %d calls", name, len(c.times), callers*each)
			}
			for id, n := range c.times {
				if n != 1 {
					rt.Errorf("call %s was executed %d times", id, n)
				}
			}
			c.mu.Unlock()
		}
		for name, p := range map[string]*Peer{"client": w.client, "server": w.server} {
			if _, out := p.InFlight(); out != 0 {
				rt.Errorf("%s: %d permits are lost", name, out)
			}
			if err := p.Drained(ctx); err != nil {
				rt.Errorf("%s does not come to rest: %v", name, err)
			}
		}
	})
}
