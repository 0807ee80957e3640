package router_test

import (
	"context"
	"errors"
	"io"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/router"
)

func watch(change ...func(*router.Request)) *router.Request {
	return request(append([]func(*router.Request){calling("payments", "watch")}, change...)...)
}

func drain(t testing.TB, s message.Stream) (got []string, err error) {
	t.Helper()
	for {
		b, err := s.Recv()
		if err != nil {
			return got, err
		}
		got = append(got, string(b))
	}
}

func TestStreamDelivers(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("one"))
	inner := newFakeStream(t.Context(), []byte("1"), []byte("2"), []byte("3"))
	inner.headers, inner.trailers = []message.Pair{{Key: "h"}}, []message.Pair{{Key: "t"}}
	b.links["one"].stream = func(_ context.Context, c *message.Call) (message.Stream, error) {
		if !c.Stream || c.RequestID == "" || c.Method != "watch" {
			t.Errorf("given %+v", c)
		}
		return inner, nil
	}
	s, err := b.Stream(t.Context(), watch())
	if err != nil {
		t.Fatal(err)
	}
	if st := b.stats(t, "payments"); st.Streams != 1 || b.Outstanding("", "one") != 1 {
		t.Errorf("%d streams run, %d outstanding", st.Streams, b.Outstanding("", "one"))
	}
	h, err := s.Headers()
	if err != nil || len(h) != 1 || len(s.Trailers()) != 0 {
		t.Errorf("headers %v, %v; trailers %v", h, err, s.Trailers())
	}
	got, err := drain(t, s)
	if !errors.Is(err, io.EOF) || cmp.Diff([]string{"1", "2", "3"}, got) != "" {
		t.Errorf("%v, %v", got, err)
	}
	if _, err := s.Recv(); !errors.Is(err, io.EOF) {
		t.Errorf("after the end: %v", err)
	}
	s.Close()
	s.Close()
	if h, err := s.Headers(); err != nil || len(h) != 1 || len(s.Trailers()) != 1 || s.ContentType() != message.JSON {
		t.Errorf("after the end: headers %v, %v, trailers %v, type %s", h, err, s.Trailers(), s.ContentType())
	}
	if st := b.stats(t, "payments"); st.Streams != 0 || b.Outstanding("", "one") != 0 || st.StreamsEnded[""] != 1 || !inner.isClosed() {
		t.Errorf("at the end: %+v, %d outstanding, closed %v", st, b.Outstanding("", "one"), inner.isClosed())
	}
}

func TestClosingReachesTheInstance(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("one"))
	inner := newFakeStream(t.Context(), []byte("1"), []byte("2"))
	b.links["one"].stream = func(context.Context, *message.Call) (message.Stream, error) { return inner, nil }
	s, err := b.Stream(t.Context(), watch())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if !inner.isClosed() || b.Outstanding("", "one") != 0 {
		t.Errorf("closed %v, %d outstanding", inner.isClosed(), b.Outstanding("", "one"))
	}
	_, err = s.Recv()
	want(t, err, errs.Canceled)
	if st := b.stats(t, "payments"); st.StreamsEnded[errs.Canceled] != 1 {
		t.Errorf("%+v", st.StreamsEnded)
	}
}

func TestStreamErrorsComeLast(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("one"), instance("two"))
	for _, l := range b.links {
		l.stream = func(ctx context.Context, _ *message.Call) (message.Stream, error) {
			s := newFakeStream(ctx, []byte("1"))
			// A lie: it has sent a message. It is not believed.
			s.err, s.trailers = errs.New(errs.Unavailable, "cut").Unstarted(), []message.Pair{{Key: "t"}}
			return s, nil
		}
	}
	s, err := b.Stream(t.Context(), watch())
	if err != nil {
		t.Fatal(err)
	}
	got, err := drain(t, s)
	want(t, err, errs.Unavailable, "cut")
	if len(got) != 1 || len(s.Trailers()) != 1 {
		t.Errorf("%v, trailers %v", got, s.Trailers())
	}
	if n := len(b.links["one"].got()) + len(b.links["two"].got()); n != 1 {
		t.Errorf("a stream that had begun was opened %d times", n)
	}
	if _, err := s.Headers(); err != nil {
		t.Errorf("headers of a stream that had begun: %v", err)
	}
}

