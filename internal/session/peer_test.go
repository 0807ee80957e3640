package session

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/internal/message"
)

// wire is a Transport in memory: calls go straight to the handler of the other end
// until it is cut.
type wire struct {
	peer message.Handler
	done chan struct{}
	once sync.Once

	mu       sync.Mutex
	controls [][]byte
	// before, if set, runs between the arrival of a call and its handler.
	before func(*message.Call)
}

func newWire(peer *Peer) *wire { return &wire{peer: peer.Handler(), done: make(chan struct{})} }

func (w *wire) ended(started bool) error {
	e := errs.New(errs.Unavailable, "cut").WithCause(link.ErrEnded)
	if !started {
		e = e.Unstarted()
	}
	return e
}

func (w *wire) Call(ctx context.Context, call *message.Call) (*message.Reply, error) {
	select {
	case <-w.done:
		return nil, w.ended(false)
	default:
	}
	got := make(chan *message.Reply, 1)
	c := *call
	go func() {
		if w.before != nil {
			w.before(&c)
		}
		got <- w.peer.HandleCall(context.WithoutCancel(ctx), &c)
	}()
	select {
	case r := <-got:
		select {
		case <-w.done:
			return nil, w.ended(true)
		default:
		}
		return r, nil
	case <-w.done:
		return nil, w.ended(true)
	case <-ctx.Done():
		return nil, errs.From(ctx.Err())
	}
}

func (w *wire) Stream(context.Context, *message.Call) (message.Stream, error) {
	select {
	case <-w.done:
		return nil, w.ended(false)
	default:
		return emptyStream{}, nil
	}
}

type emptyStream struct{ message.Stream }

func (emptyStream) Recv() ([]byte, error) { return nil, io.EOF }
func (emptyStream) Close()                {}

func (w *wire) Control(p []byte) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.controls = append(w.controls, p)
	return nil
}

func (w *wire) Close(error) { w.once.Do(func() { close(w.done) }) }

func (w *wire) Done() <-chan struct{} { return w.done }

type handlerFunc func(ctx context.Context, call *message.Call) *message.Reply

func (f handlerFunc) HandleCall(ctx context.Context, call *message.Call) *message.Reply {
	return f(ctx, call)
}

func (f handlerFunc) HandleStream(ctx context.Context, call *message.Call, _ message.Sender) *message.Reply {
	return f(ctx, call)
}

func TestCallSurvivesACut(t *testing.T) {
	t.Parallel()
	runs := 0
	began, release := make(chan struct{}), make(chan struct{})
	server := NewPeer(PeerOptions{Handler: handlerFunc(func(context.Context, *message.Call) *message.Reply {
		runs++
		close(began)
		<-release
		return &message.Reply{Body: []byte("done")}
	})})
	client := NewPeer(PeerOptions{Client: true})
	first := newWire(server)
	client.Attach(first, Position{}, false)
	result := make(chan error, 1)
	go func() {
		r, err := client.Call(t.Context(), &message.Call{Method: "m"})
		if err == nil && string(r.Body) != "done" {
			err = fmt.Errorf("got %q", r.Body)
		}
		result <- err
	}()
	<-began
	first.Close(nil)
	client.Detach(first, errors.New("cut"))
	second := newWire(server)
	replayed, _ := client.Attach(second, server.Position(), true)
	if replayed != 1 {
		t.Errorf("%d commands were sent again", replayed)
	}
	close(release)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	if runs != 1 {
		t.Fatalf("executed %d times", runs)
	}
}

