package admin

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

// local joins the clients of the gateway to services of the same process, without a
// connection. It is a registrar, on which the services register, and a client
// connection, which runs their handlers: unary ones on the goroutine of the caller,
// streams on one goroutine each that ends with the context of the caller.
type local struct {
	methods map[string]localMethod
	streams map[string]localStream
}

type localMethod struct {
	desc grpc.MethodDesc
	impl any
}

type localStream struct {
	desc grpc.StreamDesc
	impl any
}

func newLocal() *local {
	return &local{methods: make(map[string]localMethod), streams: make(map[string]localStream)}
}

// RegisterService implements grpc.ServiceRegistrar. It is not safe beside calls.
func (l *local) RegisterService(desc *grpc.ServiceDesc, impl any) {
	for _, m := range desc.Methods {
		l.methods["/"+desc.ServiceName+"/"+m.MethodName] = localMethod{m, impl}
	}
	for _, s := range desc.Streams {
		l.streams["/"+desc.ServiceName+"/"+s.StreamName] = localStream{s, impl}
	}
}

// incoming turns what a client sends into what a server sees.
func incoming(ctx context.Context) context.Context {
	md, _ := metadata.FromOutgoingContext(ctx)
	return metadata.NewIncomingContext(ctx, md)
}

// Invoke implements grpc.ClientConnInterface. Call options have no effect: there is no
// wire that they could apply to, and the services set no headers.
func (l *local) Invoke(ctx context.Context, method string, args, reply any, _ ...grpc.CallOption) error {
	m, ok := l.methods[method]
	if !ok {
		return status.Errorf(codes.Unimplemented, "no method %s", method)
	}
	out, err := m.desc.Handler(m.impl, incoming(ctx), func(in any) error { return copyMessage(in, args) }, nil)
	if err != nil {
		return err
	}
	return copyMessage(reply, out)
}

// NewStream implements grpc.ClientConnInterface for server-streaming methods.
func (l *local) NewStream(ctx context.Context, _ *grpc.StreamDesc, method string, _ ...grpc.CallOption) (grpc.ClientStream, error) {
	m, ok := l.streams[method]
	if !ok {
		return nil, status.Errorf(codes.Unimplemented, "no method %s", method)
	}
	return &localClient{
		ctx: ctx, run: func(s grpc.ServerStream) error { return m.desc.Handler(m.impl, s) },
		messages: make(chan any), done: make(chan struct{}),
	}, nil
}

func copyMessage(to, from any) error {
	dst, ok := to.(proto.Message)
	src, ok2 := from.(proto.Message)
	if !ok || !ok2 {
		return status.Errorf(codes.Internal, "%T and %T are not both messages", to, from)
	}
	proto.Merge(dst, src)
	return nil
}

// localClient is one stream as its client holds it.
type localClient struct {
	ctx      context.Context
	run      func(grpc.ServerStream) error
	request  any
	first    any // received by Header and not yet by RecvMsg
	messages chan any
	done     chan struct{}
	err      error // of run; readable once done is closed
}

// Header waits until the stream has begun or failed, so that a failure before the first
// message can be told apart from one behind it.
func (c *localClient) Header() (metadata.MD, error) {
	got, err := c.next()
	if err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	c.first = got
	return nil, nil
}

func (c *localClient) Trailer() metadata.MD     { return nil }
func (c *localClient) Context() context.Context { return c.ctx }
func (c *localClient) SendMsg(m any) error      { c.request = m; return nil }

// CloseSend starts the handler: the request is whole.
func (c *localClient) CloseSend() error {
	go func() {
		defer close(c.done)
		c.err = c.run(&localServer{client: c, ctx: incoming(c.ctx)})
	}()
	return nil
}

func (c *localClient) RecvMsg(m any) error {
	got := c.first
	if c.first = nil; got == nil {
		var err error
		if got, err = c.next(); err != nil {
			return err
		}
	}
	return copyMessage(m, got)
}

func (c *localClient) next() (any, error) {
	select {
	case got := <-c.messages:
		return got, nil
	case <-c.done:
		if c.err != nil {
			return nil, c.err
		}
		return nil, io.EOF
	}
}

// localServer is one stream as its handler holds it.
type localServer struct {
	client *localClient
	ctx    context.Context
}

func (s *localServer) SetHeader(metadata.MD) error  { return nil }
func (s *localServer) SendHeader(metadata.MD) error { return nil }
func (s *localServer) SetTrailer(metadata.MD)       {}
func (s *localServer) Context() context.Context     { return s.ctx }
func (s *localServer) RecvMsg(m any) error          { return copyMessage(m, s.client.request) }

// SendMsg waits until the client has taken the message or is gone.
func (s *localServer) SendMsg(m any) error {
	select {
	case s.client.messages <- m:
		return nil
	case <-s.ctx.Done():
		return status.FromContextError(s.ctx.Err()).Err()
	}
}
