package link

import (
	"context"
	"encoding/binary"
	"errors"
	"math"
	"runtime"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// read takes in frames. One goroutine at a time is the reader: on a connection that is
// otherwise quiet it hands its role to another goroutine and runs the handler of a call
// itself, which therefore does not wait for a goroutine to wake. It returns that call, or
// nil when the connection has ended.
func (c *Conn) read() (alone *inbound) {
	for {
		if !c.in.buffered() {
			if in := c.ready; in != nil {
				c.ready = nil
				if c.quietNow() {
					return in
				}
				c.dispatch(in)
			}
			if c.answered {
				// Those who wait for what has arrived go first.
				c.answered = false
				runtime.Gosched()
			}
			c.lastRead.Store(c.opt.Clock.Now().UnixNano())
		} else if in := c.ready; in != nil {
			c.ready = nil
			c.dispatch(in)
		}
		h, p, err := c.in.next()
		if err == nil {
			err = c.receive(h, p)
		}
		if err == nil {
			continue
		}
		var e *errs.Error
		if errors.As(err, &e) {
			c.opt.Log.Warn("closing a connection", "remote", c.nc.RemoteAddr().String(), "error", e)
			c.Close(e)
			return nil
		}
		c.fail(lost(err))
		return nil
	}
}

// quietNow reports whether nothing but one inbound call is under way.
func (c *Conn) quietNow() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.running <= 1 && len(c.calls) == 0
}

func (c *Conn) receive(h header, p []byte) error {
	switch h.kind {
	case frameOpen:
		return c.receiveOpen(h, p)
	case frameData:
		return c.receiveData(h, p)
	case frameReply:
		return c.receiveReply(h, p)
	case frameHeaders:
		return c.receiveHeaders(h, p)
	case frameCancel:
		c.mu.Lock()
		in := c.inbound[h.stream]
		if in == nil {
			c.mu.Unlock()
			return nil
		}
		in.gone = true
		in.ctx.cancel(context.Canceled)
		c.wakeWaiters()
		if !in.admitted {
			c.forget(in)
		}
		c.mu.Unlock()
		return nil
	case frameWindow:
		return c.receiveWindow(h, p)
	case frameDefine:
		return c.peerNames.define(p)
	case frameControl:
		return c.receiveControl(h, p)
	case framePing:
		if len(p) != 8 {
			return protocolError("a PING of %d bytes", len(p))
		}
		c.sendControlFrame(framePong, 0, p...)
		return nil
	case framePong:
		if len(p) != 8 {
			return protocolError("a PONG of %d bytes", len(p))
		}
		id := binary.BigEndian.Uint64(p)
		c.mu.Lock()
		if pong := c.pings[id]; pong != nil {
			close(pong)
			delete(c.pings, id)
		}
		c.mu.Unlock()
		return nil
	case frameGoAway:
		c.mu.Lock()
		c.peerGone = true
		c.out = appendHeader(c.out, frameGoAwayAck, 0, 0, 0)
		c.wakeWaiters()
		lead := c.lead()
		c.mu.Unlock()
		if lead {
			go c.flush(math.MaxInt)
		}
		return nil
	case frameGoAwayAck:
		c.mu.Lock()
		c.goAwayAck = true
		c.checkQuiet()
		c.mu.Unlock()
		return nil
	case frameClose:
		cur := cursor{p: p}
		e := cur.status()
		if cur.err != nil {
			return cur.err
		}
		c.fail(errs.New(errs.Unavailable, "the other end closed the connection: %w", e))
		return nil
	default:
		if h.kind >= optionalFrame {
			return nil
		}
		return protocolError("a frame of type %d", h.kind)
	}
}

func (c *Conn) receiveOpen(h header, p []byte) error {
	// Streams of the other end have the other parity than ours, and increase.
	if h.stream%2 == c.parity || h.stream <= c.lastInbound {
		return protocolError("stream %d was opened after %d", h.stream, c.lastInbound)
	}
	c.lastInbound = h.stream
	c.mu.Lock()
	var in *inbound
	if n := len(c.free); n > 0 {
		in = c.free[n-1]
		c.free = c.free[:n-1]
	} else {
		in = new(inbound)
	}
	c.mu.Unlock()
	in.id = h.stream
	in.credit = StreamWindow
	now := time.Now()
	if err := decodeCall(p, &c.peerNames, &in.call, now); err != nil {
		return err
	}
	in.ctx = &callContext{deadline: in.call.Deadline}
	in.body = append(in.body[:0], in.call.Body...)
	in.call.Body = in.body
	if err := c.arrived(len(in.body)); err != nil {
		return err
	}
	more := h.flags&flagMore != 0
	in.admitted = !more
	if more {
		in.recv = newWindow(StreamWindow)
		in.recv.arrive(len(in.body))
	}
	c.mu.Lock()
	c.inbound[in.id] = in
	c.mu.Unlock()
	if !more {
		c.admit(in)
	}
	return nil
}

// arrived counts n bytes of bodies against the window of the connection and gives the
// credit back at once: what the streams may hold is bounded by theirs.
func (c *Conn) arrived(n int) error {
	if n == 0 {
		return nil
	}
	if !c.recv.arrive(n) {
		return protocolError("the other end sent more than the connection's window")
	}
	if give := c.recv.consume(n, time.Now, c.roundTrip()); give > 0 {
		c.grant(0, give)
	}
	return nil
}

