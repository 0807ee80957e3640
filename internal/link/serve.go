package link

import (
	"context"
	"fmt"
	"runtime/debug"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// inbound is one call of the other end. It is reused once its handler has returned.
type inbound struct {
	id   uint64
	call message.Call
	body []byte // the storage of call.Body, kept for the next call
	ctx  *callContext
	recv window // of the body, while it arrives in pieces
	held int    // bytes of it that count as incomplete
	// admitted: the body is whole.
	admitted bool
	credit   int  // what may be sent of the answer
	gone     bool // cancelled: the other end waits for no answer
}

// worker is a goroutine that runs handlers, one after another. A nil call makes it the
// reader.
type worker struct{ work chan *inbound }

// admit takes in a call whose body is whole, or refuses it. Called by the reader.
func (c *Conn) admit(in *inbound) {
	c.mu.Lock()
	switch {
	case c.err != nil:
		c.mu.Unlock()
		return
	case c.opt.Handler == nil:
		c.mu.Unlock()
		c.refuse(in, errs.New(errs.FailedPrecondition, "this end of the connection takes no calls"))
		return
	case c.running < c.opt.MaxInbound:
		c.running++
		c.mu.Unlock()
		c.ready = in
	case len(c.waiting) < c.opt.MaxWaiting:
		c.waiting = append(c.waiting, in)
		c.mu.Unlock()
	default:
		c.mu.Unlock()
		c.refuse(in, errs.New(errs.ResourceExhausted, "%d calls run and %d wait on this connection", c.opt.MaxInbound, max(c.opt.MaxWaiting, 0)))
	}
}

// dispatch gives a call, or the role of the reader, to a goroutine.
func (c *Conn) dispatch(in *inbound) {
	c.mu.Lock()
	var w *worker
	if n := len(c.idle); n > 0 {
		w = c.idle[n-1]
		c.idle = c.idle[:n-1]
	}
	c.mu.Unlock()
	if w == nil {
		w = &worker{work: make(chan *inbound, 1)}
		go c.work(w)
	}
	w.work <- in
}

func (c *Conn) work(w *worker) {
	for in := range w.work {
		if in == nil {
			if in = c.read(); in == nil {
				return // the connection has ended
			}
			c.dispatch(nil)
		}
		for in != nil {
			c.run(in)
			in = c.finish(in, w)
		}
	}
}

// finish takes a call off the books and returns the next one that waited, if any;
// otherwise the worker is idle, or superfluous.
func (c *Conn) finish(in *inbound, w *worker) (next *inbound) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.inbound, in.id)
	if c.err != nil {
		close(w.work)
		return nil
	}
	// The sender of a stream may outlive its handler by mistake; it must not reach into
	// another call.
	if len(c.free) < 1024 && cap(in.body) <= MaxFrame && !in.call.Stream {
		*in = inbound{body: in.body[:0]}
		c.free = append(c.free, in)
	}
	if len(c.waiting) > 0 {
		next = c.waiting[0]
		c.waiting = c.waiting[1:]
		return next
	}
	c.running--
	c.checkQuiet()
	if len(c.idle) < maxIdleWorkers {
		c.idle = append(c.idle, w)
	} else {
		close(w.work)
	}
	return nil
}

// run runs the handler of one call and sends its answer.
func (c *Conn) run(in *inbound) {
	var reply *message.Reply
	if err := in.ctx.Err(); err != nil {
		reply = &message.Reply{Err: errs.From(err).In("link", "call "+in.call.Method).Unstarted()}
	} else {
		reply = c.handle(in)
	}
	in.ctx.cancel(context.Canceled)
	// The answer waits for credit whatever the context says: the caller decides, by
	// cancelling.
	c.answer(in, reply)
}

// handle calls the handler; a panic costs this call only.
func (c *Conn) handle(in *inbound) (reply *message.Reply) {
	defer func() {
		if r := recover(); r != nil {
			c.opt.Log.Error("a handler panicked", "method", in.call.Method, "panic", fmt.Sprint(r), "stack", string(debug.Stack()))
			reply = &message.Reply{Err: errs.New(errs.Internal, "the handler of %s panicked", in.call.Method)}
		}
	}()
	if in.call.Stream {
		reply = c.opt.Handler.HandleStream(in.ctx, &in.call, &sender{conn: c, in: in})
	} else {
		reply = c.opt.Handler.HandleCall(in.ctx, &in.call)
	}
	if reply == nil {
		reply = &message.Reply{Err: errs.New(errs.Internal, "the handler of %s gave no answer", in.call.Method)}
	}
	if e := message.CheckPayload(len(reply.Body)); e != nil {
		e.NotStarted = false // the handler has run
		reply = &message.Reply{Err: e, Headers: reply.Headers, Trailers: reply.Trailers}
	}
	return reply
}

