package client

import (
	"context"
	"errors"
	"io"
	"net"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/internal/message"
)

type counting struct{ calls, streams atomic.Int64 }

func (c *counting) HandleCall(context.Context, *message.Call) *message.Reply {
	c.calls.Add(1)
	return &message.Reply{}
}

func (c *counting) HandleStream(context.Context, *message.Call, message.Sender) *message.Reply {
	c.streams.Add(1)
	return &message.Reply{}
}

// gated is a port on a link whose other end it returns.
func gated(t *testing.T, inner message.Handler) (*port, *link.Conn) {
	t.Helper()
	a, b := net.Pipe()
	runtime := make(chan *link.Conn, 1)
	go func() {
		c, err := link.Accept(b, link.Options{})
		if err != nil {
			t.Error(err)
		}
		runtime <- c
	}()
	p := newPort(&Session{opt: Options{Trust: ident.NewTrust(clock.Real())}})
	var err error
	if p.conn, err = link.Dial(t.Context(), a, link.Options{Handler: gate{p, inner}, KeepRunning: true}); err != nil {
		t.Fatal(err)
	}
	close(p.dialed)
	return p, <-runtime
}

// Commands that come right behind HelloAck run only once the connection carries the
// session: their numbers mean nothing before.
func TestCommandsWaitForTheSession(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var inner counting
		p, runtime := gated(t, &inner)
		answered := make(chan error, 2)
		go func() {
			_, err := runtime.Call(t.Context(), &message.Call{Method: "m", Seq: 1})
			answered <- err
		}()
		go func() {
			s, err := runtime.Stream(t.Context(), &message.Call{Method: "m", Stream: true})
			if err == nil {
				if _, end := s.Recv(); !errors.Is(end, io.EOF) {
					err = end
				}
			}
			answered <- err
		}()
		synctest.Wait()
		if n := inner.calls.Load() + inner.streams.Load(); n != 0 {
			t.Errorf("%d commands ran before the connection was adopted", n)
		}
		close(p.adopted)
		for range 2 {
			if err := <-answered; err != nil {
				t.Error(err)
			}
		}
		synctest.Wait()
		if inner.calls.Load() != 1 || inner.streams.Load() != 1 {
			t.Errorf("%d calls and %d streams ran, want one each", inner.calls.Load(), inner.streams.Load())
		}
		runtime.Close(nil)
		p.conn.Close(nil)
	})
}

// A connection that ends before it carries the session runs nothing, and holds nothing.
func TestCommandsOfALostConnection(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var inner counting
		p, runtime := gated(t, &inner)
		done := make(chan error, 1)
		go func() {
			_, err := runtime.Call(t.Context(), &message.Call{Method: "m", Seq: 1})
			done <- err
		}()
		synctest.Wait()
		p.conn.Close(errors.New("given up"))
		if err := <-done; err == nil {
			t.Error("the call was answered")
		}
		runtime.Close(nil)
		synctest.Wait()
		if inner.calls.Load() != 0 {
			t.Error("the command ran")
		}
	})
}
