package link_test

import (
	"context"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"

	"telford.dev/telford/internal/link"
	"telford.dev/telford/internal/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// handler is a message.Handler of two functions.
type handler struct {
	call   func(ctx context.Context, call *message.Call) *message.Reply
	stream func(ctx context.Context, call *message.Call, out message.Sender) *message.Reply
}

func (h handler) HandleCall(ctx context.Context, call *message.Call) *message.Reply {
	return h.call(ctx, call)
}

func (h handler) HandleStream(ctx context.Context, call *message.Call, out message.Sender) *message.Reply {
	return h.stream(ctx, call, out)
}

// echo answers with the request, headers as trailers, and streams it three times.
func echo() handler {
	return handler{
		call: func(_ context.Context, call *message.Call) *message.Reply {
			return &message.Reply{ContentType: call.ContentType, Body: append([]byte(nil), call.Body...), Trailers: call.Headers}
		},
		stream: func(_ context.Context, call *message.Call, out message.Sender) *message.Reply {
			for range 3 {
				if err := out.Send(call.Body); err != nil {
					return &message.Reply{}
				}
			}
			return &message.Reply{Trailers: call.Headers}
		},
	}
}

// conns returns two ends of a TCP connection on loopback.
func conns(t testing.TB) (dialer, acceptor net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		nc, err := l.Accept()
		if err != nil {
			close(accepted)
			return
		}
		accepted <- nc
	}()
	dialer, err = net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	acceptor, ok := <-accepted
	if !ok {
		t.Fatal("the connection was not accepted")
	}
	return dialer, acceptor
}

// pair returns two ends of telford/1.
func pair(t testing.TB, dialer, acceptor link.Options) (d, a *link.Conn) {
	t.Helper()
	dn, an := conns(t)
	accepted := make(chan *link.Conn, 1)
	go func() {
		c, err := link.Accept(an, acceptor)
		if err != nil {
			t.Error(err)
		}
		accepted <- c
	}()
	d, err := link.Dial(t.Context(), dn, dialer)
	if err != nil {
		t.Fatal(err)
	}
	a = <-accepted
	t.Cleanup(func() {
		d.Close(nil)
		a.Close(nil)
		<-a.Done()
	})
	return d, a
}

// eventually polls until cond holds.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("never: %s", what)
		}
		timer := time.NewTimer(time.Millisecond)
		<-timer.C
	}
}
