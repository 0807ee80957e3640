package grpcdoor

import (
	"context"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/internal/message"
)

// aheadBytes is how much of a stream is held for a receiver that is slower than the
// client. HTTP/2 can only hold up the whole session, so the one stream is ended instead.
const aheadBytes = 4 << 20

// outbound is one call of the runtime to the client.
type outbound struct {
	transport *transport
	seq       uint64
	kind      message.ContentType
	written   atomic.Bool

	mu       sync.Mutex
	messages [][]byte
	bytes    int
	headers  []message.Pair
	begun    bool
	final    *message.Reply
	path     bool          // final was made here, not by the client
	started  chan struct{} // closed at the headers, the first message or the end
	wake     chan struct{} // has a token when there may be news
	ended    chan struct{} // closed at the end
	stop     func() bool   // ends the watch over the context
}

// Call implements message.Link.
func (t *transport) Call(ctx context.Context, call *message.Call) (*message.Reply, error) {
	c, err := t.begin(ctx, call)
	if err != nil {
		return nil, err
	}
	var timer <-chan time.Time
	if !call.Deadline.IsZero() {
		tm := time.NewTimer(time.Until(call.Deadline))
		defer tm.Stop()
		timer = tm.C
	}
	select {
	case <-c.ended:
	case <-ctx.Done():
		c.cancel(ctx.Err())
	case <-timer:
		c.cancel(context.DeadlineExceeded)
	}
	<-c.ended
	if c.final.Err != nil && (c.final.Err.NotStarted || c.path) {
		return nil, c.final.Err
	}
	return c.final, nil
}

// Stream implements message.Link.
func (t *transport) Stream(ctx context.Context, call *message.Call) (message.Stream, error) {
	open := *call
	open.Stream = true
	c, err := t.begin(ctx, &open)
	if err != nil {
		return nil, err
	}
	stopContext := context.AfterFunc(ctx, func() { c.cancel(ctx.Err()) })
	stop := stopContext
	if !call.Deadline.IsZero() {
		tm := time.AfterFunc(time.Until(call.Deadline), func() { c.cancel(context.DeadlineExceeded) })
		stop = func() bool { tm.Stop(); return stopContext() }
	}
	c.mu.Lock()
	c.stop = stop
	over := c.final != nil
	c.mu.Unlock()
	if over {
		stop()
	}
	return &chunkReceiver{call: c}, nil
}

const pathComponent = "session"

// begin sends a call on its way.
func (t *transport) begin(ctx context.Context, call *message.Call) (*outbound, error) {
	op := "call " + call.Method
	if err := ctx.Err(); err != nil {
		return nil, errs.From(err).In(pathComponent, op).Unstarted()
	}
	if e := message.CheckPayload(len(call.Body)); e != nil {
		return nil, e
	}
	if e := message.CheckHeaders(call.Headers); e != nil {
		return nil, e
	}
	if call.Stream {
		numbered := *call
		t.mu.Lock()
		numbered.Seq = t.nextStream
		t.nextStream++
		t.mu.Unlock()
		call = &numbered
	}
	if call.Seq == 0 {
		return nil, errs.New(errs.Internal, "a call without a number cannot travel on a session's stream").In(pathComponent, op).Unstarted()
	}
	command := callToProto(call)
	deadline := call.Deadline
	if d, ok := ctx.Deadline(); ok && (deadline.IsZero() || d.Before(deadline)) {
		deadline = d
	}
	if !deadline.IsZero() {
		left := time.Until(deadline)
		if left <= 0 {
			return nil, errs.New(errs.DeadlineExceeded, "the deadline had passed before the call was sent").In(pathComponent, op).Unstarted()
		}
		command.TimeoutUs = max(1, left.Microseconds())
	}
	payload, err := proto.Marshal(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Call{Call: command}})
	if err != nil {
		return nil, errs.New(errs.InvalidArgument, "encode the call: %w", err).In(pathComponent, op).Unstarted()
	}
	c := &outbound{
		transport: t, seq: call.Seq, kind: call.ContentType,
		started: make(chan struct{}), wake: make(chan struct{}, 1), ended: make(chan struct{}),
	}
	t.mu.Lock()
	var e *errs.Error
	switch {
	case t.err != nil:
		e = errs.New(errs.Unavailable, "the session's stream has ended: %v", t.err).WithCause(link.ErrEnded)
	case t.goneAway:
		e = errs.New(errs.Unavailable, "the session's stream takes no more calls").WithCause(link.ErrEnded)
	case t.calls[call.Seq] != nil:
		e = errs.New(errs.Internal, "call %d is already under way on this stream", call.Seq)
	default:
		t.calls[call.Seq] = c
	}
	t.mu.Unlock()
	if e != nil {
		return nil, e.In(pathComponent, op).Unstarted()
	}
	if !t.out.put(ctx, item{payload: payload, taken: func() { c.written.Store(true) }}, false) {
		if t.remove(c) {
			e := errs.From(ctx.Err())
			if e == nil {
				e = t.ended()
			}
			return nil, e.In(pathComponent, op).Unstarted()
		}
		<-c.ended
		return nil, c.final.Err
	}
	return c, nil
}

// remove takes a call off the books; false when somebody else has.
func (t *transport) remove(c *outbound) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.calls[c.seq] != c {
		return false
	}
	delete(t.calls, c.seq)
	t.checkQuiet()
	return true
}

// cancel gives the call up and tells the client.
func (c *outbound) cancel(cause error) {
	if !c.transport.remove(c) {
		return
	}
	if c.written.Load() {
		c.transport.force(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Cancel{Cancel: &telfordv1.Cancel{Seq: c.seq}}})
	} else {
		// It may still be in the queue: the Cancel must come behind it.
		c.transport.cancelLater(c.seq)
	}
	c.end(&message.Reply{Err: errs.From(cause).In(pathComponent, "call")}, true)
}