func TestLostConnectionIsNoOrderlyEnd(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("one"))
	b.links["one"].stream = func(ctx context.Context, _ *message.Call) (message.Stream, error) {
		s := newFakeStream(ctx, []byte("1"))
		s.err = errs.New(errs.Unavailable, "the connection was lost: %w", io.EOF)
		return s, nil
	}
	out := new(fakeSender)
	reply := b.AsHandler(message.Caller{Namespace: "default"}, "").HandleStream(t.Context(), watch().Call, out)
	if want(t, reply.Err, errs.Unavailable, "lost"); errors.Is(reply.Err, io.EOF) {
		t.Error("the error still looks like an orderly end")
	}
	if s := b.stats(t, "payments"); s.StreamsEnded[""] != 0 || s.StreamsEnded[errs.Unavailable] != 1 {
		t.Errorf("%+v", s.StreamsEnded)
	}
}

func TestStreamRefusalsArePickedAgain(t *testing.T) {
	t.Parallel()
	at := map[string]func(context.Context, *message.Call) (message.Stream, error){
		"at once": func(context.Context, *message.Call) (message.Stream, error) {
			return nil, errs.New(errs.Unavailable, "draining").Unstarted()
		},
		"later": func(ctx context.Context, _ *message.Call) (message.Stream, error) {
			s := newFakeStream(ctx)
			s.err = errs.New(errs.ResourceExhausted, "no permit").Unstarted()
			return s, nil
		},
	}
	for name, refuse := range at {
		for _, first := range []string{"recv", "headers"} {
			t.Run(name+" "+first, func(t *testing.T) {
				t.Parallel()
				b := setup(t, instance("one"), instance("two"), instance("three"))
				b.links["one"].stream, b.links["two"].stream = refuse, refuse
				for range 10 {
					s, err := b.Stream(t.Context(), watch())
					if err != nil {
						t.Fatal(err)
					}
					if first == "headers" {
						if _, err := s.Headers(); err != nil {
							t.Fatal(err)
						}
					}
					got, err := drain(t, s)
					if !errors.Is(err, io.EOF) || len(got) != 1 || got[0] != "three" {
						t.Fatalf("%v, %v", got, err)
					}
				}
				b.links["three"].stream = refuse
				s, err := b.Stream(t.Context(), watch())
				if err == nil {
					if first == "headers" {
						_, err = s.Headers()
					} else {
						_, err = s.Recv()
					}
				}
				if e := want(t, err, errs.CodeOf(err)); !e.NotStarted || e.Meta["tried"] != "3" {
					t.Errorf("all refuse: %+v", e)
				}
				for id := range b.links {
					if n := b.Outstanding("", id); n != 0 {
						t.Errorf("%d outstanding on %s", n, id)
					}
				}
				if b.InFlight() != 0 {
					t.Errorf("%d in flight", b.InFlight())
				}
			})
		}
	}
}

func TestStreamDeadlines(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, instance("one"))
		b.links["one"].stream = func(ctx context.Context, _ *message.Call) (message.Stream, error) {
			s := newFakeStream(ctx)
			s.messages = make(chan []byte) // never any
			return s, nil
		}
		start := time.Now()
		s, err := b.Stream(t.Context(), watch(func(r *router.Request) { r.Call.Deadline = start.Add(time.Minute) }))
		if err != nil {
			t.Fatal(err)
		}
		_, err = s.Recv()
		want(t, err, errs.DeadlineExceeded)
		if took := time.Since(start); took != time.Minute {
			t.Errorf("it ended after %v", took)
		}
		// Without one it lives as long as its caller.
		ctx, cancel := context.WithCancel(t.Context())
		s, err = b.Stream(ctx, watch())
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			time.Sleep(time.Hour)
			cancel()
		}()
		_, err = s.Recv()
		want(t, err, errs.Canceled)
	})
}

func TestStreamMessagesAreTurned(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("one", methods(catalog.Method{Name: "watch", Kind: catalog.ServerStream, ContentTypes: []string{"msgpack"}})))
	b.links["one"].stream = func(ctx context.Context, c *message.Call) (message.Stream, error) {
		if c.ContentType != message.Msgpack {
			t.Errorf("given %s", c.ContentType)
		}
		s := newFakeStream(ctx, []byte("\x01"), []byte("\x91\xc3"), []byte("\xc1"))
		s.kind = message.None // that of the call
		return s, nil
	}
	s, err := b.Stream(t.Context(), watch())
	if err != nil {
		t.Fatal(err)
	}
	got, err := drain(t, s)
	want(t, err, errs.Internal, "cannot be given as json")
	if d := cmp.Diff([]string{"1", "[true]"}, got); d != "" || s.ContentType() != message.JSON {
		t.Errorf("type %s (-want +got):\n%s", s.ContentType(), d)
	}
	if b.InFlight() != 0 {
		t.Error("the stream was left open")
	}
}

// fakeSender takes so many messages and then fails.
type fakeSender struct {
	mu      sync.Mutex
	headers []message.Pair
	got     []string
	fail    int
	gate    chan struct{} // each Send takes one, when not nil
}

