package main

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"runtime"
	"sync"

	"telford.dev/telford/bench/internal/measure"
)

// A bare frame: 4 bytes of length, 4 bytes of caller, the payload. There is no method,
// no header, no deadline, no cancellation and no flow control, so that this is the most
// that one multiplexed connection with TLS can carry here, not a rival.
const frameHeader = 8

func frameStacks() []stack {
	return []stack{{
		name: "frames", about: "bare frames on one mTLS connection: the limit of the machine, without any feature",
		serve: serveFrames, dial: dialFrames,
	}}
}

// gather collects the frames of many goroutines into few writes.
type gather struct {
	conn  net.Conn
	mu    sync.Mutex
	some  sync.Cond
	queue []byte
	ended bool
}

func newGather(conn net.Conn) *gather {
	g := &gather{conn: conn}
	g.some.L = &g.mu
	return g
}

func (g *gather) put(caller uint32, body []byte) {
	var head [frameHeader]byte
	binary.BigEndian.PutUint32(head[:], uint32(len(body)))
	binary.BigEndian.PutUint32(head[4:], caller)
	g.mu.Lock()
	idle := len(g.queue) == 0
	g.queue = append(append(g.queue, head[:]...), body...)
	g.mu.Unlock()
	if idle {
		g.some.Signal()
	}
}

// write runs until the connection breaks or end is called.
func (g *gather) write() {
	var spare []byte
	for {
		g.mu.Lock()
		for len(g.queue) == 0 && !g.ended {
			g.some.Wait()
		}
		ended := g.ended
		g.mu.Unlock()
		if ended {
			return
		}
		// Whoever is ready to run may add a frame first.
		runtime.Gosched()
		g.mu.Lock()
		out := g.queue
		g.queue = spare[:0]
		g.mu.Unlock()
		if _, err := g.conn.Write(out); err != nil {
			return
		}
		spare = out
	}
}

func (g *gather) end() {
	g.mu.Lock()
	g.ended = true
	g.mu.Unlock()
	g.some.Signal()
	_ = g.conn.Close()
}

// readFrame returns the caller and a body of its own.
func readFrame(r *bufio.Reader) (uint32, []byte, error) {
	var head [frameHeader]byte
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	size := binary.BigEndian.Uint32(head[:])
	if size > 1<<20 {
		return 0, nil, errors.New("a frame of more than 1 MiB")
	}
	body := make([]byte, size)
	_, err := io.ReadFull(r, body)
	return binary.BigEndian.Uint32(head[4:]), body, err
}

func serveFrames(ctx context.Context, e env) error {
	conf, err := mutualTLS(e.Dir, "server")
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	context.AfterFunc(ctx, func() { _ = listener.Close() })
	measure.Ready(listener.Addr().String())
	for {
		conn, err := listener.Accept()
		if err != nil {
			return ctx.Err()
		}
		go answerFrames(tls.Server(conn, conf))
	}
}

// answerFrames hands each request to a goroutine, as it must be where handlers may
// block; idle ones are used again.
func answerFrames(conn net.Conn) {
	type request struct {
		caller uint32
		body   []byte
	}
	g := newGather(conn)
	defer g.end()
	go g.write()
	idle := make(chan chan request, 256)
	defer func() {
		for {
			select {
			case worker := <-idle:
				close(worker)
			default:
				return
			}
		}
	}()
	for r := bufio.NewReaderSize(conn, 64<<10); ; {
		caller, body, err := readFrame(r)
		if err != nil {
			return
		}
		var worker chan request
		select {
		case worker = <-idle:
		default:
			worker = make(chan request, 1)
			go func() {
				for q := range worker {
					g.put(q.caller, q.body)
					select {
					case idle <- worker:
					default:
						return
					}
				}
			}()
		}
		worker <- request{caller, body}
	}
}

func dialFrames(ctx context.Context, e env) (client, error) {
	conf, err := mutualTLS(e.Dir, "client")
	if err != nil {
		return client{}, err
	}
	conn, err := (&tls.Dialer{Config: conf}).DialContext(ctx, "tcp", e.Target)
	if err != nil {
		return client{}, err
	}
	g := newGather(conn)
	go g.write()
	answers := make([]chan int, e.Callers)
	for i := range answers {
		answers[i] = make(chan int, 1)
	}
	go func() {
		for r := bufio.NewReaderSize(conn, 64<<10); ; {
			caller, body, err := readFrame(r)
			if err != nil {
				return
			}
			answers[caller] <- len(body)
		}
	}()
	return client{
		caller: func(i int) (measure.Call, error) {
			body := payload(e.Size)
			return func(ctx context.Context) error {
				g.put(uint32(i), body)
				select {
				case n := <-answers[i]:
					return checkSize(n, e.Size)
				case <-ctx.Done():
					return ctx.Err()
				}
			}, nil
		},
		close: g.end,
	}, nil
}
