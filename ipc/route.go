package ipc

import (
	"telford.dev/telford/internal/ipcwire"
)

// call takes a CALL: the checks, in the order of the wire, and then the way to the
// target.
func (c *conn) call(frame []byte) {
	e := &c.env
	g := c.g
	switch e.Context.Kind {
	case ipcwire.Object:
	case ipcwire.Absent, ipcwire.Null:
		c.deny(CodeExecutionFailed, "Cannot read properties of "+e.Context.Shown()+" (reading 'deadline')", typeError)
		return
	default:
		c.deny(CodeInvalidContext, "Message context is not an object", ipcError)
		return
	}
	if deadline, ok := e.Deadline.Float(); ok && float64(c.now.UnixMilli()) > deadline {
		c.deny(CodeDeadlineExceeded, "Request deadline exceeded", ipcError)
		return
	}
	if depth, ok := e.Depth.Float(); ok && depth > MaxDepth {
		c.deny(CodeMaxDepthExceeded, "Maximum call depth exceeded", ipcError)
		return
	}
	callers, err := c.sender()
	if err != nil {
		c.deny(err.Code, err.Message, ipcError)
		return
	}
	g.mu.RLock()
	s := g.services[string(e.To.Text)]
	g.mu.RUnlock()
	if h := &g.cfg.Hooks; h.Authorize != nil {
		if err := h.Authorize(c.callInfo()); err != nil {
			code, message := wireError(err)
			c.deny(code, message, ipcError)
			return
		}
	}
	if s == nil {
		if !g.resolve(c, callers) {
			c.deny(CodeServiceNotFound, "Target service '"+e.To.Shown()+"' not found", ipcError)
		}
		return
	}
	c.forward(s, callers, frame)
}

// sender is the service that calls: the one of this connection that the message names.
// A connection without a service may use any name that nobody holds.
func (c *conn) sender() (*service, *Error) {
	from := c.env.From
	for _, s := range c.services {
		if from.Is(s.name) {
			return s, nil
		}
	}
	if len(c.services) == 0 {
		c.g.mu.RLock()
		held := c.g.services[string(from.Text)] != nil
		c.g.mu.RUnlock()
		if !held {
			return nil, nil
		}
	} else if from.Kind == ipcwire.Absent {
		return c.services[0], nil // it expects no answer, and is told of failures on its connection
	}
	return nil, Errorf(CodeInvalidMessage, "Message from '%s' on a connection that is not registered as that", from.Shown())
}

// forward hands a CALL to the next connection of its target, as it came or rewritten
// for a target of the other encoding.
func (c *conn) forward(s, callers *service, frame []byte) {
	e := &c.env
	f := flight{to: s.name, caller: c, callers: callers, expires: c.now.Add(c.g.cfg.Timeout).UnixMilli()}
	if e.ID.Kind == ipcwire.String && e.From.Kind == ipcwire.String && len(e.ID.Text) > 0 {
		f.key.id = string(e.ID.Text)
		if callers != nil {
			f.key.from = callers.name
		} else {
			f.key.from = string(e.From.Text)
		}
	}
	if deadline, ok := e.Deadline.Float(); ok && deadline < 1<<53 {
		f.expires, f.own = int64(deadline)+grace.Milliseconds(), true
	}
	target, refusal := s.begin(f, c.g.cfg.MaxInFlight)
	if refusal != nil {
		c.deny(refusal.Code, refusal.Message, ipcError)
		return
	}
	e.Narrow()
	frame, err := c.fit(frame, target)
	if err != nil {
		s.forget(f.key)
		c.deny(CodeSerializationFailed, "Failed to serialize message: "+err.Error(), ipcError)
		return
	}
	if c.post(target, frame) != nil {
		// It is closed, or has just been for its slowness: this call is among those that
		// leave answers, unless that has been already.
		c.g.leave(target)
		if s.forget(f.key) {
			c.deny(CodeConnectionLost, "Connection to service '"+s.name+"' was lost", ipcError)
		}
		return
	}
	if c.g.cfg.Events.CallRouted != nil {
		c.g.cfg.Events.CallRouted(CallRoutedEvent{
			From: e.From.Shown(), To: s.name, Method: e.Method.Shown(), RequestID: e.ID.Shown(), Context: e.ReadContext(),
		})
	}
}

// fit is the frame in the encoding of d.
func (c *conn) fit(frame []byte, d *conn) ([]byte, error) {
	if d.encoding() == c.env.Encoding {
		return frame, nil
	}
	out, err := ipcwire.Transcode(ipcwire.Begin(c.buf[:0]), frame[ipcwire.HeaderSize:], c.env.Encoding, ipcwire.BlobsAsBuffers)
	if err != nil {
		return nil, err
	}
	c.buf = out
	if len(out)-ipcwire.HeaderSize > MaxFrame {
		c.buf = nil
		return nil, Errorf(CodeSerializationFailed, "it has %d bytes in %s, the limit is %d", len(out), d.encoding(), MaxFrame)
	}
	return ipcwire.Finish(out, 0), nil
}

// deny tells the caller twice that its CALL goes nowhere: by an ERROR, as it always was,
// and by a RESPONSE, which ends the call at once.
func (c *conn) deny(code Code, message, stack string) {
	e := &c.env
	c.complain(e.ID, code, message, stack)
	if e.ID.Kind != ipcwire.String {
		return
	}
	var ctx []byte
	if e.Context.Kind == ipcwire.Object {
		ctx = e.Context.Raw
	}
	r := ipcwire.Reply{ID: string(e.ID.Text), From: string(e.To.Text), To: string(e.From.Text)}
	c.buf = ipcwire.AppendFailure(c.buf[:0], c.encoding(), r, string(code), message, stack+": "+message, ctx)
	_ = c.post(c, c.buf) // a connection that is closed learns nothing more
}

// response takes a RESPONSE to whoever called. One that answers no call of its sender is
// dropped.
func (c *conn) response(frame []byte) {
	e := &c.env
	var f flight
	found := false
	for _, s := range c.services {
		if f, found = s.end(e.To.Text, e.ID.Text); found {
			break
		}
	}
	if !found {
		if c.g.logs() {
			c.g.log("response to no call dropped", map[string]any{"to": e.To.Shown(), "id": e.ID.Shown()})
		}
		return
	}
	if f.reply != nil {
		f.reply(c.answer(&f))
		return
	}
	d := f.destination()
	if d == nil {
		return
	}
	e.Narrow()
	out, err := c.fit(frame, d)
	if err != nil {
		f.fail(CodeSerializationFailed, "Failed to serialize message: "+err.Error())
		return
	}
	if c.post(d, out) != nil {
		c.g.leave(d)
		return
	}
	if c.g.cfg.Events.ResponseRouted != nil {
		c.g.cfg.Events.ResponseRouted(ResponseRoutedEvent{From: f.to, To: f.key.from, Status: e.Status.Shown(), RequestID: f.key.id})
	}
}