func TestCallOfALostSession(t *testing.T) {
	t.Parallel()
	began := make(chan struct{}, 4)
	release := make(chan struct{})
	defer close(release)
	server := NewPeer(PeerOptions{Handler: handlerFunc(func(context.Context, *message.Call) *message.Reply {
		began <- struct{}{}
		<-release
		return &message.Reply{}
	})})
	manual := clock.NewManual(time.Unix(0, 0))
	client := NewPeer(PeerOptions{Client: true, Clock: manual, Window: time.Minute})
	call := func() chan error {
		result := make(chan error, 1)
		go func() {
			_, err := client.Call(t.Context(), &message.Call{Method: "m"})
			result <- err
		}()
		return result
	}
	unknown := func(err error) {
		t.Helper()
		var e *errs.Error
		if !errors.As(err, &e) || e.Code != errs.Unavailable || e.NotStarted {
			t.Fatalf("the call: %v", err)
		}
	}
	first := newWire(server)
	client.Attach(first, Position{}, false)
	result := call()
	<-began
	first.Close(nil)
	client.Detach(first, errors.New("cut"))
	// The other end does not know the session any more.
	second := newWire(server)
	client.Attach(second, Position{}, false)
	unknown(<-result)

	// The window passes.
	server2 := NewPeer(PeerOptions{Handler: server.opt.Handler})
	third := newWire(server2)
	client.Attach(third, Position{}, false)
	result = call()
	<-began
	third.Close(nil)
	client.Detach(third, errors.New("cut"))
	manual.Advance(59 * time.Second)
	select {
	case err := <-result:
		t.Fatalf("answered inside the window: %v", err)
	default:
	}
	manual.Advance(2 * time.Second)
	unknown(<-result)
	client.Close(errors.New("over"))
	if _, err := client.Call(t.Context(), &message.Call{}); errs.CodeOf(err) != errs.Unavailable {
		t.Fatalf("a call on a closed session: %v", err)
	}
}

func TestWaitingForTheSession(t *testing.T) {
	t.Parallel()
	server := NewPeer(PeerOptions{Handler: handlerFunc(func(context.Context, *message.Call) *message.Reply { return &message.Reply{} })})
	client := NewPeer(PeerOptions{Client: true})
	_, err := client.Call(t.Context(), &message.Call{Method: "m", Deadline: time.Now().Add(20 * time.Millisecond)})
	var e *errs.Error
	if !errors.As(err, &e) || e.Code != errs.DeadlineExceeded || !e.NotStarted {
		t.Fatalf("a call without a connection: %v", err)
	}
	if _, err = client.Stream(t.Context(), &message.Call{Method: "m", Deadline: time.Now().Add(20 * time.Millisecond)}); !errors.As(err, &e) || e.Code != errs.DeadlineExceeded || !e.NotStarted {
		t.Fatalf("a stream without a connection: %v", err)
	}
	result := make(chan error, 1)
	go func() {
		_, err := client.Call(t.Context(), &message.Call{Method: "m"})
		result <- err
	}()
	client.Attach(newWire(server), Position{}, false)
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	hasty := NewPeer(PeerOptions{NoWait: true})
	if _, err = hasty.Call(t.Context(), &message.Call{Method: "m"}); !errors.As(err, &e) || e.Code != errs.Unavailable || !e.NotStarted {
		t.Fatalf("a call that does not wait: %v", err)
	}
	if _, err = hasty.Stream(t.Context(), &message.Call{Method: "m"}); !errors.As(err, &e) || e.Code != errs.Unavailable || !e.NotStarted {
		t.Fatalf("a stream that does not wait: %v", err)
	}
}

