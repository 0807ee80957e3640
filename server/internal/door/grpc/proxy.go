package grpcdoor

import (
	"context"
	"errors"
	"io"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errpb"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/grpcmeta"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/door/callmeta"
	"telford.dev/telford/server/internal/router"
)

// proxy takes a call to a service that is not one of the runtime's own and hands it to
// the router. It is a grpc.StreamHandler.
func (s *Server) proxy(_ any, stream grpc.ServerStream) error {
	full, ok := grpc.MethodFromServerStream(stream)
	if !ok {
		return errpb.ToGRPC(errs.New(errs.Internal, "the stream has no method")).Err()
	}
	method := strings.TrimPrefix(full, "/")
	if err := s.forward(stream, method); err != nil {
		e := errs.From(err).In("grpc", "call "+method)
		if e.NotStarted {
			stream.SetTrailer(metadata.Pairs(callmeta.NotStarted, "1"))
		}
		return errpb.ToGRPC(e).Err()
	}
	return nil
}

// forward runs one call. The error is that of the path or of the handler.
func (s *Server) forward(stream grpc.ServerStream, method string) error {
	md, _ := metadata.FromIncomingContext(stream.Context())
	grant, e := s.admitted(stream.Context(), md)
	if e != nil {
		return e
	}
	call := &message.Call{Method: method, Caller: grant.Caller}
	if e := callmeta.Apply(call, md.Get); e != nil {
		return e
	}
	if call.Service, e = single(md, callmeta.Service); e != nil {
		return e
	}
	if call.ContentType, e = contentType(md); e != nil {
		return e
	}
	if e := headers(call, md); e != nil {
		return e
	}
	kind, err := s.cfg.Router.ResolveContract(grant.Namespace(), call.Service, method, call.Target.Contract)
	if err != nil {
		return errs.From(err).Unstarted()
	}
	ctx, release := s.cfg.Gate.Hold(stream.Context(), grant)
	defer release()
	if d, ok := ctx.Deadline(); ok {
		call.Deadline = d
	}
	if call.Body, e = onlyMessage(stream, method); e != nil {
		return e
	}
	req := &router.Request{Namespace: grant.Namespace(), Zone: s.cfg.Zone, Caller: call.Caller, Call: call}
	if kind.Kind == catalog.ServerStream {
		call.Stream = true
		err = s.forwardStream(ctx, stream, req)
	} else {
		err = s.forwardUnary(ctx, stream, req)
	}
	return because(ctx, err)
}

func (s *Server) forwardUnary(ctx context.Context, stream grpc.ServerStream, req *router.Request) error {
	reply, err := s.cfg.Router.Call(ctx, req)
	if err != nil {
		return err
	}
	if err := stream.SetHeader(grpcmeta.MD(reply.Headers)); err != nil {
		return errs.New(errs.Internal, "the handler's headers: %w", err)
	}
	stream.SetTrailer(grpcmeta.MD(reply.Trailers))
	if reply.Err != nil {
		return reply.Err
	}
	return sent(stream.SendMsg(&raw{reply.Body}))
}

func (s *Server) forwardStream(ctx context.Context, stream grpc.ServerStream, req *router.Request) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	in, err := s.cfg.Router.Stream(ctx, req)
	if err != nil {
		return err
	}
	defer in.Close()
	head, err := in.Headers()
	if err == nil && len(head) > 0 {
		if err := stream.SendHeader(grpcmeta.MD(head)); err != nil {
			return sent(err)
		}
	}
	for {
		body, err := in.Recv()
		if err != nil {
			stream.SetTrailer(grpcmeta.MD(in.Trailers()))
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		if err := stream.SendMsg(&raw{body}); err != nil {
			return sent(err)
		}
	}
}

// sent gives the failure to send an answer its meaning: nearly always the client has
// gone.
func sent(err error) error {
	if err == nil {
		return nil
	}
	return errpb.FromTransport(err)
}

// because prefers the reason for which the door ended ctx over what the router made of
// the end of it.
func because(ctx context.Context, err error) error {
	if err == nil {
		return nil
	}
	e := errs.From(err)
	if cause := context.Cause(ctx); cause != nil && e.Code == errs.Canceled {
		if c := errs.From(cause); c.Code != errs.Internal {
			return c
		}
	}
	return e
}

// onlyMessage receives the one request of a call that is not client-streaming.
func onlyMessage(stream grpc.ServerStream, method string) ([]byte, *errs.Error) {
	var first, second raw
	switch err := stream.RecvMsg(&first); {
	case errors.Is(err, io.EOF):
		return nil, errs.New(errs.InvalidArgument, "the call of %s ended without a request message", method).Unstarted()
	case err != nil:
		return nil, errpb.FromTransport(err).Unstarted()
	}
	switch err := stream.RecvMsg(&second); {
	case errors.Is(err, io.EOF):
		return first.body, nil
	case err != nil:
		return nil, errpb.FromTransport(err).Unstarted()
	}
	e := errs.New(errs.MethodNotFound, "client- and bidirectional streaming do not pass through the runtime and a second request message came for %s; call the instance directly", method)
	return nil, e.Unstarted()
}

// contentType maps the content type of gRPC; the part behind the plus is protobuf
// when absent.
func contentType(md metadata.MD) (message.ContentType, *errs.Error) {
	values := md.Get("content-type")
	if len(values) == 0 {
		return message.Proto, nil
	}
	sub := strings.TrimPrefix(strings.ToLower(values[0]), "application/grpc")
	sub, _, _ = strings.Cut(sub, ";")
	switch strings.TrimLeft(strings.TrimSpace(sub), "+") {
	case "", "proto":
		return message.Proto, nil
	case "json":
		return message.JSON, nil
	case "msgpack":
		return message.Msgpack, nil
	}
	return message.None, errs.New(errs.InvalidArgument, "content type %q is not understood; use application/grpc, application/grpc+json or application/grpc+msgpack", values[0]).Unstarted()
}

// headers moves what the caller added into the call.
func headers(call *message.Call, md metadata.MD) *errs.Error {
	own := make(metadata.MD, len(md))
	for k, v := range md {
		if !callmeta.Reserved(k) {
			own[k] = v
		}
	}
	pairs, err := grpcmeta.Append(nil, own)
	if err != nil {
		return errs.From(err).Unstarted()
	}
	call.Headers = pairs
	return message.CheckHeaders(pairs)
}
