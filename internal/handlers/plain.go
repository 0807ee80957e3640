package handlers

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/grpcmeta"
	"telford.dev/telford/internal/limit"
	"telford.dev/telford/internal/message"
)

// Plain is a call that reaches its handler as plain gRPC, beside the table: what gRPC
// keeps in its context stays as it is, and what Telford knows of the call is added.
type Plain struct {
	Context
	t  *Table
	in admitted
}

// Plain describes a call that came as plain gRPC. It runs only after Enter.
func (t *Table) Plain(ctx context.Context, caller message.Caller, full string) *Plain {
	name := strings.TrimPrefix(full, "/")
	c := &Plain{t: t}
	c.Context = Context{Context: ctx, m: t.method(name), plain: true}
	if c.m == nil {
		c.m = &Method{Full: full, limits: limit.NewSet(limit.Options{})}
		c.m.Name = name
	}
	if md, ok := metadata.FromIncomingContext(ctx); ok {
		grpcmeta.Read(md, &c.call)
	}
	c.call.Caller, c.call.Method, c.call.Service = caller, name, t.opt.Service
	return c
}

// method returns an entry of the table that is served, nil if there is none.
func (t *Table) method(name string) *Method {
	if table := t.frozen.Load(); table != nil {
		return (*table)[name]
	}
	return nil
}

// NeedsRequest reports whether the limits of the method are counted by what the request
// says, so that Enter has to be given it.
func (c *Plain) NeedsRequest() bool { return c.m.limits.ReadsRequest() }

// NewRequest returns an empty request of the method, nil when it is not known which.
func (c *Plain) NewRequest() proto.Message {
	if c.m.Input == nil {
		return nil
	}
	return c.m.Input.New().Interface()
}

// Enter lets the call in with the same checks as any other; Leave is called at its end. req
// is the request, nil where nothing asks for it.
func (c *Plain) Enter(req any, stream bool) *errs.Error {
	t := c.t
	switch {
	case t.frozen.Load() == nil:
		return t.refuse(&c.call, errs.New(errs.Unavailable, "service %s is still starting", t.opt.Service))
	case t.draining.Load():
		return t.refuse(&c.call, t.drainError())
	}
	if t.opt.Refuse != nil {
		if err := t.opt.Refuse(c.call.Caller); err != nil {
			return t.refuse(&c.call, err)
		}
	}
	if t.opt.Allow != nil {
		if err := t.opt.Allow(&c.call.Caller, &c.m.Method, false); err != nil {
			return t.refuse(&c.call, err)
		}
	}
	var f limit.Facts
	if c.m.limits.Binds() || t.instance.Binds() {
		f = limit.Facts{Caller: c.call.Caller.Service, Headers: c.call.Headers}
		f.Message, _ = req.(proto.Message)
		if c.m.Key != nil && req != nil {
			f.Func = func() string { return t.keyOf(c.m, &c.Context, req) }
		}
	}
	if err := t.admit(c.Context.Context, c.m, &f, stream, &c.in); err != nil {
		return t.refuse(&c.call, err)
	}
	c.Context.Context = c.in.within(c.Context.Context, c.m) //nolint:fatcontext // once for each call
	if t.opt.Tracer != nil {
		parent := trace.ContextWithRemoteSpanContext(c.Context.Context, SpanContext(&c.call.Trace))
		c.Context.Context, c.span = t.opt.Tracer.Start(parent, t.opt.Service+"/"+c.m.Name, trace.WithSpanKind(trace.SpanKindServer))
	}
	return nil
}

// Leave ends a call that was let in, with what its handler returned, and returns what its
// caller gets.
func (c *Plain) Leave(err error) error {
	err = c.in.overtime(&c.Context, err)
	if c.span != nil {
		endSpan(c.span, err)
	}
	c.in.leave()
	return err
}
