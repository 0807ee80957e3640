package link_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/internal/message"
)

func TestCallCarriesEveryField(t *testing.T) {
	t.Parallel()
	got := make(chan message.Call, 1)
	d, _ := pair(t, link.Options{}, link.Options{Handler: handler{call: func(_ context.Context, call *message.Call) *message.Reply {
		c := *call
		c.Body = append([]byte(nil), call.Body...)
		got <- c
		return &message.Reply{}
	}}})
	want := message.Call{
		Seq: 7, Service: "payments", Method: "shop.v1.Payments/Charge", ContentType: message.Proto, Body: []byte("body"),
		Deadline:  time.Now().Add(time.Minute),
		Headers:   []message.Pair{{Key: "a", Value: []byte("1")}, {Key: "a", Value: []byte{0, 255}}, {Key: "b-bin", Value: nil}},
		RequestID: "req", Trace: message.Trace{TraceID: [16]byte{1}, SpanID: [8]byte{2}, Flags: 1, State: "k=v"},
		ChainRoot: "root", Chain: []string{"orders", "payments"}, IdempotencyKey: "key", Attempt: 2,
		Caller: message.Caller{Namespace: "default", Service: "orders", Instance: "in_1", KeyID: "key_1"},
		Target: message.Target{Realm: "global", Version: "1", Instance: "in_2", Contract: "pb:1", PreferContract: true},
		Avoid:  []string{"in_3", "in_4"},
	}
	// Twice, so that names travel as definitions and as references.
	for range 2 {
		if _, err := d.Call(t.Context(), &want); err != nil {
			t.Fatal(err)
		}
		c := <-got
		if left := time.Until(c.Deadline); left > time.Minute || left < 50*time.Second {
			t.Errorf("%s are left of a minute", left)
		}
		c.Deadline = want.Deadline
		c.Headers[2].Value = nil
		if diff := cmp.Diff(want, c); diff != "" {
			t.Fatal(diff)
		}
	}
}

func TestReplyCarriesFailureVerbatim(t *testing.T) {
	t.Parallel()
	want := &errs.Error{
		Code: errs.Handler, Component: "sdk", Operation: "charge", Message: "card refused", Severity: errs.Fatal, RetryAfter: 3 * time.Second,
		GRPCCode: 9, Details: [][]byte{{1, 2}, {}}, Meta: map[string]string{"k": "v"},
	}
	d, _ := pair(t, link.Options{}, link.Options{Handler: handler{call: func(context.Context, *message.Call) *message.Reply {
		return &message.Reply{Err: want, Headers: []message.Pair{{Key: "h", Value: []byte("1")}}, Trailers: []message.Pair{{Key: "t", Value: []byte("2")}}}
	}}})
	r, err := d.Call(t.Context(), &message.Call{Method: "charge"})
	if err != nil {
		t.Fatal(err)
	}
	got := *r.Err
	if got.Details[1] == nil {
		got.Details[1] = []byte{}
	}
	if diff := cmp.Diff(want, &got, cmp.FilterPath(func(p cmp.Path) bool { return p.String() == "cause" }, cmp.Ignore())); diff != "" {
		t.Error(diff)
	}
	if string(r.Headers[0].Value) != "1" || string(r.Trailers[0].Value) != "2" {
		t.Errorf("headers %v, trailers %v", r.Headers, r.Trailers)
	}
}

