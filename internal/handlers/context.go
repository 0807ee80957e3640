package handlers

import (
	"context"
	"crypto/tls"
	"net"
	"sync"

	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"

	"telford.dev/telford/internal/codec"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/grpcmeta"
	"telford.dev/telford/internal/message"
)

// Conn says where calls come from.
type Conn struct {
	// Caller is who is at the other end, when Known; on a session the call itself says
	// on whose behalf the runtime calls.
	Caller message.Caller
	Known  bool
	Remote net.Addr
	Local  net.Addr
	TLS    *tls.ConnectionState
}

func (c *Conn) peer() *peer.Peer {
	p := &peer.Peer{Addr: c.Remote, LocalAddr: c.Local}
	if c.TLS != nil {
		p.AuthInfo = credentials.TLSInfo{State: *c.TLS, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
	}
	return p
}

// Context is the context of one running handler. What gRPC and OpenTelemetry look for
// in a context is made when they look, not before.
type Context struct {
	context.Context
	call message.Call // without its body
	body []byte
	conn *Conn
	m    *Method
	span trace.Span // nil unless a tracer is set
	out  message.Sender
	// plain: the call came as plain gRPC, which keeps its own things in the context.
	plain bool

	mu       sync.Mutex
	headers  []message.Pair
	trailers []message.Pair
	sent     bool
}

func newContext(ctx context.Context, t *Table, conn *Conn, m *Method, call *message.Call) *Context {
	c := &Context{Context: ctx, call: *call, body: call.Body, conn: conn, m: m}
	c.call.Body = nil
	if t.opt.Tracer != nil {
		parent := trace.ContextWithRemoteSpanContext(ctx, SpanContext(&call.Trace))
		c.Context, c.span = t.opt.Tracer.Start(parent, t.opt.Service+"/"+m.Name, trace.WithSpanKind(trace.SpanKindServer))
	}
	return c
}

// Call returns the call that is being handled, without its body. Nobody changes it.
func (c *Context) Call() *message.Call { return &c.call }

// Conn returns where the call came from.
func (c *Context) Conn() *Conn { return c.conn }

// Method returns the entry of the table that runs.
func (c *Context) Method() *Method { return c.m }

// Decode fills v from the request.
func (c *Context) Decode(v any) error {
	if err := codec.Decode(c.body, v, c.call.ContentType); err != nil {
		return errs.From(err).In("sdk", "decode the request of "+c.m.Name)
	}
	return nil
}

// contextKey finds the Context in any context derived from it.
type contextKey struct{}

// From returns the Context that ctx is derived from.
func From(ctx context.Context) (*Context, bool) {
	c, ok := ctx.Value(contextKey{}).(*Context)
	return c, ok
}

// probe is a context that tells which key was asked for.
type probe struct {
	context.Context
	key any
}

func (p *probe) Value(key any) any { p.key = key; return nil }

// keyOf returns the key under which ask looks into a context. The packages that own
// these keys do not export them.
func keyOf(ask func(context.Context)) any {
	p := &probe{Context: context.Background()}
	ask(p)
	return p.key
}

var (
	keyIncoming  = keyOf(func(ctx context.Context) { _, _ = metadata.FromIncomingContext(ctx) })
	keyPeer      = keyOf(func(ctx context.Context) { _, _ = peer.FromContext(ctx) })
	keyTransport = keyOf(func(ctx context.Context) { _ = grpc.ServerTransportStreamFromContext(ctx) })
	keySpan      = keyOf(func(ctx context.Context) { _ = trace.SpanFromContext(ctx) })
)

// Value implements context.Context.
func (c *Context) Value(key any) any {
	if key == (contextKey{}) {
		return c
	}
	switch key {
	case keyIncoming, keyPeer, keyTransport:
		if c.plain {
			return c.Context.Value(key)
		}
	}
	switch key {
	case keyIncoming:
		return c.incoming()
	case keyPeer:
		return c.conn.peer()
	case keyTransport:
		return (*transport)(c)
	case keySpan:
		if c.span != nil {
			return c.span
		}
		if c.call.Trace.Valid() {
			return trace.SpanFromContext(trace.ContextWithRemoteSpanContext(context.Background(), SpanContext(&c.call.Trace)))
		}
	}
	return c.Context.Value(key)
}

func (c *Context) incoming() metadata.MD {
	md := grpcmeta.MD(c.call.Headers)
	if c.call.RequestID != "" {
		md["telford-request-id"] = []string{c.call.RequestID}
	}
	return md
}

// SpanContext is t as OpenTelemetry sees it.
func SpanContext(t *message.Trace) trace.SpanContext {
	state, _ := trace.ParseTraceState(t.State) // a state that nobody can read is left out
	return trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: t.TraceID, SpanID: t.SpanID, TraceFlags: trace.TraceFlags(t.Flags), TraceState: state, Remote: true,
	})
}

func endSpan(span trace.Span, err error) {
	if err != nil {
		span.RecordError(err)
		span.SetStatus(codes.Error, err.Error())
	}
	span.End()
}

func (c *Context) reply() *message.Reply {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.sent = true
	return &message.Reply{Headers: c.headers, Trailers: c.trailers}
}

var errHeadersSent = errs.New(errs.Internal, "the response headers were sent already")

func (c *Context) setHeader(md metadata.MD) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.sent {
		return errHeadersSent
	}
	pairs, err := grpcmeta.Append(c.headers, md)
	if err == nil {
		if herr := message.CheckHeaders(pairs); herr != nil {
			return herr
		}
		c.headers = pairs
	}
	return err
}

func (c *Context) sendHeader(md metadata.MD) error {
	if err := c.setHeader(md); err != nil {
		return err
	}
	c.mu.Lock()
	c.sent = true
	pairs := c.headers
	c.mu.Unlock()
	if c.out == nil {
		return nil // they go with the answer
	}
	return c.out.SendHeaders(pairs)
}

func (c *Context) setTrailer(md metadata.MD) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	pairs, err := grpcmeta.Append(c.trailers, md)
	if err == nil {
		if herr := message.CheckHeaders(pairs); herr != nil {
			return herr
		}
		c.trailers = pairs
	}
	return err
}

// flushHeaders sends the headers of a stream unless that was done.
func (c *Context) flushHeaders() error {
	c.mu.Lock()
	if c.sent || len(c.headers) == 0 {
		c.sent = true
		c.mu.Unlock()
		return nil
	}
	c.sent = true
	pairs := c.headers
	c.mu.Unlock()
	return c.out.SendHeaders(pairs)
}

// Send encodes v as the next message of the stream.
func (c *Context) Send(v any) error {
	if err := c.flushHeaders(); err != nil {
		return err
	}
	buf := codec.Get()
	defer buf.Put()
	var err error
	if buf.B, err = codec.Append(buf.B, v, c.call.ContentType); err != nil {
		e := *errs.From(err)
		e.NotStarted = false
		return &e
	}
	return c.out.Send(buf.B)
}

// transport is the Context as gRPC's transport stream.
type transport Context

func (t *transport) Method() string                  { return t.m.Full }
func (t *transport) SetHeader(md metadata.MD) error  { return (*Context)(t).setHeader(md) }
func (t *transport) SendHeader(md metadata.MD) error { return (*Context)(t).sendHeader(md) }
func (t *transport) SetTrailer(md metadata.MD) error { return (*Context)(t).setTrailer(md) }