func (c *Conn) receiveData(h header, p []byte) error {
	if len(p) > MaxData {
		return protocolError("a DATA frame of %d bytes", len(p))
	}
	if err := c.arrived(len(p)); err != nil {
		return err
	}
	more := h.flags&flagMore != 0
	if h.stream%2 == c.parity {
		return c.receiveAnswer(h.stream, p, more)
	}
	c.mu.Lock()
	in := c.inbound[h.stream]
	if in == nil || in.admitted {
		unknown := in == nil
		c.mu.Unlock()
		if unknown {
			return nil // refused or cancelled meanwhile
		}
		return protocolError("stream %d goes on after its end", h.stream)
	}
	c.mu.Unlock()
	if !in.recv.arrive(len(p)) {
		return protocolError("stream %d sent more than its window", h.stream)
	}
	if len(in.body)+len(p) > message.MaxPayload {
		c.drop(in, message.CheckPayload(len(in.body)+len(p)))
		return nil
	}
	if c.assembly.Add(int64(len(p))) > maxAssembly {
		c.assembly.Add(-int64(len(p)))
		c.drop(in, errs.New(errs.ResourceExhausted, "over %d bytes of incomplete requests are held for this connection", maxAssembly))
		return nil
	}
	in.held += len(p)
	in.body = append(in.body, p...)
	if give := in.recv.consume(len(p), time.Now, c.roundTrip()); give > 0 && more {
		c.grant(h.stream, give)
	}
	if more {
		return nil
	}
	c.mu.Lock()
	c.assembly.Add(-int64(in.held))
	in.held = 0
	in.admitted = true
	in.call.Body = in.body
	c.mu.Unlock()
	c.admit(in)
	return nil
}

// drop refuses a call whose body is still arriving.
func (c *Conn) drop(in *inbound, e *errs.Error) {
	c.mu.Lock()
	c.forget(in)
	c.mu.Unlock()
	c.refuse(in, e)
}

// forget takes a call whose body is incomplete off the books, with mu held.
func (c *Conn) forget(in *inbound) {
	c.assembly.Add(-int64(in.held))
	in.held = 0
	delete(c.inbound, in.id)
	c.checkQuiet()
}

func (c *Conn) receiveAnswer(stream uint64, p []byte, more bool) error {
	c.mu.Lock()
	out := c.calls[stream]
	if out != nil && out.stream != nil {
		c.mu.Unlock()
		return out.stream.arrive(p, more)
	}
	// A unary call is reused once it is given up, so that it is touched under mu only.
	give, err := 0, error(nil)
	if out != nil {
		give, err = out.collect(p)
	}
	c.mu.Unlock()
	if give > 0 {
		c.grant(stream, give)
	}
	return err
}

// collect adds a piece of a large answer and returns the credit to give back.
func (p *call) collect(b []byte) (give int, err error) {
	if !p.recv.arrive(len(b)) {
		return 0, protocolError("stream %d sent more than its window", p.id)
	}
	if len(p.body)+len(b) > message.MaxPayload {
		return 0, protocolError("the answer of stream %d is over the limit of %d bytes", p.id, message.MaxPayload)
	}
	p.body = append(p.body, b...)
	return p.recv.consume(len(b), time.Now, 0), nil
}

func (c *Conn) receiveReply(h header, p []byte) error {
	if h.stream%2 != c.parity {
		return protocolError("a REPLY for stream %d, which the other end opened", h.stream)
	}
	r := new(message.Reply)
	body, err := decodeReply(p, &c.peerNames, r)
	if err != nil {
		return err
	}
	if err := c.arrived(len(body)); err != nil {
		return err
	}
	c.mu.Lock()
	out := c.calls[h.stream]
	if out != nil {
		delete(c.calls, h.stream)
		c.checkQuiet()
	}
	c.answered = len(c.calls) == 0
	c.mu.Unlock()
	switch {
	case out == nil:
		return nil // cancelled meanwhile
	case out.stream != nil:
		out.stream.end(r)
		return nil
	}
	r.Body = append(out.body, body...)
	out.reply = r
	out.done <- struct{}{}
	return nil
}

func (c *Conn) receiveHeaders(h header, p []byte) error {
	cur := cursor{p: p}
	kind := message.ContentType(cur.byte("the content type"))
	pairs := cur.pairs(&c.peerNames)
	if cur.err != nil {
		return cur.err
	}
	c.mu.Lock()
	out := c.calls[h.stream]
	c.mu.Unlock()
	if out != nil && out.stream != nil {
		out.stream.setHeaders(kind, pairs)
	}
	return nil
}

func (c *Conn) receiveWindow(h header, p []byte) error {
	if len(p) != 4 {
		return protocolError("a WINDOW frame of %d bytes", len(p))
	}
	n := int(binary.BigEndian.Uint32(p))
	if n == 0 || n > 2*MaxWindow {
		return protocolError("a WINDOW of %d bytes", n)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	credit := &c.credit
	if h.stream != 0 {
		if in := c.inbound[h.stream]; in != nil {
			credit = &in.credit
		} else if out := c.calls[h.stream]; out != nil {
			credit = &out.credit
		} else {
			return nil // ended meanwhile
		}
	}
	if *credit += n; *credit > 2*MaxWindow {
		return protocolError("the credit of stream %d grew over %d bytes", h.stream, 2*MaxWindow)
	}
	c.wakeWaiters()
	return nil
}

func (c *Conn) receiveControl(h header, p []byte) error {
	if c.opt.Control == nil {
		return protocolError("a CONTROL frame on a connection that carries none")
	}
	if h.flags&flagMore == 0 && len(c.control) == 0 {
		c.opt.Control(p)
		return nil
	}
	if len(c.control)+len(p) > MaxControl {
		return protocolError("a control message is over the limit of %d bytes", MaxControl)
	}
	c.control = append(c.control, p...)
	if h.flags&flagMore == 0 {
		c.opt.Control(c.control)
		c.control = nil
	}
	return nil
}
