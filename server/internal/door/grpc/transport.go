package grpcdoor

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/internal/message"
)

// Bounds of one Session stream.
const (
	writeStall   = 10 * time.Second // a client that takes nothing for so long is gone
	farewellTime = time.Second      // to get the last words out
	maxInbound   = 256              // calls of the client that run at once
	maxWaiting   = 256              // and that wait for one of those to end
)

// transport makes one Session/Open stream into what telford/1 is to a session: the
// runtime's calls and the client's, control messages, and signs of life. A call is
// known by its number, which the session gave it.
type transport struct {
	transportOptions

	out      *queue
	done     chan struct{}
	lastRead atomic.Int64 // nanoseconds
	slots    chan struct{}

	mu       sync.Mutex
	err      *errs.Error
	calls    map[uint64]*outbound
	inbound  map[uint64]*inboundCall
	pings    map[uint64]chan struct{}
	nextPing uint64
	// nextStream numbers the streaming calls of the runtime.
	nextStream uint64
	goneAway   bool
	quiet      chan struct{} // closed when a drain has nothing left to wait for; nil before one
}

// transportOptions are what a transport works with.
type transportOptions struct {
	send    func(payload []byte) error // one marshalled ServerMessage; blocks
	handler message.Handler
	control func(*telfordv1.ClientMessage) // must not block
	running *sync.WaitGroup                // counts the handlers
	clock   clock.Clock
	log     *slog.Logger
}

// firstStream is where the numbers of streaming calls begin, in either direction: these
// end with their connection, so they are not among the numbered commands of a session.
const firstStream = 1 << 52

type inboundCall struct {
	stream bool
	cancel context.CancelFunc
	gone   atomic.Bool
}

// callContext is the context of a call of the client. The session ends it when nobody
// waits for the call any more.
type callContext struct {
	context.Context
	cancel context.CancelFunc
}

// CancelCall ends the call.
func (c callContext) CancelCall() { c.cancel() }

func newTransport(o transportOptions) *transport {
	t := &transport{
		transportOptions: o,
		out:              newQueue(), done: make(chan struct{}), slots: make(chan struct{}, maxInbound),
		calls: make(map[uint64]*outbound), inbound: make(map[uint64]*inboundCall), pings: make(map[uint64]chan struct{}),
		nextStream: firstStream,
	}
	t.lastRead.Store(t.clock.Now().UnixNano())
	return t
}

// Done is closed when the stream has ended.
func (t *transport) Done() <-chan struct{} { return t.done }

// Err says why the stream has ended; nil while it lives.
func (t *transport) Err() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.err == nil {
		return nil
	}
	return t.err
}

// LastReceived is when the client was last heard of.
func (t *transport) LastReceived() time.Time { return time.Unix(0, t.lastRead.Load()) }

// Control sends one marshalled ServerMessage, waiting while the queue is full.
func (t *transport) Control(payload []byte) error {
	if !t.out.put(context.Background(), item{payload: payload}, true) {
		return t.ended()
	}
	return nil
}

// ended is the error of what could not be done because the stream has ended.
func (t *transport) ended() *errs.Error {
	return errs.New(errs.Unavailable, "the session's stream has ended: %v", t.Err()).WithCause(link.ErrEnded)
}

// Ping measures the round trip to the client.
func (t *transport) Ping(ctx context.Context) (time.Duration, error) {
	pong := make(chan struct{})
	t.mu.Lock()
	t.nextPing++
	id := t.nextPing
	t.pings[id] = pong
	t.mu.Unlock()
	defer func() {
		t.mu.Lock()
		delete(t.pings, id)
		t.mu.Unlock()
	}()
	start := time.Now()
	if !t.force(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Ping{Ping: &telfordv1.Ping{Id: id}}}) {
		return 0, t.ended()
	}
	select {
	case <-pong:
		return time.Since(start), nil
	case <-ctx.Done():
		return 0, errs.From(ctx.Err()).In("session", "ping")
	case <-t.done:
		return 0, t.ended()
	}
}

// force sends a message that cannot wait. When there is no room even for that, the
// client does not read and the stream ends.
func (t *transport) force(m *telfordv1.ServerMessage) bool {
	payload, err := proto.Marshal(m)
	if err != nil {
		t.Close(errs.New(errs.Internal, "encode a message of the session: %w", err))
		return false
	}
	if !t.out.force(item{payload: payload}) {
		t.Close(errs.New(errs.Unavailable, "the client does not read its session's stream"))
		return false
	}
	return true
}

