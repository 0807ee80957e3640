package telford

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"reflect"
	"sync"
	"time"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"

	"telford.dev/telford/internal/chain"
	"telford.dev/telford/internal/codec"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/grpcmeta"
	"telford.dev/telford/internal/handlers"
	"telford.dev/telford/internal/invoke"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/resilience"
)

// Call asks a service to run a unary method and returns its answer. req is a struct,
// sent as JSON, or a protobuf message; nil sends an empty request. method is the whole
// name, or its last segment where that is unique.
//
// The call has 30 s unless its context or Timeout says otherwise, is tried up to three
// times as long as it is proved that no handler has begun and the retry budget of the
// service lasts, and goes directly to an instance where that is possible. Errors are *Error, *AccessDeniedError or *StateError;
// the failure of a handler comes with the code and message that it chose.
func Call[Resp any](ctx context.Context, s *Service, service, method string, req any, opts ...CallOption) (*Resp, error) {
	v, err := s.running("call " + service)
	if err != nil {
		return nil, err
	}
	o := s.outbound()
	for _, opt := range opts {
		opt.applyCall(&o.set)
	}
	if req != nil {
		o.ContentType = codec.Natural(req)
	} else {
		o.ContentType = codec.Natural(new(Resp))
	}
	r, err := s.typedRoute(v, o, service, method, reflect.TypeOf(req), reflect.TypeFor[Resp]())
	if err != nil {
		o.free()
		return nil, err
	}
	reply, err := s.unary(ctx, v, r, o, service, method, req)
	if err != nil {
		return nil, err
	}
	resp := new(Resp)
	if err := codec.Decode(reply.Body, resp, reply.ContentType); err != nil {
		return nil, answerError(err, service, method)
	}
	return resp, nil
}

// answerError is that of an answer which cannot be read: the handler has run.
func answerError(err error, service, method string) error {
	e := *errs.From(err)
	e.Code, e.GRPCCode, e.Retryable = errs.Internal, errs.Internal.GRPC(), false
	e.Message = "the answer cannot be read: " + e.Message
	return e.In("sdk", "call "+service+"/"+method)
}

// outbound is one call on its way; it is reused once its answer is there.
type outbound struct {
	invoke.Call
	set  callSettings
	buf  *codec.Buffer
	span trace.Span
	// ruled is the time that the operators' rules give the call; 0: they do not say.
	ruled time.Duration
}

var outbounds = sync.Pool{New: func() any { return new(outbound) }}

// outbound returns a call with the defaults of the service.
func (s *Service) outbound() *outbound {
	o := outbounds.Get().(*outbound)
	o.set = s.callDefaults
	return o
}

// free gives o back. Nothing may hold on to its call or its body.
func (o *outbound) free() {
	if o.buf != nil {
		o.buf.Put()
	}
	*o = outbound{}
	outbounds.Put(o)
}

// unary encodes req, makes the call and returns the reply of a handler that succeeded.
// It gives o back.
func (s *Service) unary(ctx context.Context, v *invoke.Invoker, r *invoke.Route, o *outbound, service, method string, req any) (*message.Reply, error) {
	o.ruled = v.Timeout(r)
	ctx, err := s.prepare(ctx, o, service, method, true)
	if err != nil {
		o.free()
		return nil, callError(err, service, method)
	}
	if err := o.encode(req); err != nil {
		o.free()
		return nil, callError(err, service, method)
	}
	reply, err := v.Call(ctx, r, &o.Call)
	if err == nil && reply.Err != nil {
		err = reply.Err
	}
	if o.span != nil {
		endSpan(o.span, err)
	}
	if reply != nil {
		o.deliver(reply.Headers, reply.Trailers)
	}
	if o.set.peer != nil && o.Conn != nil {
		*o.set.peer = *o.Conn.Peer()
	}
	if err != nil {
		o.free()
		return nil, callError(err, service, method)
	}
	if o.set.maxRecv > 0 && len(reply.Body) > o.set.maxRecv {
		err := errs.New(errs.ResourceExhausted, "received message larger than max (%d vs. %d)", len(reply.Body), o.set.maxRecv)
		err.Retryable = false
		o.free()
		return nil, callError(err, service, method)
	}
	o.free()
	return reply, nil
}

// encode puts the request into a pooled buffer.
func (o *outbound) encode(req any) error {
	if req == nil {
		return nil
	}
	o.buf = codec.Get()
	encode := codec.Append
	if o.IdempotencyKey != "" {
		encode = codec.AppendStable // the key stands for these bytes
	}
	b, err := encode(o.buf.B, req, o.ContentType)
	if err != nil {
		return err
	}
	if o.set.maxSend > 0 && len(b) > o.set.maxSend {
		err := errs.New(errs.ResourceExhausted, "trying to send message larger than max (%d vs. %d)", len(b), o.set.maxSend).Unstarted()
		err.Retryable = false
		return err
	}
	o.buf.B, o.Body = b, b
	return nil
}

