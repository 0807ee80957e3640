package link

import (
	"context"
	"encoding/binary"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// call is one outbound call. Unary ones are reused, with their channel and timer:
// whoever removes a call from Conn.calls completes it, exactly once.
type call struct {
	id    uint64
	done  chan struct{} // one token when reply or err is set
	reply *message.Reply
	err   *errs.Error
	// start is where the OPEN frame begins in what was ever queued.
	start uint64
	// credit is what may still be sent of the body of the request, for large ones.
	credit int
	// recv and body collect a large answer; of the reader alone.
	recv   window
	body   []byte
	stream *clientStream
	timer  *time.Timer
}

func (c *Conn) newCall() *call {
	if n := len(c.freeCalls); n > 0 {
		p := c.freeCalls[n-1]
		c.freeCalls = c.freeCalls[:n-1]
		return p
	}
	return &call{done: make(chan struct{}, 1)}
}

// recycle gives back a unary call that was completed and received.
func (c *Conn) recycle(p *call) {
	p.reply, p.err, p.body, p.stream = nil, nil, nil, nil
	c.mu.Lock()
	if len(c.freeCalls) < 1024 {
		c.freeCalls = append(c.freeCalls, p)
	}
	c.mu.Unlock()
}

// lose completes a call whose connection has ended.
func (p *call) lose(cause error, unwritten bool) {
	e := errs.New(errs.Unavailable, "the connection was lost while the call was under way, so that it is unknown whether it ran: %v", cause)
	if unwritten {
		e = errs.New(errs.Unavailable, "the connection was lost before the call was sent: %v", cause).Unstarted()
	}
	e = e.In("link", "").WithCause(ErrEnded)
	if p.stream != nil {
		p.stream.end(&message.Reply{Err: e})
		return
	}
	p.err = e
	p.done <- struct{}{}
}

func ended(m *message.Call, format string, args ...any) *errs.Error {
	return errs.New(errs.Unavailable, format, args...).In("link", "call "+m.Method).Unstarted().WithCause(ErrEnded)
}

// remaining returns how long a call has, 0 for ever. It is refused when nothing is left.
func remaining(ctx context.Context, m *message.Call) (time.Duration, *errs.Error) {
	deadline := m.Deadline
	if d, ok := ctx.Deadline(); ok && (deadline.IsZero() || d.Before(deadline)) {
		deadline = d
	}
	if err := ctx.Err(); err != nil {
		return 0, errs.From(err).In("link", "call "+m.Method).Unstarted()
	}
	if deadline.IsZero() {
		return 0, nil
	}
	left := time.Until(deadline)
	if left <= 0 {
		return 0, errs.New(errs.DeadlineExceeded, "the deadline had passed before the call was sent").In("link", "call "+m.Method).Unstarted()
	}
	return left, nil
}

// Call runs a unary call on the other end.
func (c *Conn) Call(ctx context.Context, m *message.Call) (*message.Reply, error) {
	left, e := remaining(ctx, m)
	if e == nil {
		e = message.CheckPayload(len(m.Body))
	}
	if e == nil && len(m.Headers) > 0 {
		e = message.CheckHeaders(m.Headers)
	}
	if e != nil {
		return nil, e
	}
	c.mu.Lock()
	p, lead, rest, err := c.open(ctx, m, left)
	c.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if lead {
		c.flush(4)
	}
	// Most callers bring their deadline in the context as well; then its own timer does.
	var timer <-chan time.Time
	if d, ok := ctx.Deadline(); left > 0 && (!ok || (!m.Deadline.IsZero() && m.Deadline.Before(d))) {
		if p.timer == nil {
			p.timer = time.NewTimer(left)
		} else {
			p.timer.Reset(left)
		}
		timer = p.timer.C
	}
	if len(rest) > 0 {
		c.sendRest(ctx, left, p, rest)
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		err = ctx.Err()
	case <-timer:
		err = context.DeadlineExceeded
	}
	if timer != nil {
		p.timer.Stop()
	}
	if err != nil && c.abandon(p) {
		c.recycle(p)
		return nil, errs.From(err).In("link", "call "+m.Method)
	}
	if err != nil {
		<-p.done // it was being completed at that moment
	}
	reply, failed := p.reply, p.err
	c.recycle(p)
	if failed != nil {
		return nil, failed
	}
	if reply.Err != nil && reply.Err.NotStarted {
		return nil, reply.Err
	}
	return reply, nil
}

// open queues the OPEN frame of m, with mu held. rest is what of the body did not go
// with it.
func (c *Conn) open(ctx context.Context, m *message.Call, left time.Duration) (p *call, lead bool, rest []byte, err error) {
	for {
		switch {
		case c.err != nil:
			return nil, false, nil, ended(m, "the connection has ended: %v", c.err)
		case c.drained:
			return nil, false, nil, ended(m, "the connection was drained")
		case c.peerGone:
			return nil, false, nil, ended(m, "the other end takes no more calls on this connection")
		case c.nextStream >= maxStream-1:
			return nil, false, nil, ended(m, "the connection has used up its stream numbers")
		}
		if len(c.out) < maxQueue {
			break
		}
		if err := c.waitSpace(ctx); err != nil && c.err == nil {
			return nil, false, nil, errs.From(err).In("link", "call "+m.Method).Unstarted()
		}
	}
	p = c.newCall()
	p.id = c.nextStream
	c.nextStream += 2
	p.credit = StreamWindow
	p.recv = newWindow(StreamWindow)
	first := m.Body
	if len(first) > MaxData || len(first) > c.credit {
		first = nil
	}
	rest = m.Body[len(first):]
	var at int
	start := len(c.out)
	c.out, at = appendCall(c.out, &c.names, p.id, m, left)
	if len(c.out)-at-headerLen > MaxFrame-MaxData {
		// The names defined on the way stay defined: cut the OPEN frame alone.
		c.out = c.out[:at]
		lead = c.lead()
		e := errs.New(errs.ResourceExhausted, "the call's headers, chain and names take more than %d bytes", MaxFrame-MaxData).In("link", "call "+m.Method).Unstarted()
		e.Retryable = false
		c.freeCalls = append(c.freeCalls, p)
		if lead {
			go c.flush(4)
		}
		return nil, false, nil, e
	}
	p.start = c.base + uint64(start)
	c.out = append(c.out, first...)
	c.credit -= len(first)
	p.credit -= len(first)
	setLength(c.out, at)
	if len(rest) > 0 {
		c.out[at+4] |= flagMore
	}
	c.calls[p.id] = p
	return p, c.lead(), rest, nil
}

// sendRest sends the rest of the body of a request, as credit allows, for as long as the
// call has; left is 0 for ever. Failures show up where the answer is awaited.
func (c *Conn) sendRest(ctx context.Context, left time.Duration, p *call, rest []byte) {
	if left > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, left)
		defer cancel()
	}
	for len(rest) > 0 {
		c.mu.Lock()
		for c.err == nil && c.calls[p.id] == p && (min(p.credit, c.credit) < min(len(rest), MaxData) || len(c.out) > bulkQueue) {
			if c.waitSpace(ctx) != nil {
				break
			}
		}
		if c.err != nil || c.calls[p.id] != p || ctx.Err() != nil {
			c.mu.Unlock()
			return
		}
		piece := rest[:min(len(rest), MaxData)]
		rest = rest[len(piece):]
		var flags byte
		if len(rest) > 0 {
			flags = flagMore
		}
		c.out = appendHeader(c.out, frameData, flags, p.id, len(piece))
		c.out = append(c.out, piece...)
		c.credit -= len(piece)
		p.credit -= len(piece)
		lead := c.lead()
		c.mu.Unlock()
		if lead {
			c.flush(4)
		}
	}
}

// abandon gives up a call that nobody has completed yet and tells the other end.
func (c *Conn) abandon(p *call) bool {
	c.mu.Lock()
	if c.calls[p.id] != p {
		c.mu.Unlock()
		return false
	}
	delete(c.calls, p.id)
	c.out = appendHeader(c.out, frameCancel, 0, p.id, 0)
	c.checkQuiet()
	lead := c.lead()
	c.mu.Unlock()
	if lead {
		c.flush(4)
	}
	return true
}

// grant gives credit back, for one stream and for the connection.
func (c *Conn) grant(stream uint64, n int) {
	c.sendControlFrame(frameWindow, stream, binary.BigEndian.AppendUint32(nil, uint32(n))...)
}