func TestBodiesOfEverySize(t *testing.T) {
	t.Parallel()
	d, a := pair(t, link.Options{Handler: echo()}, link.Options{Handler: echo()})
	for _, n := range []int{0, 1, link.MaxData, link.MaxData + 1, 3*link.MaxData - 1, link.StreamWindow + 5, message.MaxPayload} {
		body := bytes.Repeat([]byte("telford."), n/8+1)[:n]
		for name, c := range map[string]*link.Conn{"dialer": d, "acceptor": a} {
			r, err := c.Call(t.Context(), &message.Call{Method: "echo", ContentType: message.JSON, Body: body})
			if err != nil {
				t.Fatalf("%s, %d bytes: %v", name, n, err)
			}
			if !bytes.Equal(r.Body, body) || r.ContentType != message.JSON {
				t.Fatalf("%s, %d bytes: %d came back as %v", name, n, len(r.Body), r.ContentType)
			}
		}
		s, err := d.Stream(t.Context(), &message.Call{Method: "echo", Body: body})
		if err != nil {
			t.Fatal(err)
		}
		for i := range 3 {
			got, err := s.Recv()
			if err != nil || !bytes.Equal(got, body) {
				t.Fatalf("message %d of %d bytes: %d bytes, %v", i, n, len(got), err)
			}
		}
		if _, err := s.Recv(); !errors.Is(err, io.EOF) {
			t.Fatalf("the stream ended with %v", err)
		}
	}
	_, err := d.Call(t.Context(), &message.Call{Method: "echo", Body: make([]byte, message.MaxPayload+1)})
	if errs.CodeOf(err) != errs.ResourceExhausted || !strings.Contains(err.Error(), fmt.Sprint(message.MaxPayload)) || !strings.Contains(err.Error(), fmt.Sprint(message.MaxPayload+1)) {
		t.Fatalf("a payload over the limit: %v", err)
	}
}

func TestManyCallsBothWays(t *testing.T) {
	t.Parallel()
	d, a := pair(t, link.Options{Handler: echo()}, link.Options{Handler: echo()})
	var wg sync.WaitGroup
	for i := range 64 {
		for _, c := range []*link.Conn{d, a} {
			wg.Go(func() {
				for j := range 50 {
					body := []byte(fmt.Sprintf("%d/%d/%s", i, j, strings.Repeat("x", j*j*20)))
					r, err := c.Call(t.Context(), &message.Call{Method: "echo", Body: body})
					if err != nil {
						t.Error(err)
						return
					}
					if !bytes.Equal(r.Body, body) {
						t.Errorf("call %d/%d got another call's answer", i, j)
					}
				}
			})
		}
	}
	wg.Wait()
	if d.Outstanding()+a.Outstanding() != 0 {
		t.Errorf("%d and %d calls are outstanding", d.Outstanding(), a.Outstanding())
	}
	eventually(t, "no call runs", func() bool { return d.Inbound()+a.Inbound() == 0 })
}

func TestCancelReachesTheHandler(t *testing.T) {
	t.Parallel()
	began, ended := make(chan struct{}), make(chan error, 1)
	d, a := pair(t, link.Options{}, link.Options{Handler: handler{call: func(ctx context.Context, _ *message.Call) *message.Reply {
		close(began)
		<-ctx.Done()
		ended <- ctx.Err()
		return &message.Reply{}
	}}})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-began; cancel() }()
	_, err := d.Call(ctx, &message.Call{Method: "wait"})
	if !errors.Is(err, context.Canceled) || errs.CodeOf(err) != errs.Canceled {
		t.Fatalf("the call: %v", err)
	}
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Fatalf("the handler saw %v", err)
	}
	eventually(t, "no call runs", func() bool { return a.Inbound() == 0 })
}

func TestDeadlineOnBothEnds(t *testing.T) {
	t.Parallel()
	seen := make(chan error, 1)
	timed := make(chan struct{}) // the caller's own deadline has ended the call
	defer close(timed)
	d, _ := pair(t, link.Options{}, link.Options{Handler: handler{call: func(ctx context.Context, _ *message.Call) *message.Reply {
		if _, ok := ctx.Deadline(); !ok {
			seen <- errors.New("no deadline")
			return &message.Reply{}
		}
		sub, cancel := context.WithTimeout(ctx, time.Hour)
		defer cancel()
		<-sub.Done()
		seen <- ctx.Err()
		<-timed
		return &message.Reply{}
	}}})
	_, err := d.Call(t.Context(), &message.Call{Method: "wait", Deadline: time.Now().Add(200 * time.Millisecond)})
	if errs.CodeOf(err) != errs.DeadlineExceeded {
		t.Fatalf("the call: %v", err)
	}
	// Whether the deadline or the caller's cancellation came first is a race.
	if err := <-seen; !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		t.Fatalf("the handler saw %v", err)
	}
	_, err = d.Call(t.Context(), &message.Call{Method: "wait", Deadline: time.Now().Add(-time.Second)})
	var e *errs.Error
	if !errors.As(err, &e) || e.Code != errs.DeadlineExceeded || !e.NotStarted {
		t.Fatalf("a call past its deadline: %v", err)
	}
}

