package telford

import (
	"context"
	"reflect"
	"slices"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/contract"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/handlers"
)

// Handle serves a unary method under a plain name, such as "charge". Req and Resp are
// structs, which travel as JSON, or protobuf messages, which travel as protobuf and are
// accepted as JSON too. The context ends at the caller's deadline, when the caller gives
// up, and when the connection is lost; it carries the call (see Inbound), its trace, and
// all that a gRPC handler finds in a context.
//
// An error made with Errorf reaches the caller with its code, a gRPC status verbatim,
// any other with code handler and its text. A panic costs this one call.
//
// Handle fails with already_exists when the name is taken, with invalid_argument when
// it is none or fn is nil, and with a StateError after Start or on a CallerOnly service.
func Handle[Req, Resp any](s *Service, name string, fn func(ctx context.Context, in *Req) (*Resp, error), opts ...HandleOption) error {
	m, err := describe[Req, Resp](s, name, fn == nil, catalog.Unary, opts)
	if err != nil {
		return err
	}
	typed := func(ctx context.Context, in any) (any, error) {
		req, ok := in.(*Req)
		if !ok {
			return nil, errs.New(errs.Internal, "an interceptor of %s has replaced the request by a %T", name, in)
		}
		out, err := fn(ctx, req)
		if err != nil {
			return nil, err
		}
		if out == nil {
			return nil, errs.New(errs.Internal, "the handler of %s has returned neither an answer nor an error", name)
		}
		return out, nil
	}
	chain := s.chain.ChainUnary()
	info := &grpc.UnaryServerInfo{FullMethod: m.Full}
	m.Unary = func(c *handlers.Context) (any, error) {
		in := new(Req)
		if err := c.Decode(in); err != nil {
			return nil, err
		}
		if chain == nil {
			return typed(c, in)
		}
		return chain(c, in, info, typed)
	}
	return s.add(name, m)
}

// HandleStream serves a method that answers one request with a stream of messages. fn
// sends them to out and ends the stream by returning; an error is the last thing the
// caller sees. All else is as in Handle.
func HandleStream[Req, Chunk any](s *Service, name string, fn func(ctx context.Context, in *Req, out *Sender[Chunk]) error, opts ...HandleOption) error {
	m, err := describe[Req, Chunk](s, name, fn == nil, catalog.ServerStream, opts)
	if err != nil {
		return err
	}
	typed := func(_ any, ss grpc.ServerStream) error {
		in := new(Req)
		if err := ss.RecvMsg(in); err != nil {
			return err
		}
		return fn(ss.Context(), in, &Sender[Chunk]{ss: ss})
	}
	chain := s.chain.ChainStream()
	info := &grpc.StreamServerInfo{FullMethod: m.Full, IsServerStream: true}
	m.Stream = func(c *handlers.Context) error {
		ss := handlers.NewServerStream(c)
		if chain == nil {
			return typed(nil, ss)
		}
		return chain(nil, ss, info, typed)
	}
	return s.add(name, m)
}

// Sender sends the messages of a stream. It is for one goroutine at a time.
type Sender[Chunk any] struct{ ss grpc.ServerStream }

// Send sends one message, waiting while the receiver is behind. It fails once the
// receiver is gone, and for a message over 16 MiB.
func (s *Sender[Chunk]) Send(chunk *Chunk) error { return s.ss.SendMsg(chunk) }

// SetHeader adds response headers; they go with the first message.
func (s *Sender[Chunk]) SetHeader(md metadata.MD) error { return s.ss.SetHeader(md) }

// SetTrailer adds trailers; they go with the end of the stream.
func (s *Sender[Chunk]) SetTrailer(md metadata.MD) { s.ss.SetTrailer(md) }

// describe makes the entry of a handler without its function.
func describe[Req, Resp any](s *Service, name string, isNil bool, kind catalog.Kind, opts []HandleOption) (*handlers.Method, error) {
	switch {
	case isNil:
		return nil, errs.New(errs.InvalidArgument, "the handler is nil").In("sdk", "handle "+name)
	case !methodName(name):
		return nil, errs.New(errs.InvalidArgument, "%q cannot name a method; want 1 to 256 of letters, digits, '.', '_', '-' and '/'", name).In("sdk", "handle "+name)
	}
	m := &handlers.Method{Full: "/" + s.name + "/" + name}
	if strings.Contains(name, "/") {
		m.Full = "/" + name
	}
	m.Method = catalog.Method{Name: name, Kind: kind}
	in, inProto := any(new(Req)).(proto.Message)
	out, outProto := any(new(Resp)).(proto.Message)
	switch {
	case inProto && outProto:
		m.ContentTypes = []string{"proto", "json"}
		inDesc, outDesc := in.ProtoReflect().Descriptor(), out.ProtoReflect().Descriptor()
		m.InputMessage, m.OutputMessage = string(inDesc.FullName()), string(outDesc.FullName())
		m.Contract = contract.Proto(inDesc, outDesc)
		m.Input = in.ProtoReflect().Type()
		s.addDescriptors(inDesc.ParentFile(), outDesc.ParentFile())
	case inProto != outProto:
		return nil, errs.New(errs.InvalidArgument, "%T and %T: a method takes and answers with protobuf messages, or with neither", new(Req), new(Resp)).In("sdk", "handle "+name)
	default:
		m.ContentTypes = []string{"json"}
		m.InputSchema, m.OutputSchema = schemaOf(reflect.TypeFor[Req]()), schemaOf(reflect.TypeFor[Resp]())
		m.Contract = contract.Schema(m.InputSchema, m.OutputSchema)
	}
	var o handleSettings
	o.read(opts)
	if err := o.apply(m, reflect.TypeFor[Req]()); err != nil {
		return nil, err
	}
	return m, nil
}

func methodName(name string) bool {
	if name == "" || len(name) > 256 || name[0] == '/' || name[len(name)-1] == '/' {
		return false
	}
	return !strings.ContainsFunc(name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !slices.Contains([]rune("._-/"), r)
	})
}

// add puts methods into the table.
func (s *Service) add(what string, methods ...*handlers.Method) error {
	if err := s.beforeStart("handle " + what); err != nil {
		return err
	}
	if s.opt.callerOnly {
		return &StateError{
			Operation: "handle " + what, State: "caller-only",
			err: errs.New(errs.FailedPrecondition, "a CallerOnly service takes no handlers").In("sdk", "handle "+what),
		}
	}
	if err := s.table.Add(methods...); err != nil {
		return errs.From(err).In("sdk", "handle "+what)
	}
	return nil
}
