package admin

import (
	"context"
	"log/slog"
	"strconv"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/descriptorpb"

	"telford.dev/telford/internal/errpb"
	"telford.dev/telford/internal/errs"
)

// operator is the author of what is done with the operator's token.
const operator = "telford.operator"

// guard registers services so that every method first asks for the operator's token,
// answers failures in the one error model, and is audited when it changes something.
// Wrapping the descriptions, and not relying on interceptors, means that no server can
// serve them unguarded.
type guard struct {
	to        grpc.ServiceRegistrar
	authority Authority
	log       *slog.Logger
}

// RegisterService implements grpc.ServiceRegistrar.
func (g *guard) RegisterService(desc *grpc.ServiceDesc, impl any) {
	guarded := *desc
	guarded.Methods = make([]grpc.MethodDesc, len(desc.Methods))
	for i, m := range desc.Methods {
		guarded.Methods[i] = g.method(desc.ServiceName, m)
	}
	guarded.Streams = make([]grpc.StreamDesc, len(desc.Streams))
	for i, s := range desc.Streams {
		guarded.Streams[i] = g.stream(desc.ServiceName, s)
	}
	g.to.RegisterService(&guarded, impl)
}

func (g *guard) method(service string, m grpc.MethodDesc) grpc.MethodDesc {
	inner := m.Handler
	operation := service + "/" + m.MethodName
	guarded := func(ctx context.Context, req any, _ *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
		if err := authorize(ctx, g.authority); err != nil {
			return nil, answer(err, operation)
		}
		resp, err := next(ctx, req)
		g.audit(ctx, operation, req, err)
		if err != nil {
			return nil, answer(err, operation)
		}
		return resp, nil
	}
	m.Handler = func(srv any, ctx context.Context, dec func(any) error, outer grpc.UnaryServerInterceptor) (any, error) {
		if outer == nil {
			return inner(srv, ctx, dec, guarded)
		}
		return inner(srv, ctx, dec, func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			return outer(ctx, req, info, func(ctx context.Context, req any) (any, error) {
				return guarded(ctx, req, info, next)
			})
		})
	}
	return m
}

func (g *guard) stream(service string, s grpc.StreamDesc) grpc.StreamDesc {
	inner := s.Handler
	operation := service + "/" + s.StreamName
	s.Handler = func(srv any, stream grpc.ServerStream) error {
		if err := authorize(stream.Context(), g.authority); err != nil {
			return answer(err, operation)
		}
		if err := inner(srv, stream); err != nil {
			return answer(err, operation)
		}
		return nil
	}
	return s
}

// authorize lets the operator pass. A service, by key or by certificate, is known but
// may do nothing here; nobody is unauthenticated.
func authorize(ctx context.Context, authority Authority) error {
	values := metadata.ValueFromIncomingContext(ctx, "authorization")
	if len(values) == 0 {
		if p, ok := peer.FromContext(ctx); ok && certified(p) {
			return errs.New(errs.PermissionDenied, "a service's certificate does not administer the runtime; send the operator's token, which stands in DATA/admin.token")
		}
		return errs.New(errs.Unauthenticated, "the request has no credential; send \"authorization: Bearer TOKEN\" with the operator's token, which stands in DATA/admin.token")
	}
	return authorizeHeader(ctx, authority, values[0])
}

func authorizeHeader(ctx context.Context, authority Authority, header string) error {
	scheme, token, _ := strings.Cut(header, " ")
	if token = strings.TrimSpace(token); !strings.EqualFold(scheme, "bearer") || token == "" {
		return errs.New(errs.Unauthenticated, "the authorization header must be \"Bearer TOKEN\"")
	}
	p, err := authority.Authenticate(ctx, token)
	if err != nil {
		return err
	}
	if !p.Operator {
		return errs.New(errs.PermissionDenied, "key %s of service %q does not administer the runtime; use the operator's token, which stands in DATA/admin.token", p.KeyID, p.Service)
	}
	return nil
}

// certified reports whether the connection of a caller showed a client certificate.
func certified(p *peer.Peer) bool {
	info, ok := p.AuthInfo.(interface {
		GetSecurityValue() credentials.ChannelzSecurityValue
	})
	if !ok {
		return false
	}
	value, ok := info.GetSecurityValue().(*credentials.TLSChannelzSecurityValue)
	return ok && len(value.RemoteCertificate) > 0
}

// answer turns a failure into what gRPC sends.
func answer(err error, operation string) error {
	return errpb.ToGRPC(errs.From(err).In("admin", operation)).Err()
}

// audit writes a change to the log; reading is not audited.
func (g *guard) audit(ctx context.Context, operation string, req any, err error) {
	if !changes(operation) {
		return
	}
	attrs := []slog.Attr{slog.String("operation", operation), slog.String("author", operator)}
	if m, ok := req.(proto.Message); ok {
		attrs = append(attrs, slog.Any("request", fields(m)))
	}
	if from := caller(ctx); from != "" {
		attrs = append(attrs, slog.String("from", from))
	}
	if err != nil {
		attrs = append(attrs, slog.String("outcome", string(errs.CodeOf(err))), slog.String("error", err.Error()))
		g.log.LogAttrs(ctx, slog.LevelWarn, "audit", attrs...)
		return
	}
	attrs = append(attrs, slog.String("outcome", "ok"))
	g.log.LogAttrs(ctx, slog.LevelInfo, "audit", attrs...)
}

// caller is the address of who asks. Behind the gateway it is the last one forwarded,
// which the gateway itself has put there.
func caller(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		return p.Addr.String()
	}
	values := metadata.ValueFromIncomingContext(ctx, "x-forwarded-for")
	if len(values) == 0 {
		return ""
	}
	last := values[len(values)-1]
	return strings.TrimSpace(last[strings.LastIndexByte(last, ',')+1:])
}

// changes reports whether an operation changes anything: whatever does not read.
func changes(operation string) bool {
	_, method, _ := strings.Cut(operation, "/")
	for _, reads := range []string{"List", "Get", "Watch"} {
		if strings.HasPrefix(method, reads) {
			return false
		}
	}
	return true
}

// fields are the fields of a request that are set. Of those that are marked debug_redact,
// which may be secret or large, only the length is told.
func fields(m proto.Message) slog.Value {
	var attrs []slog.Attr
	m.ProtoReflect().Range(func(d protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		text := v.String()
		if options, ok := d.Options().(*descriptorpb.FieldOptions); ok && options.GetDebugRedact() {
			text = strconv.Itoa(len(text)) + " bytes"
		}
		attrs = append(attrs, slog.String(string(d.Name()), text))
		return true
	})
	return slog.GroupValue(attrs...)
}
