package telford

import (
	"context"
	"errors"
	"io"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/grpcmeta"
	"telford.dev/telford/internal/invoke"
)

// clientStream is a server-streaming call as generated clients see it. It is opened by
// its one request. Like any ClientStream it ends with io.EOF, an error, or its context.
type clientStream struct {
	c    *conn
	v    *invoke.Invoker
	ctx  context.Context
	o    *outbound
	m    *connMethod
	r    *invoke.Route
	opts []grpc.CallOption

	st     *openedStream
	failed error
	ended  bool
}

// Context implements grpc.ClientStream.
func (s *clientStream) Context() context.Context { return s.ctx }

// SendMsg implements grpc.ClientStream.
func (s *clientStream) SendMsg(m any) error {
	if s.st != nil || s.failed != nil {
		return asStatus(errs.New(errs.Internal, "a server-streaming method takes one request").In("sdk", "stream "+s.m.name))
	}
	st, err := s.c.s.openStream(s.ctx, s.v, s.r, s.o, s.c.service, s.m.name, m)
	if err != nil {
		s.failed = asStatus(err)
		s.finish(s.failed)
		return s.failed
	}
	s.st = st
	return nil
}

// CloseSend implements grpc.ClientStream.
func (s *clientStream) CloseSend() error { return nil }

// RecvMsg implements grpc.ClientStream.
func (s *clientStream) RecvMsg(m any) error {
	if s.failed != nil {
		return s.failed
	}
	if s.st == nil {
		return asStatus(errs.New(errs.Internal, "the request was not sent").In("sdk", "stream "+s.m.name))
	}
	err := s.st.recv(m)
	if p := s.o.set.peer; p != nil {
		if c := s.st.Conn(); c != nil {
			*p = *c.Peer()
		}
	}
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF):
		s.failed = io.EOF
		s.finish(nil)
		return io.EOF
	}
	s.failed = asStatus(err)
	s.finish(s.failed)
	return s.failed
}

// finish tells, once, those who asked to be told of the end.
func (s *clientStream) finish(err error) {
	if s.ended {
		return
	}
	s.ended = true
	for _, opt := range s.opts {
		if f, ok := opt.(grpc.OnFinishCallOption); ok {
			f.OnFinish(err)
		}
	}
}

// Header implements grpc.ClientStream.
func (s *clientStream) Header() (metadata.MD, error) {
	if s.st == nil {
		return nil, s.failed
	}
	pairs, err := s.st.Headers()
	if err != nil {
		return nil, asStatus(callError(err, s.c.service, s.m.name))
	}
	return grpcmeta.MD(pairs), nil
}

// Trailer implements grpc.ClientStream.
func (s *clientStream) Trailer() metadata.MD {
	if s.st == nil {
		return nil
	}
	return grpcmeta.MD(s.st.Trailers())
}