func (s *fakeSender) SendHeaders(h []message.Pair) error {
	s.headers = h
	return nil
}

func (s *fakeSender) Send(b []byte) error {
	if s.gate != nil {
		<-s.gate
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fail > 0 && len(s.got) == s.fail {
		return errs.New(errs.Canceled, "the receiver is gone")
	}
	s.got = append(s.got, string(b))
	return nil
}

func TestHandlerRelaysStreams(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("one"))
	var inner *fakeStream
	b.links["one"].stream = func(ctx context.Context, c *message.Call) (message.Stream, error) {
		if c.Caller.Service != "orders" {
			t.Errorf("on behalf of %+v", c.Caller)
		}
		inner = newFakeStream(ctx, []byte("1"), []byte("2"), []byte("3"))
		inner.headers, inner.trailers = []message.Pair{{Key: "h"}}, []message.Pair{{Key: "t"}}
		return inner, nil
	}
	h := b.AsHandler(message.Caller{Namespace: "default", Service: "orders", Instance: "in_1"}, "")
	out := new(fakeSender)
	reply := h.HandleStream(t.Context(), watch().Call, out)
	if reply.Err != nil || len(reply.Trailers) != 1 || len(out.headers) != 1 || len(out.got) != 3 {
		t.Errorf("%+v after %v and %v", reply, out.headers, out.got)
	}
	// The caller goes away in the middle: the stream of the instance is closed.
	out = &fakeSender{fail: 1}
	if reply := h.HandleStream(t.Context(), watch().Call, out); errs.CodeOf(reply.Err) != errs.Canceled || !inner.isClosed() {
		t.Errorf("%+v, closed %v", reply, inner.isClosed())
	}
	if b.InFlight() != 0 {
		t.Errorf("%d in flight", b.InFlight())
	}
	if reply := h.HandleStream(t.Context(), request().Call, out); reply.Err == nil || !reply.Err.NotStarted {
		t.Errorf("a stream of a unary method: %+v", reply)
	}
}

func TestSlowReceiverHoldsTheInstanceBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := setup(t, instance("one"))
		var messages [][]byte
		for i := range 100 {
			messages = append(messages, []byte(strconv.Itoa(i)))
		}
		inner := newFakeStream(t.Context(), messages...)
		b.links["one"].stream = func(context.Context, *message.Call) (message.Stream, error) { return inner, nil }
		out := &fakeSender{gate: make(chan struct{})}
		done := make(chan *message.Reply, 1)
		go func() {
			done <- b.AsHandler(message.Caller{Service: "orders"}, "default").HandleStream(t.Context(), watch().Call, out)
		}()
		for taken := range 5 {
			synctest.Wait()
			if inner.received != taken+1 {
				t.Fatalf("%d messages are under way to a receiver that took %d", inner.received, taken)
			}
			out.gate <- struct{}{}
		}
		close(out.gate)
		if reply := <-done; reply.Err != nil || len(out.got) != 100 {
			t.Errorf("%+v after %d messages", reply, len(out.got))
		}
	})
}

func TestHandlerCalls(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("near", locality("rack-7")), instance("far", locality("rack-8")))
	b.index.set("default", "orders", instance("caller", locality("rack-7")))
	caller := message.Caller{Namespace: "default", Service: "orders", Instance: "caller", KeyID: "key_1"}
	h := b.AsHandler(caller, "")
	call := request().Call
	call.Caller = message.Caller{Service: "liar"}
	for range 20 {
		reply := h.HandleCall(t.Context(), call)
		if reply.Err != nil || string(reply.Body) != "near" {
			t.Fatalf("%+v", reply)
		}
	}
	if got := b.links["near"].got()[0].Caller; got != caller {
		t.Errorf("on behalf of %+v", got)
	}
	// The caller moves.
	b.index.set("default", "orders", instance("caller", locality("rack-8")))
	if reply := h.HandleCall(t.Context(), call); string(reply.Body) != "far" {
		t.Errorf("%s", reply.Body)
	}
	reply := h.HandleCall(t.Context(), request(calling("nope", "x")).Call)
	if !errors.Is(reply.Err, &errs.Error{Code: errs.ServiceNotFound}) || !reply.Err.NotStarted {
		t.Errorf("%+v", reply)
	}
	// Another namespace sees nothing of this one.
	if reply := b.AsHandler(message.Caller{Namespace: "acme"}, "").HandleCall(t.Context(), call); errs.CodeOf(reply.Err) != errs.ServiceNotFound {
		t.Errorf("%+v", reply)
	}
}