func TestStreamHoldsBackItsSender(t *testing.T) {
	t.Parallel()
	var sent atomic.Int64
	ended := make(chan error, 1)
	d, _ := pair(t, link.Options{}, link.Options{Handler: handler{stream: func(_ context.Context, call *message.Call, out message.Sender) *message.Reply {
		for {
			if err := out.Send(call.Body); err != nil {
				ended <- err
				return &message.Reply{}
			}
			sent.Add(1)
		}
	}}})
	s, err := d.Stream(t.Context(), &message.Call{Method: "flood", Body: make([]byte, 1024)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Recv(); err != nil {
		t.Fatal(err)
	}
	last := int64(-1)
	eventually(t, "the sender stands still", func() bool {
		n := sent.Load()
		still := n == last && n >= link.StreamWindow/1024/2
		last = n
		return still
	})
	if n := sent.Load(); n > 2*link.StreamWindow/1024 {
		t.Fatalf("%d KiB were sent to a receiver that does not receive", n)
	}
	// Another call still gets through, and so does a ping.
	if _, err := d.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 1000 {
		if _, err := s.Recv(); err != nil {
			t.Fatal(err)
		}
	}
	s.Close()
	if err := <-ended; err == nil {
		t.Fatal("the sender was not told")
	}
	for {
		if _, err = s.Recv(); err != nil {
			break
		}
	}
	if errs.CodeOf(err) != errs.Canceled {
		t.Fatalf("the stream ended with %v", err)
	}
}

func TestStreamHeadersTrailersAndFailure(t *testing.T) {
	t.Parallel()
	d, _ := pair(t, link.Options{}, link.Options{Handler: handler{stream: func(_ context.Context, _ *message.Call, out message.Sender) *message.Reply {
		if err := out.SendHeaders([]message.Pair{{Key: "h", Value: []byte("1")}}); err != nil {
			t.Error(err)
		}
		if err := out.SendHeaders(nil); err == nil {
			t.Error("headers were sent twice")
		}
		if err := out.Send([]byte("one")); err != nil {
			t.Error(err)
		}
		return &message.Reply{Err: errs.New(errs.NotFound, "no more"), Trailers: []message.Pair{{Key: "t", Value: []byte("2")}}}
	}}})
	s, err := d.Stream(t.Context(), &message.Call{Method: "s", ContentType: message.Proto})
	if err != nil {
		t.Fatal(err)
	}
	h, err := s.Headers()
	if err != nil || len(h) != 1 || string(h[0].Value) != "1" {
		t.Fatalf("headers %v, %v", h, err)
	}
	if b, err := s.Recv(); err != nil || string(b) != "one" {
		t.Fatalf("%q, %v", b, err)
	}
	if _, err := s.Recv(); errs.CodeOf(err) != errs.NotFound {
		t.Fatalf("the stream ended with %v", err)
	}
	if tr := s.Trailers(); len(tr) != 1 || string(tr[0].Value) != "2" || s.ContentType() != message.Proto {
		t.Fatalf("trailers %v, %v", tr, s.ContentType())
	}
}

func TestGoAwayAndDrain(t *testing.T) {
	t.Parallel()
	began, release := make(chan struct{}), make(chan struct{})
	d, a := pair(t, link.Options{Handler: echo()}, link.Options{Handler: handler{call: func(context.Context, *message.Call) *message.Reply {
		close(began)
		<-release
		return &message.Reply{Body: []byte("late")}
	}}})
	result := make(chan error, 1)
	go func() {
		r, err := d.Call(t.Context(), &message.Call{Method: "slow"})
		if err == nil && string(r.Body) != "late" {
			err = fmt.Errorf("got %q", r.Body)
		}
		result <- err
	}()
	<-began
	drained := make(chan error, 1)
	go func() { drained <- a.Drain(t.Context()) }()
	eventually(t, "new calls are refused", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		_, err := d.Call(ctx, &message.Call{Method: "new"})
		var e *errs.Error
		return errors.Is(err, link.ErrEnded) && errors.As(err, &e) && e.NotStarted
	})
	// The other direction still works while the connection drains.
	if _, err := a.Call(t.Context(), &message.Call{Method: "echo"}); err != nil {
		t.Fatalf("outbound while draining: %v", err)
	}
	close(release)
	if err := <-result; err != nil {
		t.Fatalf("the call that ran: %v", err)
	}
	if err := <-drained; err != nil {
		t.Fatal(err)
	}
	<-d.Done()
}

// Who had chosen a connection before it was drained must not begin a call on it that
// closing would cut off.
func TestNothingBeginsBehindADrain(t *testing.T) {
	t.Parallel()
	ignore := func([]byte) {}
	d, a := pair(t, link.Options{Handler: echo(), Control: ignore}, link.Options{Handler: echo(), Control: ignore})
	for name, c := range map[string]*link.Conn{"the dialer": d, "the acceptor": a} {
		if err := c.Quiesce(t.Context()); err != nil {
			t.Fatal(err)
		}
		_, err := c.Call(t.Context(), &message.Call{Method: "late"})
		var e *errs.Error
		if !errors.Is(err, link.ErrEnded) || !errors.As(err, &e) || !e.NotStarted {
			t.Errorf("%s: %v, want one that says that nothing began", name, err)
		}
		if err := c.Control([]byte("bye")); err != nil {
			t.Errorf("%s: control messages: %v", name, err)
		}
	}
}

func TestLossAnswersEveryCall(t *testing.T) {
	t.Parallel()
	began := make(chan struct{})
	canceled := make(chan struct{})
	d, a := pair(t, link.Options{}, link.Options{Handler: handler{call: func(ctx context.Context, _ *message.Call) *message.Reply {
		close(began)
		<-ctx.Done()
		close(canceled)
		return &message.Reply{}
	}}})
	result := make(chan error, 1)
	go func() {
		_, err := d.Call(t.Context(), &message.Call{Method: "slow"})
		result <- err
	}()
	<-began
	a.NetConn().Close()
	err := <-result
	var e *errs.Error
	if !errors.As(err, &e) || e.Code != errs.Unavailable || e.NotStarted || !errors.Is(err, link.ErrEnded) {
		t.Fatalf("the call that was under way: %v", err)
	}
	<-canceled
	<-d.Done()
	if _, err = d.Call(t.Context(), &message.Call{Method: "after"}); !errors.As(err, &e) || !e.NotStarted {
		t.Fatalf("a call on an ended connection: %v", err)
	}
	if _, err = d.Stream(t.Context(), &message.Call{Method: "after"}); !errors.As(err, &e) || !e.NotStarted {
		t.Fatalf("a stream on an ended connection: %v", err)
	}
	if d.Control(nil) == nil {
		t.Error("a control message on an ended connection")
	}
	if _, err := d.Ping(t.Context()); err == nil {
		t.Error("a ping on an ended connection")
	}
}

func TestRefusal(t *testing.T) {
	t.Parallel()
	dn, an := conns(t)
	go func() { _ = link.Refuse(an, errs.New(errs.PermissionDenied, "revoked").After(5*time.Second)) }()
	_, err := link.Dial(t.Context(), dn, link.Options{})
	var e *errs.Error
	if !errors.As(err, &e) || e.Code != errs.PermissionDenied || e.RetryAfter != 5*time.Second || !e.NotStarted {
		t.Fatalf("dial: %v", err)
	}
}

func TestDialGivesUp(t *testing.T) {
	t.Parallel()
	dn, an := conns(t)
	defer an.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := link.Dial(ctx, dn, link.Options{}); errs.CodeOf(err) != errs.DeadlineExceeded {
		t.Fatalf("dial: %v", err)
	}
}

func TestInboundBounds(t *testing.T) {
	t.Parallel()
	began, release := make(chan struct{}, 8), make(chan struct{})
	d, _ := pair(t, link.Options{}, link.Options{MaxInbound: 2, MaxWaiting: 1, Handler: handler{call: func(context.Context, *message.Call) *message.Reply {
		began <- struct{}{}
		<-release
		return &message.Reply{}
	}}})
	results := make(chan error, 4)
	call := func() {
		_, err := d.Call(t.Context(), &message.Call{Method: "slow"})
		results <- err
	}
	go call()
	go call()
	<-began
	<-began
	go call()
	eventually(t, "three calls are under way", func() bool { return d.Outstanding() == 3 })
	// The pings make sure that the third call has arrived before the fourth.
	if _, err := d.Ping(t.Context()); err != nil {
		t.Fatal(err)
	}
	_, err := d.Call(t.Context(), &message.Call{Method: "slow"})
	var e *errs.Error
	if !errors.As(err, &e) || e.Code != errs.ResourceExhausted || !e.NotStarted {
		t.Fatalf("the call beyond: %v", err)
	}
	close(release)
	for range 3 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

func TestPanicCostsOneCall(t *testing.T) {
	t.Parallel()
	d, _ := pair(t, link.Options{}, link.Options{Handler: handler{call: func(_ context.Context, call *message.Call) *message.Reply {
		if call.Method == "panic" {
			panic("oops")
		}
		if call.Method == "nothing" {
			return nil
		}
		return &message.Reply{}
	}}})
	for _, m := range []string{"panic", "nothing"} {
		r, err := d.Call(t.Context(), &message.Call{Method: m})
		if err != nil || errs.CodeOf(r.Err) != errs.Internal {
			t.Fatalf("%s: %v, %v", m, r, err)
		}
	}
	if _, err := d.Call(t.Context(), &message.Call{Method: "fine"}); err != nil {
		t.Fatal(err)
	}
}

func TestControlArrivesInOrderAndWhole(t *testing.T) {
	t.Parallel()
	got := make(chan []byte, 16)
	d, _ := pair(t, link.Options{}, link.Options{Control: func(p []byte) { got <- append([]byte(nil), p...) }})
	var want [][]byte
	for i := range 6 {
		want = append(want, bytes.Repeat([]byte{byte(i)}, i*i*20_000))
	}
	for _, p := range want {
		if err := d.Control(p); err != nil {
			t.Fatal(err)
		}
	}
	for i := range want {
		if b := <-got; !bytes.Equal(b, want[i]) {
			t.Fatalf("message %d: %d bytes, want %d", i, len(b), len(want[i]))
		}
	}
}

func TestHeadersOverTheLimit(t *testing.T) {
	t.Parallel()
	d, _ := pair(t, link.Options{}, link.Options{Handler: echo()})
	_, err := d.Call(t.Context(), &message.Call{Method: "echo", Headers: []message.Pair{{Key: "k", Value: make([]byte, message.MaxHeaders)}}})
	if errs.CodeOf(err) != errs.ResourceExhausted {
		t.Fatalf("headers over the limit: %v", err)
	}
	// More names than are interned still arrive.
	for i := range 1500 {
		h := []message.Pair{{Key: fmt.Sprintf("key-%d", i), Value: []byte("v")}}
		r, err := d.Call(t.Context(), &message.Call{Method: "echo", Headers: h})
		if err != nil {
			t.Fatal(err)
		}
		if r.Trailers[0].Key != h[0].Key {
			t.Fatalf("%q came back as %q", h[0].Key, r.Trailers[0].Key)
		}
	}
}

// A large request whose other end gives no credit ends with its deadline.
func TestDeadlineOfABodyWithoutCredit(t *testing.T) {
	t.Parallel()
	dn, an := conns(t)
	defer an.Close()
	go func() {
		c, err := link.Accept(silent{an}, link.Options{})
		if err == nil {
			<-c.Done()
		}
	}()
	d, err := link.Dial(t.Context(), dn, link.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close(nil)
	_, err = d.Call(t.Context(), &message.Call{Method: "m", Body: make([]byte, message.MaxPayload), Deadline: time.Now().Add(50 * time.Millisecond)})
	if errs.CodeOf(err) != errs.DeadlineExceeded {
		t.Fatalf("the call: %v", err)
	}
}

// silent is a connection whose reader hears nothing until it is closed.
type silent struct{ net.Conn }

func (s silent) Read(p []byte) (int, error) {
	for {
		if n, err := s.Conn.Read(p[:1]); err != nil {
			return n, err
		}
	}
}
