package ipc

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"time"

	"telford.dev/telford/internal/ipcwire"
)

// CallOption changes one call.
type CallOption func(*callOptions)

type callOptions struct {
	timeout time.Duration
	retries int
}

// Timeout bounds a call otherwise than the client's Timeout does. A call inside a handler
// also ends with the deadline of the call that is being handled.
func Timeout(d time.Duration) CallOption { return func(o *callOptions) { o.timeout = d } }

// Retry tries a call that failed up to n more times, waiting about a second longer each
// time. It is for methods that may be done twice: after a timeout or a lost connection
// nobody knows whether the call was done. Calls to services and methods that are not
// there are not tried again, nor those whose deadline has passed.
func Retry(n int) CallOption { return func(o *callOptions) { o.retries = n } }

// pending is a call that waits for its answer.
type pending struct {
	link *link
	done chan reply // takes one
}

type reply struct {
	data []byte
	enc  Serializer
	err  *Error
}

// Call calls a method of another service with params, which are encoded as encoding/json
// does, and fills result, unless that is nil. Inside a handler, ctx carries the context of
// the call that is being handled, which this one extends. Failures are of type *Error.
func (c *Client) Call(ctx context.Context, service, method string, params, result any, options ...CallOption) error {
	o := callOptions{timeout: c.cfg.Timeout}
	for _, option := range options {
		option(&o)
	}
	if params == nil {
		params = struct{}{}
	}
	body, err := encodeValue(params, c.cfg.Serializer)
	if err != nil {
		return named(err, service, method, "")
	}
	for attempt := 0; ; attempt++ {
		err := c.once(ctx, service, method, body, result, o.timeout)
		if err == nil || attempt >= o.retries || !again(err) || ctx.Err() != nil {
			return err
		}
		wait := time.Duration(attempt+1) * time.Second
		timer := c.cfg.clock.NewTimer(wait - time.Duration(rand.Float64()*float64(wait)/4)) //nolint:gosec // it spreads attempts, and need not be secret
		select {
		case <-ctx.Done():
			timer.Stop()
			return err
		case <-timer.C():
		}
	}
}

// again reports whether another attempt could end otherwise.
func again(err error) bool {
	for _, final := range []Code{
		CodeMethodNotFound, CodeServiceNotFound, CodeDeadlineExceeded, CodeMaxDepthExceeded, CodeInvalidMessage,
		CodeInvalidContext, CodeSerializationFailed, CodeDeserializationFailed,
	} {
		if errors.Is(err, final) {
			return false
		}
	}
	return true
}

func named(err error, service, method, id string) error {
	var e *Error
	if errors.As(err, &e) {
		e.Target, e.Method, e.RequestID = service, method, id
	}
	return err
}

// once makes one attempt.
func (c *Client) once(ctx context.Context, service, method string, params []byte, result any, timeout time.Duration) error {
	now := c.cfg.clock.Now()
	id := newID("req", now)
	fail := func(code Code, format string, args ...any) error {
		return named(Errorf(code, format, args...), service, method, id)
	}
	ours, nested := FromContext(ctx)
	if nested {
		ours = ours.Extend(c.cfg.ServiceName)
	} else {
		deadline := now.Add(timeout)
		if d, ok := ctx.Deadline(); ok && d.Before(deadline) {
			deadline = d
		}
		ours = ipcwire.NewContext(c.cfg.ServiceName, newID("root", now), deadline)
	}
	if ours.Exceeded(now) {
		return fail(CodeDeadlineExceeded, "Request deadline already exceeded")
	}
	if ours.TooDeep() {
		return fail(CodeMaxDepthExceeded, "Maximum call depth exceeded")
	}
	timeout = min(timeout, ours.Remaining(now))
	head := ipcwire.Call{ID: id, From: c.cfg.ServiceName, To: service, Method: method}
	frame := ipcwire.AppendCall(make([]byte, 0, len(params)+256), c.cfg.Serializer, head, params, ours)
	if len(frame)-ipcwire.HeaderSize > MaxFrame {
		return fail(CodeSerializationFailed, "Failed to serialize message: it has %d bytes, the limit is %d", len(frame), MaxFrame)
	}
	p := &pending{done: make(chan reply, 1)}
	c.mu.Lock()
	if p.link = c.pick(); p.link == nil {
		c.mu.Unlock()
		return fail(CodeNotConnected, "Not connected to Gateway")
	}
	c.pending[id] = p
	c.mu.Unlock()
	if err := p.link.send(frame); err != nil {
		c.forget(id)
		return fail(CodeConnectionLost, "Cannot send message: %w", err)
	}
	p.link.flush()
	timer := c.cfg.clock.NewTimer(timeout)
	defer timer.Stop()
	select {
	case r := <-p.done:
		return c.result(r, service, method, id, result)
	case <-ctx.Done():
		c.forget(id)
		return fail(CodeTimeout, "Request given up: %w", context.Cause(ctx))
	case <-timer.C():
		c.forget(id)
		return fail(CodeTimeout, "Request timeout after %dms", timeout.Milliseconds())
	}
}

func (c *Client) result(r reply, service, method, id string, result any) error {
	if r.err != nil {
		return named(r.err, service, method, id)
	}
	if result == nil || r.data == nil {
		return nil
	}
	if err := decodeValue(r.data, r.enc, result); err != nil {
		return named(err, service, method, id)
	}
	return nil
}

func (c *Client) forget(id string) {
	c.mu.Lock()
	delete(c.pending, id)
	c.mu.Unlock()
}

// answered takes a RESPONSE. One that nobody waits for came too late and is dropped.
func (c *Client) answered(e *ipcwire.Envelope) {
	c.mu.Lock()
	p := c.pending[string(e.ID.Text)]
	delete(c.pending, string(e.ID.Text))
	c.mu.Unlock()
	if p == nil {
		if c.logs() {
			c.log("response to no call dropped", map[string]any{"id": e.ID.Shown()})
		}
		return
	}
	r := reply{enc: e.Encoding}
	event := ResponseReceivedEvent{Success: e.Status.Is(ipcwire.StatusSuccess)}
	if !event.Success {
		r.err = readFailure(e.Error, e.Encoding)
		event.Error = r.err.Message
	} else if e.Data.Present() {
		r.data = bytes.Clone(e.Data.Raw)
	}
	if c.cfg.Events.ResponseReceived != nil {
		event.RequestID = string(e.ID.Text)
		c.cfg.Events.ResponseReceived(event)
	}
	p.done <- r
}