// answer sends the reply of in. What is over 16 KiB goes ahead in DATA frames.
func (c *Conn) answer(in *inbound, r *message.Reply) {
	body := r.Body
	for len(body) > MaxData {
		if c.sendPiece(context.Background(), in, body[:MaxData], true) != nil {
			return
		}
		body = body[MaxData:]
	}
	c.mu.Lock()
	for len(body) > 0 && c.err == nil && !in.gone && (in.credit < len(body) || c.credit < len(body)) {
		if c.waitSpace(context.Background()) != nil {
			break
		}
	}
	if c.err != nil || in.gone {
		c.mu.Unlock()
		return
	}
	var at int
	c.out, at = appendReply(c.out, &c.names, in.id, r)
	if len(c.out)-at-headerLen > MaxFrame-MaxData {
		c.out = c.out[:at]
		e := errs.New(errs.ResourceExhausted, "the answer's headers, trailers and details take more than %d bytes", MaxFrame-MaxData)
		e.Retryable = false
		c.out, at = appendReply(c.out, &c.names, in.id, &message.Reply{Err: e})
		body = nil
	}
	c.out = append(c.out, body...)
	c.credit -= len(body)
	setLength(c.out, at)
	// The other end may reuse nothing of this stream, and neither does this one.
	delete(c.inbound, in.id)
	lead := c.lead()
	c.mu.Unlock()
	if lead {
		c.flush(4)
	}
}

// refuse answers a call that was not started; called by the reader, so it never waits.
func (c *Conn) refuse(in *inbound, e *errs.Error) {
	c.mu.Lock()
	delete(c.inbound, in.id)
	if c.err != nil {
		c.mu.Unlock()
		return
	}
	var at int
	c.out, at = appendReply(c.out, &c.names, in.id, &message.Reply{Err: e.In("link", "call "+in.call.Method).Unstarted()})
	setLength(c.out, at)
	full := len(c.out) > hardQueue
	c.checkQuiet()
	lead := c.lead()
	c.mu.Unlock()
	if full {
		c.fail(lost(fmt.Errorf("the other end calls but does not read")))
	} else if lead {
		go c.flush(4)
	}
}

// sendPiece sends one DATA frame of an answer, waiting for credit and space.
func (c *Conn) sendPiece(ctx context.Context, in *inbound, piece []byte, more bool) error {
	c.mu.Lock()
	for c.err == nil && !in.gone && (in.credit < len(piece) || c.credit < len(piece) || len(c.out) > bulkQueue) {
		if err := c.waitSpace(ctx); err != nil && c.err == nil && !in.gone {
			c.mu.Unlock()
			return errs.From(err)
		}
	}
	if c.err != nil || in.gone {
		err := c.err
		c.mu.Unlock()
		if err == nil {
			err = context.Canceled
		}
		return errs.From(err)
	}
	var flags byte
	if more {
		flags = flagMore
	}
	c.out = appendHeader(c.out, frameData, flags, in.id, len(piece))
	c.out = append(c.out, piece...)
	in.credit -= len(piece)
	c.credit -= len(piece)
	lead := c.lead()
	c.mu.Unlock()
	if lead {
		// A stream goes on: let its producer fill the next write meanwhile.
		go c.flush(1 << 30)
	}
	return nil
}

// sender is the sending end of a stream, for its handler.
type sender struct {
	conn    *Conn
	in      *inbound
	headers bool
	sent    bool
}

// SendHeaders implements message.Sender.
func (s *sender) SendHeaders(pairs []message.Pair) error {
	if s.headers || s.sent {
		return errs.New(errs.FailedPrecondition, "the headers were sent already")
	}
	if e := message.CheckHeaders(pairs); e != nil {
		return e
	}
	s.headers = true
	c := s.conn
	c.mu.Lock()
	if c.err != nil || s.in.gone {
		c.mu.Unlock()
		return errs.New(errs.Canceled, "the receiver of the stream is gone")
	}
	for i := range pairs {
		c.out = c.names.define(c.out, pairs[i].Key)
	}
	at := len(c.out)
	c.out = appendHeader(c.out, frameHeaders, 0, s.in.id, 0)
	c.out = append(c.out, byte(s.in.call.ContentType))
	c.out = appendPairs(c.out, &c.names, pairs)
	setLength(c.out, at)
	lead := c.lead()
	c.mu.Unlock()
	if lead {
		c.flush(4)
	}
	return nil
}

// Send implements message.Sender.
func (s *sender) Send(body []byte) error {
	if e := message.CheckPayload(len(body)); e != nil {
		e.NotStarted = false
		return e
	}
	s.sent = true
	for len(body) > MaxData {
		if err := s.conn.sendPiece(s.in.ctx, s.in, body[:MaxData], true); err != nil {
			return err
		}
		body = body[MaxData:]
	}
	return s.conn.sendPiece(s.in.ctx, s.in, body, false)
}
