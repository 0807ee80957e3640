package handlers

import (
	"context"
	"io"
	"reflect"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"telford.dev/telford/internal/errs"
)

// Interceptors are the chains around every handler, outermost first.
type Interceptors struct {
	Unary  []grpc.UnaryServerInterceptor
	Stream []grpc.StreamServerInterceptor
}

// ChainUnary returns one interceptor that runs all of i, nil when there are none.
func (i Interceptors) ChainUnary() grpc.UnaryServerInterceptor {
	switch len(i.Unary) {
	case 0:
		return nil
	case 1:
		return i.Unary[0]
	}
	return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		return unaryStep(i.Unary, 0, info, handler)(ctx, req)
	}
}

func unaryStep(chain []grpc.UnaryServerInterceptor, at int, info *grpc.UnaryServerInfo, last grpc.UnaryHandler) grpc.UnaryHandler {
	if at == len(chain) {
		return last
	}
	return func(ctx context.Context, req any) (any, error) {
		return chain[at](ctx, req, info, unaryStep(chain, at+1, info, last))
	}
}

// ChainStream returns one interceptor that runs all of i, nil when there are none.
func (i Interceptors) ChainStream() grpc.StreamServerInterceptor {
	switch len(i.Stream) {
	case 0:
		return nil
	case 1:
		return i.Stream[0]
	}
	return func(srv any, ss grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
		return streamStep(i.Stream, 0, info, handler)(srv, ss)
	}
}

func streamStep(chain []grpc.StreamServerInterceptor, at int, info *grpc.StreamServerInfo, last grpc.StreamHandler) grpc.StreamHandler {
	if at == len(chain) {
		return last
	}
	return func(srv any, ss grpc.ServerStream) error {
		return chain[at](srv, ss, info, streamStep(chain, at+1, info, last))
	}
}

// CheckService refuses an implementation that does not fit its description.
func CheckService(desc *grpc.ServiceDesc, impl any) error {
	if desc == nil || desc.ServiceName == "" {
		return errs.New(errs.InvalidArgument, "register a gRPC service: the description has no name")
	}
	if impl == nil {
		return errs.New(errs.InvalidArgument, "register %s: the implementation is nil", desc.ServiceName)
	}
	if desc.HandlerType != nil {
		want := reflect.TypeOf(desc.HandlerType).Elem()
		if got := reflect.TypeOf(impl); !got.Implements(want) {
			return errs.New(errs.InvalidArgument, "register %s: %v does not implement %v", desc.ServiceName, got, want)
		}
	}
	return nil
}

// ServiceMethods returns the methods of desc. Unary ones and those that stream only their
// answer can travel on links; the others have neither Unary nor Stream.
func ServiceMethods(desc *grpc.ServiceDesc, impl any, chain Interceptors) []*Method {
	var out []*Method
	unary, stream := chain.ChainUnary(), chain.ChainStream()
	for i := range desc.Methods {
		d := &desc.Methods[i]
		m := &Method{Full: "/" + desc.ServiceName + "/" + d.MethodName}
		m.Name = m.Full[1:]
		m.Unary = func(c *Context) (any, error) { return d.Handler(impl, c, c.Decode, unary) }
		out = append(out, m)
	}
	for i := range desc.Streams {
		d := &desc.Streams[i]
		m := &Method{Full: "/" + desc.ServiceName + "/" + d.StreamName}
		m.Name = m.Full[1:]
		if d.ClientStreams {
			out = append(out, m)
			continue
		}
		info := &grpc.StreamServerInfo{FullMethod: m.Full, IsServerStream: true}
		m.Stream = func(c *Context) error {
			ss := &ServerStream{c: c}
			if stream == nil {
				return d.Handler(impl, ss)
			}
			return stream(impl, ss, info, d.Handler)
		}
		out = append(out, m)
	}
	return out
}

// ServerStream is a streaming call as generated code sees it.
type ServerStream struct {
	c    *Context
	read bool
}

// NewServerStream returns the stream of c.
func NewServerStream(c *Context) *ServerStream { return &ServerStream{c: c} }

// SetHeader implements grpc.ServerStream.
func (s *ServerStream) SetHeader(md metadata.MD) error { return s.c.setHeader(md) }

// SendHeader implements grpc.ServerStream.
func (s *ServerStream) SendHeader(md metadata.MD) error { return s.c.sendHeader(md) }

// SetTrailer implements grpc.ServerStream; like there, what cannot be sent is dropped.
func (s *ServerStream) SetTrailer(md metadata.MD) { _ = s.c.setTrailer(md) }

// Context implements grpc.ServerStream.
func (s *ServerStream) Context() context.Context { return s.c }

// SendMsg implements grpc.ServerStream.
func (s *ServerStream) SendMsg(m any) error { return s.c.Send(m) }

// RecvMsg implements grpc.ServerStream: the request once, then the end.
func (s *ServerStream) RecvMsg(m any) error {
	if s.read {
		return io.EOF
	}
	s.read = true
	return s.c.Decode(m)
}