// GoAway lets no more calls begin on this stream, in either direction. The client is
// told by the session, with Drain, or by its own knowledge of a successor.
func (t *transport) GoAway() {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.goneAway = true
}

// Drain says GoAway, waits until every call in either direction has ended, and closes
// the stream. When ctx ends first it closes at once and returns the error of ctx.
func (t *transport) Drain(ctx context.Context) error {
	t.mu.Lock()
	t.goneAway = true
	if t.quiet == nil {
		t.quiet = make(chan struct{})
	}
	quiet := t.quiet
	t.checkQuiet()
	t.mu.Unlock()
	var err error
	select {
	case <-quiet:
	case <-t.done:
	case <-ctx.Done():
		err = ctx.Err()
	}
	t.Close(errs.New(errs.Unavailable, "the stream was drained"))
	return err
}

// checkQuiet closes quiet, with mu held, when nothing runs.
func (t *transport) checkQuiet() {
	if t.quiet == nil || len(t.calls) > 0 || len(t.inbound) > 0 {
		return
	}
	select {
	case <-t.quiet:
	default:
		close(t.quiet)
	}
}

// Outstanding is the number of calls of the runtime that wait for their answer.
func (t *transport) Outstanding() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.calls)
}

// Inbound is the number of calls of the client that run or wait here.
func (t *transport) Inbound() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return len(t.inbound)
}

// Close ends the stream; the first cause stays. Calls under way are answered
// unavailable. Handlers of unary calls go on: their results belong to the session.
func (t *transport) Close(cause error) {
	e := errs.From(cause)
	if e == nil {
		e = errs.New(errs.Unavailable, "the stream was closed")
	}
	t.mu.Lock()
	if t.err != nil {
		t.mu.Unlock()
		return
	}
	t.err = e
	calls := t.calls
	t.calls = make(map[uint64]*outbound)
	var streams []*inboundCall // unlike other calls they end here
	for _, in := range t.inbound {
		if in.stream {
			streams = append(streams, in)
		}
	}
	close(t.done)
	t.mu.Unlock()
	t.out.seal()
	for _, c := range calls {
		c.lose(e)
	}
	for _, in := range streams {
		in.cancel()
	}
}

// write is the writing goroutine: it ends with the stream, having sent what was queued
// before that, for as long as the client takes it.
func (t *transport) write() {
	stalled := time.AfterFunc(time.Hour, func() {
		t.Close(errs.New(errs.Unavailable, "the client took nothing of its session's stream for %s", writeStall))
	})
	defer stalled.Stop()
	defer t.out.drop()
	for {
		it, ok := t.out.take()
		if ok {
			if it.taken != nil {
				it.taken()
			}
			stalled.Reset(writeStall)
			err := t.send(it.payload)
			stalled.Stop()
			if err != nil {
				t.Close(errs.New(errs.Unavailable, "the session's stream was lost: %w", err))
				return
			}
			continue
		}
		select {
		case <-t.out.ready:
		case <-t.done:
			if t.out.empty() {
				return
			}
		}
	}
}

// receive takes in one message of the client, on the goroutine that reads. It never
// waits and never runs a handler. An error ends the stream.
func (t *transport) receive(m *telfordv1.ClientMessage) *errs.Error {
	t.lastRead.Store(t.clock.Now().UnixNano())
	switch v := m.GetMessage().(type) {
	case *telfordv1.ClientMessage_Pong:
		t.mu.Lock()
		if pong := t.pings[v.Pong.GetId()]; pong != nil {
			close(pong)
			delete(t.pings, v.Pong.GetId())
		}
		t.mu.Unlock()
	case *telfordv1.ClientMessage_Ping:
		t.force(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Pong{Pong: &telfordv1.Pong{Id: v.Ping.GetId()}}})
	case *telfordv1.ClientMessage_Call:
		return t.receiveCall(v.Call)
	case *telfordv1.ClientMessage_Cancel:
		t.mu.Lock()
		in := t.inbound[v.Cancel.GetSeq()]
		t.mu.Unlock()
		if in != nil {
			in.gone.Store(true)
			in.cancel()
		} else {
			t.control(m) // it may have come over another connection
		}
	case *telfordv1.ClientMessage_Result:
		t.mu.Lock()
		c := t.calls[v.Result.GetSeq()]
		delete(t.calls, v.Result.GetSeq())
		t.checkQuiet()
		t.mu.Unlock()
		if c != nil { // else it was cancelled meanwhile
			c.end(resultFromProto(v.Result), false)
		}
	case *telfordv1.ClientMessage_Chunk:
		t.mu.Lock()
		c := t.calls[v.Chunk.GetSeq()]
		t.mu.Unlock()
		if c != nil {
			c.chunk(v.Chunk)
		}
	case nil:
		return errs.New(errs.InvalidArgument, "a message of the session that is empty, or newer than this runtime")
	default:
		t.control(m)
	}
	return nil
}

