package ipc

import (
	"bytes"
	"context"
	"encoding/json"
	"sync/atomic"
	"time"

	"telford.dev/telford/internal/ipcwire"
)

// GatewayHooks let whoever embeds a gateway take part. They are called by the goroutine
// that reads the connection, which they hold up; nil ones cost nothing.
type GatewayHooks struct {
	// Admit may refuse a registration. The service is told the code and message of an
	// *Error; CodeExecutionFailed of every other.
	Admit func(Registration) error
	// Authorize may refuse a call, likewise.
	Authorize func(CallInfo) error
	// Resolve answers for names that no connected service holds, and reports whether it
	// does. It keeps the call and answers it from another goroutine.
	Resolve func(*ForeignCall) bool
}

// CallInfo describes a call.
type CallInfo struct {
	From, To, Method, RequestID string
	Context                     Context
	Peer                        Peer
}

// ForeignCall is a call to a name that no connected service holds. It is answered once,
// by Respond or Fail; what comes later is dropped.
type ForeignCall struct {
	CallInfo
	// Params are the parameters as JSON, nil when there are none.
	Params json.RawMessage
	// Gone is closed when the caller has left, so that the answer is of no use.
	Gone <-chan struct{}

	flight flight
	ctx    json.RawMessage
	done   atomic.Bool
}

func (c *conn) callInfo() CallInfo {
	e := &c.env
	return CallInfo{
		From: e.From.Shown(), To: e.To.Shown(), Method: e.Method.Shown(), RequestID: string(e.ID.Text),
		Context: e.ReadContext(), Peer: c.peer,
	}
}

// resolve offers the call to whoever embeds the gateway.
func (g *Gateway) resolve(c *conn, callers *service) bool {
	if g.cfg.Hooks.Resolve == nil {
		return false
	}
	e := &c.env
	params, err := asJSON(e.Params.Raw, e.Encoding)
	if err != nil {
		c.deny(CodeDeserializationFailed, err.Error(), ipcError)
		return true
	}
	ctx, err := asJSON(e.Context.Raw, e.Encoding)
	if err != nil {
		c.deny(CodeDeserializationFailed, err.Error(), ipcError)
		return true
	}
	info := c.callInfo()
	call := &ForeignCall{CallInfo: info, Params: bytes.Clone(params), Gone: c.gone, ctx: bytes.Clone(ctx)}
	call.flight = flight{key: callKey{info.From, info.RequestID}, to: info.To, caller: c, callers: callers}
	return g.cfg.Hooks.Resolve(call)
}

// Respond answers the call with data, which is JSON; nil is no data.
func (f *ForeignCall) Respond(data json.RawMessage) error {
	if f.done.Swap(true) {
		return nil
	}
	d := f.flight.destination()
	if d == nil {
		return nil
	}
	ctx := f.ctx
	if d.encoding() == Msgpack {
		var err error
		if data != nil {
			if data, err = ipcwire.Transcode(nil, data, JSON, ipcwire.BlobsAsBuffers); err == nil {
				ctx, err = ipcwire.Transcode(nil, ctx, JSON, ipcwire.BlobsAsBuffers)
			}
		} else {
			ctx, err = ipcwire.Transcode(nil, ctx, JSON, ipcwire.BlobsAsBuffers)
		}
		if err != nil {
			f.flight.fail(CodeSerializationFailed, "Failed to serialize message: "+err.Error())
			return Errorf(CodeSerializationFailed, "Failed to serialize message: %w", err)
		}
	} else if data != nil && !json.Valid(data) {
		f.flight.fail(CodeSerializationFailed, "Failed to serialize message: the answer is no JSON")
		return Errorf(CodeSerializationFailed, "Failed to serialize message: the answer is no JSON")
	}
	r := ipcwire.Reply{ID: f.RequestID, From: f.To, To: f.From}
	out := ipcwire.AppendSuccess(nil, d.encoding(), r, data, ctx)
	if len(out) > MaxFrame {
		f.flight.fail(CodeSerializationFailed, "Failed to serialize message: the answer is too large")
		return Errorf(CodeSerializationFailed, "Failed to serialize message: it has %d bytes, the limit is %d", len(out), MaxFrame)
	}
	if err := d.send(out); err != nil {
		return Errorf(CodeConnectionLost, "Connection to service '%s' was lost", f.From)
	}
	d.flush()
	return nil
}