// deliver hands the metadata of the answer to those who asked for it.
func (o *outbound) deliver(headers, trailers []message.Pair) {
	if o.set.header != nil {
		*o.set.header = grpcmeta.MD(headers)
	}
	if o.set.trailer != nil {
		*o.set.trailer = grpcmeta.MD(trailers)
	}
}

// prepare fills in what travels with every call.
func (s *Service) prepare(ctx context.Context, o *outbound, service, method string, unary bool) (context.Context, error) {
	set := &o.set
	if set.bad != nil {
		return ctx, set.bad
	}
	if s.opt.strict {
		if err := s.checkDeclared(service, method); err != nil {
			return ctx, err
		}
	}
	o.Service, o.Method, o.Stream = service, method, !unary
	o.Mode, o.Policy, o.FailFast, o.Wait = set.mode, set.policy, set.failFast, set.wait
	o.Target = set.target
	o.RequestID = set.requestID
	o.IdempotencyKey, o.BusinessKey = set.idempotencyKey, set.businessKey
	if o.RequestID == "" {
		o.RequestID = newRequestID()
	}
	limit, limited := ctx.Deadline()
	timeout := set.timeout
	if timeout == 0 {
		timeout = o.ruled
	}
	switch {
	case timeout > 0:
		o.Deadline = s.opt.clock.Now().Add(timeout)
		if limited && limit.Before(o.Deadline) {
			o.Deadline = limit
		}
	case limited:
		o.Deadline = limit
	case unary:
		o.Deadline = s.opt.clock.Now().Add(DefaultTimeout)
	}
	o.Headers = set.headers
	if md, ok := metadata.FromOutgoingContext(ctx); ok && len(md) > 0 {
		var err error
		if o.Headers, err = grpcmeta.Append(o.Headers[:len(o.Headers):len(o.Headers)], md); err != nil {
			return ctx, err
		}
	}
	if len(o.Headers) > 0 {
		if err := message.CheckHeaders(o.Headers); err != nil {
			return ctx, err
		}
	}
	if in, ok := handlers.From(ctx); ok {
		// Work that somebody up the chain tries again does not try again itself.
		o.Attempt = in.Call().Attempt
		c, err := chain.Enter(in.Call(), s.name, in.Method().Name)
		if err != nil {
			return ctx, err
		}
		if err := c.Apply(&o.Call.Call); err != nil {
			return ctx, err
		}
	}
	if s.opt.tracer != nil {
		ctx, o.span = s.opt.tracer.Start(ctx, service+"/"+method, trace.WithSpanKind(trace.SpanKindClient))
	}
	if sc := trace.SpanContextFromContext(ctx); sc.IsValid() {
		o.Trace = message.Trace{TraceID: sc.TraceID(), SpanID: sc.SpanID(), Flags: byte(sc.TraceFlags()), State: sc.TraceState().String()}
	}
	return ctx, nil
}

func endSpan(span trace.Span, err error) {
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

// newRequestID returns a random UUID of version 4. It names, and guards nothing.
func newRequestID() string {
	var u [16]byte
	binary.NativeEndian.PutUint64(u[:8], rand.Uint64()) //nolint:gosec // names a call, guards nothing
	binary.NativeEndian.PutUint64(u[8:], rand.Uint64()) //nolint:gosec // as above
	u[6] = u[6]&0x0f | 0x40
	u[8] = u[8]&0x3f | 0x80
	var text [36]byte
	hex.Encode(text[:8], u[:4])
	text[8] = '-'
	hex.Encode(text[9:13], u[4:6])
	text[13] = '-'
	hex.Encode(text[14:18], u[6:8])
	text[18] = '-'
	hex.Encode(text[19:23], u[8:10])
	text[23] = '-'
	hex.Encode(text[24:], u[10:])
	return string(text[:])
}

// defaultSettings are those of a call without options.
func defaultSettings() callSettings {
	return callSettings{policy: resilience.Default()}
}

// checkDeclared refuses, with StrictDeclarations, what was not declared.
func (s *Service) checkDeclared(service, method string) error {
	s.mu.Lock()
	methods, declared := s.uses[service]
	s.mu.Unlock()
	if !declared {
		return errs.New(errs.FailedPrecondition, "service %s is not declared; give Uses(%q) to New, or drop StrictDeclarations", service, service).Unstarted()
	}
	if len(methods) == 0 {
		return nil
	}
	_, short := splitMethod(method)
	for _, m := range methods {
		if _, declaredShort := splitMethod(m); m == method || declaredShort == short {
			return nil
		}
	}
	return errs.New(errs.FailedPrecondition, "method %s of %s is not declared; add it to Uses(%q, ...)", method, service, service).Unstarted()
}

// declareUse notes that a service is called; no methods means any.
func (s *Service) declareUse(service string, methods ...string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known, declared := s.uses[service]
	switch {
	case declared && len(known) == 0:
	case len(methods) == 0:
		s.uses[service] = nil
	default:
		s.uses[service] = append(known, methods...)
	}
	s.view.Want(service)
}