// receiveCall starts the handler of a call of the client, or refuses the call.
func (t *transport) receiveCall(p *telfordv1.Call) *errs.Error {
	call, e := callFromProto(p, time.Now())
	if call == nil && p.GetSeq() == 0 {
		return e // there is no number to answer to
	}
	if e == nil && call.Stream != (call.Seq >= firstStream) {
		e = errs.New(errs.InvalidArgument, "seq %d: the numbers of streaming calls begin at %d, those of other calls are below", call.Seq, uint64(firstStream))
	}
	if e != nil {
		t.refuse(p.GetSeq(), e)
		return nil
	}
	ctx, cancel := context.WithCancel(context.Background())
	if !call.Deadline.IsZero() {
		ctx, cancel = context.WithDeadline(context.Background(), call.Deadline)
	}
	in := &inboundCall{cancel: cancel, stream: call.Stream}
	t.mu.Lock()
	switch {
	case t.err != nil:
		e = errs.New(errs.Unavailable, "the stream has ended")
	case t.goneAway:
		e = errs.New(errs.Unavailable, "this stream takes no more calls; use its successor")
	case t.inbound[call.Seq] != nil:
		t.mu.Unlock()
		cancel()
		return errs.New(errs.InvalidArgument, "call %d was sent twice on one stream", call.Seq)
	case len(t.inbound) >= maxInbound+maxWaiting:
		e = errs.New(errs.ResourceExhausted, "%d calls run and %d wait on this stream", maxInbound, maxWaiting)
	}
	if e != nil {
		t.mu.Unlock()
		cancel()
		t.refuse(call.Seq, e)
		return nil
	}
	t.inbound[call.Seq] = in
	t.running.Add(1)
	t.mu.Unlock()
	go t.run(callContext{ctx, cancel}, in, call)
	return nil
}

// run runs one handler and sends its answer.
func (t *transport) run(ctx context.Context, in *inboundCall, call *message.Call) {
	defer t.running.Done()
	defer in.cancel()
	var reply *message.Reply
	select {
	case t.slots <- struct{}{}:
		reply = t.handle(ctx, in, call)
		<-t.slots
	case <-ctx.Done():
		reply = &message.Reply{Err: errs.From(ctx.Err()).In("session", "call "+call.Method).Unstarted()}
	}
	if !in.gone.Load() {
		t.answer(context.WithoutCancel(ctx), call.Seq, reply)
	}
	t.mu.Lock()
	delete(t.inbound, call.Seq)
	t.checkQuiet()
	t.mu.Unlock()
}

// handle calls the handler; a panic costs this call only.
func (t *transport) handle(ctx context.Context, in *inboundCall, call *message.Call) (reply *message.Reply) {
	defer func() {
		if r := recover(); r != nil {
			t.log.Error("a handler panicked", "method", call.Method, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			reply = &message.Reply{Err: errs.New(errs.Internal, "the handler of %s panicked", call.Method)}
		}
	}()
	if call.Stream {
		reply = t.handler.HandleStream(ctx, call, &chunkSender{transport: t, in: in, ctx: ctx, seq: call.Seq})
	} else {
		reply = t.handler.HandleCall(ctx, call)
	}
	if reply == nil {
		reply = &message.Reply{Err: errs.New(errs.Internal, "the handler of %s gave no answer", call.Method)}
	}
	return reply
}

// refuse answers a call that was not started, on the goroutine that reads.
func (t *transport) refuse(seq uint64, e *errs.Error) {
	t.force(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Result{
		Result: resultToProto(seq, &message.Reply{Err: e.In("session", "call").Unstarted()}),
	}})
}

// answer sends the result of a call of the client.
func (t *transport) answer(ctx context.Context, seq uint64, r *message.Reply) {
	payload, err := proto.Marshal(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Result{Result: resultToProto(seq, r)}})
	if err != nil {
		t.Close(errs.New(errs.Internal, "encode a result: %w", err))
		return
	}
	t.out.put(ctx, item{payload: payload}, false) // else the session keeps it for a resume
}