// Fail answers the call with a failure.
func (f *ForeignCall) Fail(code Code, message string) {
	if !f.done.Swap(true) {
		f.flight.fail(code, message)
	}
}

// OutboundCall is a call that whoever embeds the gateway makes to a connected service.
type OutboundCall struct {
	From, To, Method string
	// Params is JSON; nil stands for an empty object.
	Params  json.RawMessage
	Context Context
}

// Call calls a connected service in the name of From, and returns its answer as JSON.
// Failures are of type *Error: those of the service with its code, a service that is
// not there with CodeServiceNotFound, the end of ctx with CodeTimeout.
func (g *Gateway) Call(ctx context.Context, call OutboundCall) (json.RawMessage, error) {
	g.mu.RLock()
	s := g.services[call.To]
	g.mu.RUnlock()
	fail := func(err *Error) error {
		err.Target, err.Method = call.To, call.Method
		return err
	}
	if s == nil {
		return nil, fail(notFound(call.To))
	}
	now := g.cfg.clock.Now()
	answers := make(chan answer, 1)
	f := flight{
		key: callKey{call.From, newID("req", now)}, to: s.name, own: true, expires: now.Add(24 * time.Hour).UnixMilli(),
		reply: func(a answer) { answers <- a },
	}
	target, refusal := s.begin(f, g.cfg.MaxInFlight)
	if refusal != nil {
		return nil, fail(refusal)
	}
	params := call.Params
	if params == nil {
		params = json.RawMessage("{}")
	}
	enc := target.encoding()
	var err error
	if enc == Msgpack {
		params, err = ipcwire.Transcode(nil, params, JSON, ipcwire.BlobsAsBuffers)
	} else if !json.Valid(params) {
		err = Errorf(CodeSerializationFailed, "the parameters are no JSON")
	}
	if err != nil {
		s.forget(f.key)
		return nil, fail(Errorf(CodeSerializationFailed, "Failed to serialize message: %w", err))
	}
	head := ipcwire.Call{ID: f.key.id, From: call.From, To: s.name, Method: call.Method}
	if err := target.send(ipcwire.AppendCall(nil, enc, head, params, call.Context)); err != nil {
		g.leave(target)
	} else {
		target.flush()
	}
	select {
	case a := <-answers:
		return a.data, a.err
	case <-ctx.Done():
		if !s.forget(f.key) {
			a := <-answers // it came in the same moment
			return a.data, a.err
		}
		return nil, fail(Errorf(CodeTimeout, "Request given up: %w", context.Cause(ctx)))
	}
}

// answer is what the RESPONSE at hand says.
func (c *conn) answer(f *flight) answer {
	e := &c.env
	if e.Status.Is(ipcwire.StatusSuccess) {
		data, err := asJSON(e.Data.Raw, e.Encoding)
		if err != nil || !e.Data.Present() {
			return answer{err: err}
		}
		return answer{data: bytes.Clone(data)}
	}
	err := readFailure(e.Error, e.Encoding)
	err.Target, err.RequestID = f.to, f.key.id
	return answer{err: err}
}

// readFailure is the error object of a RESPONSE or ERROR, with the defaults for what it
// leaves out.
func readFailure(v ipcwire.Value, enc Serializer) *Error {
	var told struct {
		Message any `json:"message"`
		Code    any `json:"code"`
		Stack   any `json:"stack"`
	}
	if v.Kind == ipcwire.Object {
		_ = decodeValue(v.Raw, enc, &told) // what cannot be read takes the defaults
	}
	err := &Error{Code: CodeExecutionFailed, Message: "Remote method execution failed"}
	if s, ok := told.Message.(string); ok && s != "" {
		err.Message = s
	}
	if s, ok := told.Code.(string); ok && s != "" {
		err.Code = Code(s)
	}
	err.Stack, _ = told.Stack.(string)
	return err
}