func TestPermits(t *testing.T) {
	t.Parallel()
	began, release := make(chan struct{}, 8), make(chan struct{})
	server := NewPeer(PeerOptions{Handler: handlerFunc(func(context.Context, *message.Call) *message.Reply {
		began <- struct{}{}
		<-release
		return &message.Reply{}
	})})
	client := NewPeer(PeerOptions{Client: true, Permits: 2})
	client.Attach(newWire(server), Position{}, false)
	results := make(chan error, 4)
	for range 4 {
		go func() {
			_, err := client.Call(t.Context(), &message.Call{Method: "m"})
			results <- err
		}()
	}
	<-began
	<-began
	if in, _ := server.InFlight(); in != 2 {
		t.Fatalf("%d run with two permits", in)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	_, err := client.Call(ctx, &message.Call{Method: "m"})
	var e *errs.Error
	if !errors.As(err, &e) || e.Code != errs.DeadlineExceeded || !e.NotStarted {
		t.Fatalf("a call that found no permit: %v", err)
	}
	client.SetPermits(3)
	<-began
	close(release)
	for range 4 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if err := client.Drained(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestResultsAreKeptUntilAcknowledged(t *testing.T) {
	t.Parallel()
	server := NewPeer(PeerOptions{Handler: handlerFunc(func(_ context.Context, c *message.Call) *message.Reply { return &message.Reply{Body: c.Body} })})
	client := NewPeer(PeerOptions{Client: true})
	client.Attach(newWire(server), Position{}, false)
	for range 10 {
		if _, err := client.Call(t.Context(), &message.Call{Method: "m", Body: []byte("x")}); err != nil {
			t.Fatal(err)
		}
	}
	if len(server.kept) != 10 {
		t.Fatalf("%d results are kept", len(server.kept))
	}
	ack := client.NextAck()
	if ack.GetResults() != 10 || client.NextAck() != nil {
		t.Fatalf("ack %v", ack)
	}
	server.OnAck(ack)
	if len(server.kept) != 0 || server.keptBytes != 0 {
		t.Fatalf("%d results of %d bytes are kept", len(server.kept), server.keptBytes)
	}
	// A number that was acknowledged is not run again.
	r := server.Handler().HandleCall(t.Context(), &message.Call{Seq: 3, Method: "m"})
	if r.Err == nil || r.Err.NotStarted {
		t.Fatalf("a number seen before was answered %v", r)
	}
	if r := server.Handler().HandleCall(t.Context(), &message.Call{Seq: 1 << 40, Method: "m"}); errs.CodeOf(r.Err) != errs.InvalidArgument {
		t.Fatalf("a number out of sequence was answered %v", r)
	}
	// What is kept is bounded.
	big := make([]byte, 1<<20)
	for seq := uint64(11); seq <= 20; seq++ {
		server.Handler().HandleCall(t.Context(), &message.Call{Seq: seq, Method: "m", Body: big})
	}
	if server.keptBytes > KeptBytes {
		t.Fatalf("%d bytes are kept", server.keptBytes)
	}
}

func TestDeafEndIsSeen(t *testing.T) {
	t.Parallel()
	manual := clock.NewManual(time.Unix(1000, 0))
	stuck := make(chan struct{})
	server := NewPeer(PeerOptions{Handler: handlerFunc(func(context.Context, *message.Call) *message.Reply { return &message.Reply{} })})
	client := NewPeer(PeerOptions{Client: true, Clock: manual})
	w := newWire(server)
	arrived := make(chan struct{})
	w.before = func(*message.Call) { close(arrived); <-stuck }
	client.Attach(w, Position{}, false)
	if _, ok := client.OldestUnreceived(); ok {
		t.Fatal("something is unreceived before the first call")
	}
	done := make(chan error, 1)
	go func() {
		_, err := client.Call(t.Context(), &message.Call{Method: "m"})
		done <- err
	}()
	<-arrived
	if at, ok := client.OldestUnreceived(); !ok || !at.Equal(time.Unix(1000, 0)) {
		t.Fatalf("oldest unreceived %v, %v", at, ok)
	}
	client.OnAck(&telfordv1.Ack{Commands: 1})
	if _, ok := client.OldestUnreceived(); ok {
		t.Fatal("an acknowledged command counts as unreceived")
	}
	close(stuck)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// An end that holds one command back and takes others is slow, not deaf.
func TestProgressIsNotDeafness(t *testing.T) {
	t.Parallel()
	manual := clock.NewManual(time.Unix(1000, 0))
	stuck, arrived := make(chan struct{}), make(chan struct{})
	server := NewPeer(PeerOptions{Handler: handlerFunc(func(context.Context, *message.Call) *message.Reply { return &message.Reply{} })})
	client := NewPeer(PeerOptions{Client: true, Clock: manual})
	w := newWire(server)
	w.before = func(c *message.Call) {
		if c.Method == "stuck" {
			close(arrived)
			<-stuck
		}
	}
	client.Attach(w, Position{}, false)
	done := make(chan error, 1)
	go func() {
		_, err := client.Call(t.Context(), &message.Call{Method: "stuck"})
		done <- err
	}()
	<-arrived
	manual.Advance(time.Minute)
	if _, err := client.Call(t.Context(), &message.Call{Method: "quick"}); err != nil {
		t.Fatal(err)
	}
	if at, ok := client.OldestUnreceived(); !ok || !at.Equal(time.Unix(1060, 0)) {
		t.Errorf("unreceived since %v, %v; the last answer came at 1060", at.Unix(), ok)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	manual.Advance(time.Minute)
	w.before = func(*message.Call) {}
	_, _ = client.Call(ctx, &message.Call{Method: "given up"})
	if at, _ := client.OldestUnreceived(); !at.Equal(time.Unix(1060, 0)) {
		t.Errorf("unreceived since %v: a call that was given up counts as an answer", at.Unix())
	}
	close(stuck)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
