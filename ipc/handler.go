package ipc

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"telford.dev/telford/internal/ipcwire"
)

// Handler does a method. ctx ends with the deadline of the call and when the client
// disconnects, and carries the context of the call, which calls made with it extend.
// What is returned is encoded as encoding/json does. Of an *Error the caller sees the
// code, of every other error CodeExecutionFailed.
type Handler func(ctx context.Context, params Params) (any, error)

// Params are the parameters of a call.
type Params struct {
	raw []byte
	enc Serializer
}

// Decode fills v as encoding/json does. Without parameters v stays as it is.
func (p Params) Decode(v any) error { return decodeValue(p.raw, p.enc, v) }

// JSON returns the parameters as JSON, nil when there are none.
func (p Params) JSON() (json.RawMessage, error) { return asJSON(p.raw, p.enc) }

// RegisterMethod lets others call a method, also while connected: a gateway of this
// package is told at once, every other with the next connection, and calls come through
// in any case. A method that was there is replaced.
func (c *Client) RegisterMethod(method string, h Handler) {
	c.mu.Lock()
	c.methods[method] = h
	c.version++
	c.mu.Unlock()
	c.announce()
}

// Handle registers a method of typed parameters and result.
func Handle[P, R any](c *Client, method string, h func(ctx context.Context, params P) (R, error)) {
	c.RegisterMethod(method, func(ctx context.Context, params Params) (any, error) {
		var p P
		if err := params.Decode(&p); err != nil {
			return nil, err
		}
		return h(ctx, p)
	})
}

// UnregisterMethod ends what RegisterMethod began. Calls that are being handled go on.
func (c *Client) UnregisterMethod(method string) {
	c.mu.Lock()
	delete(c.methods, method)
	c.version++
	c.mu.Unlock()
	c.announce()
}

// RegisteredMethods returns the names of the methods, in alphabetical order.
func (c *Client) RegisteredMethods() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.names()
}

// names is RegisteredMethods. The mutex is held.
func (c *Client) names() []string {
	names := make([]string, 0, len(c.methods))
	for name := range c.methods {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// inbound is a CALL that is being handled.
type inbound struct {
	link    *link
	reply   ipcwire.Reply
	enc     Serializer
	method  string
	context []byte // as it came, to be sent back
	call    Context
	params  Params
}

// called takes a CALL.
func (c *Client) called(l *link, e *ipcwire.Envelope) {
	in := &inbound{
		link: l, enc: e.Encoding, method: string(e.Method.Text), call: e.ReadContext(),
		reply:  ipcwire.Reply{ID: string(e.ID.Text), From: string(e.To.Text), To: string(e.From.Text)},
		params: Params{enc: e.Encoding},
	}
	if e.Context.Present() {
		in.context = bytes.Clone(e.Context.Raw)
	}
	if e.Params.Present() {
		in.params.raw = bytes.Clone(e.Params.Raw)
	}
	c.mu.Lock()
	h := c.methods[in.method]
	run := c.run
	c.mu.Unlock()
	switch {
	case in.call.Exceeded(c.cfg.clock.Now()):
		c.refuse(in, CodeDeadlineExceeded, "Request deadline exceeded")
	case h == nil:
		c.refuse(in, CodeMethodNotFound, "Method '"+in.method+"' not found")
	case c.handling.Add(1) > int64(c.cfg.MaxHandlers):
		c.handling.Add(-1)
		c.refuse(in, CodeExecutionFailed, fmt.Sprintf("the service handles %d calls already, which is its limit", c.cfg.MaxHandlers))
	default:
		go c.execute(run, in, h)
	}
}

// execute runs a handler, on its own goroutine, and answers.
func (c *Client) execute(run context.Context, in *inbound, h Handler) {
	defer c.handling.Add(-1)
	ctx := WithContext(run, in.call)
	if in.call.Deadline != 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, in.call.Remaining(c.cfg.clock.Now()))
		defer cancel()
	}
	data, err := handled(ctx, in.params, h)
	var body []byte
	if err == nil && data != nil {
		if body, err = encodeValue(data, in.enc); err == nil && len(body) > MaxFrame-len(in.context)-1024 {
			err = Errorf(CodeSerializationFailed, "Failed to serialize message: it has %d bytes, the limit is %d", len(body), MaxFrame)
		}
	}
	if err != nil {
		code, message := wireError(err)
		c.refuse(in, code, message)
		return
	}
	c.send(in, ipcwire.AppendSuccess(make([]byte, 0, len(body)+len(in.context)+256), in.enc, in.reply, body, in.context))
	c.executed(in, "")
}

// handled calls h, and makes a failure of a panic.
func handled(ctx context.Context, params Params, h Handler) (data any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = Errorf(CodeExecutionFailed, "the handler panicked: %v", p)
		}
	}()
	return h(ctx, params)
}

func (c *Client) refuse(in *inbound, code Code, message string) {
	c.send(in, ipcwire.AppendFailure(nil, in.enc, in.reply, string(code), message, "", in.context))
	c.executed(in, message)
}

// send answers on the connection that the call came by, or on another of the pool.
func (c *Client) send(in *inbound, frame []byte) {
	l := in.link
	if l.pipe.send(frame) != nil {
		c.mu.Lock()
		l = c.pick()
		c.mu.Unlock()
		if l == nil || l.pipe.send(frame) != nil {
			if c.logs() {
				c.log("response could not be sent", map[string]any{"id": in.reply.ID})
			}
			return
		}
	}
	l.flush()
}

func (c *Client) executed(in *inbound, failure string) {
	if c.cfg.Events.MethodExecuted != nil {
		c.cfg.Events.MethodExecuted(MethodExecutedEvent{Method: in.method, RequestID: in.reply.ID, Success: failure == "", Error: failure})
	}
}