// cancelLater queues a Cancel behind what is queued already.
func (t *transport) cancelLater(seq uint64) {
	payload, err := proto.Marshal(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Cancel{Cancel: &telfordv1.Cancel{Seq: seq}}})
	if err != nil {
		return
	}
	t.out.mu.Lock()
	if t.out.closed {
		t.out.mu.Unlock()
		return
	}
	t.out.add(item{payload: payload}, false)
}

// lose ends a call whose stream has ended.
func (c *outbound) lose(cause *errs.Error) {
	e := errs.New(errs.Unavailable, "the session's stream was lost while the call was under way, so that it is unknown whether it ran: %v", cause)
	if !c.written.Load() {
		e = errs.New(errs.Unavailable, "the session's stream was lost before the call was sent: %v", cause).Unstarted()
	}
	c.end(&message.Reply{Err: e.In(pathComponent, "call").WithCause(link.ErrEnded)}, true)
}

// end sets how the call ended. It is called once, by whoever took it off the books.
func (c *outbound) end(r *message.Reply, path bool) {
	c.mu.Lock()
	if c.headers == nil {
		c.headers = r.Headers
	}
	if r.ContentType != message.None {
		c.kind = r.ContentType
	}
	c.final, c.path = r, path
	stop := c.stop
	c.begin()
	c.signal()
	close(c.ended)
	c.mu.Unlock()
	if stop != nil {
		stop()
	}
}

// chunk takes in one message of a stream; called by the reader.
func (c *outbound) chunk(p *telfordv1.Chunk) {
	var over *errs.Error
	c.mu.Lock()
	if len(p.GetHeaders()) > 0 && !c.begun {
		c.headers = pairsFromProto(p.GetHeaders())
		c.begin()
		if len(p.GetBody()) == 0 {
			c.mu.Unlock()
			return // headers alone
		}
	}
	c.begin()
	switch {
	case len(p.GetBody()) > message.MaxPayload:
		over = message.CheckPayload(len(p.GetBody()))
		over.NotStarted = false // the handler has run
	case c.bytes > 0 && c.bytes+len(p.GetBody()) > aheadBytes:
		over = errs.New(errs.ResourceExhausted, "the receiver of the stream fell more than %d bytes behind; read faster, or let the instance use telford/1, which holds the sender up instead", aheadBytes)
	default:
		c.messages = append(c.messages, p.GetBody())
		c.bytes += len(p.GetBody()) + 1
		c.signal()
	}
	c.mu.Unlock()
	if over != nil {
		c.cancel(over)
	}
}

// begin marks, with mu held, that the answer has begun.
func (c *outbound) begin() {
	if !c.begun {
		c.begun = true
		close(c.started)
	}
}

func (c *outbound) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// chunkReceiver is the receiving end of a streaming call.
type chunkReceiver struct {
	call     *outbound
	trailers []message.Pair
}

// Recv implements message.Stream.
func (r *chunkReceiver) Recv() ([]byte, error) {
	c := r.call
	for {
		c.mu.Lock()
		if len(c.messages) > 0 {
			body := c.messages[0]
			c.messages[0] = nil
			c.messages = c.messages[1:]
			c.bytes -= len(body) + 1
			c.mu.Unlock()
			return body, nil
		}
		final := c.final
		c.mu.Unlock()
		if final != nil {
			r.trailers = final.Trailers
			if final.Err != nil {
				return nil, final.Err
			}
			return nil, io.EOF
		}
		select {
		case <-c.wake:
		case <-c.ended:
		}
	}
}

// Headers implements message.Stream.
func (r *chunkReceiver) Headers() ([]message.Pair, error) {
	c := r.call
	<-c.started
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.final != nil && c.final.Err != nil && len(c.messages) == 0 {
		return c.headers, c.final.Err
	}
	return c.headers, nil
}

// Trailers implements message.Stream.
func (r *chunkReceiver) Trailers() []message.Pair { return r.trailers }

// ContentType implements message.Stream.
func (r *chunkReceiver) ContentType() message.ContentType {
	r.call.mu.Lock()
	defer r.call.mu.Unlock()
	return r.call.kind
}

// Close implements message.Stream.
func (r *chunkReceiver) Close() { r.call.cancel(context.Canceled) }

// chunkSender is the sending end of a stream that the client has asked for.
type chunkSender struct {
	transport *transport
	in        *inboundCall
	ctx       context.Context
	seq       uint64
	begun     bool
}

// SendHeaders implements message.Sender.
func (s *chunkSender) SendHeaders(pairs []message.Pair) error {
	if s.begun {
		return errs.New(errs.FailedPrecondition, "the headers were sent already")
	}
	if e := message.CheckHeaders(pairs); e != nil {
		return e
	}
	s.begun = true
	return s.send(&telfordv1.Chunk{Seq: s.seq, Headers: pairsToProto(pairs)})
}

// Send implements message.Sender.
func (s *chunkSender) Send(body []byte) error {
	if e := message.CheckPayload(len(body)); e != nil {
		e.NotStarted = false
		return e
	}
	s.begun = true
	return s.send(&telfordv1.Chunk{Seq: s.seq, Body: body})
}

func (s *chunkSender) send(c *telfordv1.Chunk) error {
	payload, err := proto.Marshal(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Chunk{Chunk: c}})
	if err != nil {
		return errs.New(errs.Internal, "encode a message of the stream: %w", err)
	}
	if s.in.gone.Load() || !s.transport.out.put(s.ctx, item{payload: payload}, false) {
		return errs.New(errs.Canceled, "the receiver of the stream is gone")
	}
	return nil
}
