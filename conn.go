package telford

import (
	"context"
	"strings"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"telford.dev/telford/internal/codec"
	"telford.dev/telford/internal/contract"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/grpcmeta"
	"telford.dev/telford/internal/invoke"
	"telford.dev/telford/internal/match"
	"telford.dev/telford/internal/message"
)

// Conn returns what protoc-generated clients take, for calls of one service with these
// options under those of each call. Before Start it also declares that the service is
// used.
//
// Calls have the semantics of gRPC: metadata, headers, trailers and status cross
// unchanged, and errors are gRPC statuses that errors.Is and errors.As see through. The
// options Header, Trailer, Peer, WaitForReady, MaxCallRecvMsgSize, MaxCallSendMsgSize,
// PerRPCCredentials, OnFinish and StaticMethod are honoured, and those of this package;
// any other is an error of code invalid_argument. Methods that stream from the client go
// as plain gRPC to an instance, directly.
func (s *Service) Conn(service string, opts ...RPCOption) grpc.ClientConnInterface {
	c := &conn{s: s, service: service, unary: s.callDefaults, stream: s.streamDefaults}
	for _, opt := range opts {
		opt.applyCall(&c.unary)
		opt.applyStream(&c.stream)
	}
	if s.beforeStart("") == nil {
		s.declareUse(service)
	}
	return c
}

type conn struct {
	s             *Service
	service       string
	unary, stream callSettings
	methods       sync.Map // "/pkg.Service/Method" to *connMethod
}

// connMethod is what is kept about a method from call to call.
type connMethod struct {
	name string
	// exact is for callers of the types that are linked into this program, any for those
	// that do not insist on them.
	exact, any *invoke.Route
	contract   string // of exact; "" when the types are not linked
}

// route returns the route of a call with the given settings.
func (m *connMethod) route(v *invoke.Invoker, service string, set *callSettings) (*invoke.Route, error) {
	switch {
	case set.contractRule == anyContract:
		return m.any, nil
	case set.contractRule == givenContract:
		return v.Route(service, m.name, message.Proto, match.Wish{Contract: set.contract}), nil
	case set.contractRule == exactContract && m.contract == "":
		return nil, errs.New(errs.InvalidArgument, "ExactContract: the descriptor of %s is not linked into this program; give the contract that is meant with Contract, or leave the option out", m.name).
			In("sdk", "call "+service+"/"+m.name).Unstarted()
	}
	return m.exact, nil
}

func (c *conn) method(v *invoke.Invoker, full string) *connMethod {
	if m, ok := c.methods.Load(full); ok {
		return m.(*connMethod)
	}
	name := strings.TrimPrefix(full, "/")
	m := &connMethod{name: name, contract: contractOf(name), any: v.Route(c.service, name, message.Proto, match.Wish{})}
	m.exact = v.Route(c.service, name, message.Proto, match.Wish{Contract: m.contract})
	kept, _ := c.methods.LoadOrStore(full, m)
	return kept.(*connMethod)
}

// contractOf is the contract by the types that are linked into this program, "" when
// the method is not among them.
func contractOf(name string) string {
	service, method := splitMethod(name)
	d, err := protoregistry.GlobalFiles.FindDescriptorByName(protoreflect.FullName(service + "." + method))
	if err != nil {
		return ""
	}
	m, ok := d.(protoreflect.MethodDescriptor)
	if !ok {
		return ""
	}
	return contract.Proto(m.Input(), m.Output())
}

// Invoke implements grpc.ClientConnInterface.
func (c *conn) Invoke(ctx context.Context, method string, args, reply any, opts ...grpc.CallOption) error {
	chain := c.s.opt.unaryClient
	if len(chain) == 0 {
		return c.invoke(ctx, method, args, reply, opts)
	}
	cc, err := c.s.GRPCConn(c.service)
	if err != nil {
		return asStatus(err)
	}
	return unaryClientStep(chain, 0, c)(ctx, method, args, reply, cc, opts...)
}

// unaryClientStep is the rest of a chain of interceptors.
func unaryClientStep(chain []grpc.UnaryClientInterceptor, at int, c *conn) grpc.UnaryInvoker {
	if at == len(chain) {
		return func(ctx context.Context, method string, req, reply any, _ *grpc.ClientConn, opts ...grpc.CallOption) error {
			return c.invoke(ctx, method, req, reply, opts)
		}
	}
	return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, opts ...grpc.CallOption) error {
		return chain[at](ctx, method, req, reply, cc, unaryClientStep(chain, at+1, c), opts...)
	}
}

func (c *conn) invoke(ctx context.Context, method string, args, reply any, opts []grpc.CallOption) error {
	err := c.call(ctx, method, args, reply, opts)
	for _, opt := range opts {
		if f, ok := opt.(grpc.OnFinishCallOption); ok {
			f.OnFinish(err)
		}
	}
	return err
}

func (c *conn) call(ctx context.Context, method string, args, reply any, opts []grpc.CallOption) error {
	v, err := c.s.running("call " + c.service)
	if err != nil {
		return asStatus(err)
	}
	m := c.method(v, method)
	o := outbounds.Get().(*outbound)
	o.set = c.unary
	if len(opts) > 0 {
		if err := o.applyGRPC(ctx, c.service, m.name, opts, true); err != nil {
			o.free()
			return err
		}
	}
	o.ContentType = message.Proto
	out, ok := reply.(proto.Message)
	if !ok {
		o.free()
		return asStatus(errs.New(errs.InvalidArgument, "%T is no protobuf message", reply).In("sdk", "call "+m.name))
	}
	r, err := m.route(v, c.service, &o.set)
	if err != nil {
		o.free()
		return asStatus(err)
	}
	answer, err := c.s.unary(ctx, v, r, o, c.service, m.name, args)
	if err != nil {
		return asStatus(err)
	}
	if err := codec.Decode(answer.Body, out, answer.ContentType); err != nil {
		return asStatus(answerError(err, c.service, m.name))
	}
	return nil
}

// NewStream implements grpc.ClientConnInterface.
func (c *conn) NewStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
	chain := c.s.opt.streamClient
	if len(chain) == 0 {
		return c.newStream(ctx, desc, method, opts)
	}
	cc, err := c.s.GRPCConn(c.service)
	if err != nil {
		return nil, asStatus(err)
	}
	return streamClientStep(chain, 0, c)(ctx, desc, cc, method, opts...)
}

func streamClientStep(chain []grpc.StreamClientInterceptor, at int, c *conn) grpc.Streamer {
	if at == len(chain) {
		return func(ctx context.Context, desc *grpc.StreamDesc, _ *grpc.ClientConn, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
			return c.newStream(ctx, desc, method, opts)
		}
	}
	return func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, opts ...grpc.CallOption) (grpc.ClientStream, error) {
		return chain[at](ctx, desc, cc, method, streamClientStep(chain, at+1, c), opts...)
	}
}

func (c *conn) newStream(ctx context.Context, desc *grpc.StreamDesc, method string, opts []grpc.CallOption) (grpc.ClientStream, error) {
	v, err := c.s.running("stream " + c.service)
	if err != nil {
		return nil, asStatus(err)
	}
	name := strings.TrimPrefix(method, "/")
	o := outbounds.Get().(*outbound)
	o.set = c.stream
	if err := o.applyGRPC(ctx, c.service, name, opts, false); err != nil {
		o.free()
		return nil, err
	}
	if desc.ClientStreams {
		return c.plainStream(ctx, desc, method, o, opts)
	}
	o.ContentType = message.Proto
	m := c.method(v, method)
	r, err := m.route(v, c.service, &o.set)
	if err != nil {
		o.free()
		return nil, asStatus(err)
	}
	return &clientStream{c: c, v: v, ctx: ctx, o: o, m: m, r: r, opts: opts}, nil
}

// plainStream opens a method that streams from the client, as plain gRPC on the direct
// path.
func (c *conn) plainStream(ctx context.Context, desc *grpc.StreamDesc, method string, o *outbound, opts []grpc.CallOption) (grpc.ClientStream, error) {
	if o.set.mode == invoke.Proxy {
		return nil, status.Errorf(codes.Unimplemented, "%s streams from the client, which only the direct path carries", method)
	}
	if denial := c.s.view.Snapshot().Denial(c.service, strings.TrimPrefix(method, "/")); denial != nil {
		c.s.deniedCall(c.service, strings.TrimPrefix(method, "/"), denial)
		return nil, asStatus(callError(denial, c.service, method))
	}
	ctx, err := c.s.prepare(ctx, o, c.service, strings.TrimPrefix(method, "/"), false)
	if err != nil {
		return nil, asStatus(callError(err, c.service, method))
	}
	grpcService, err := c.s.plainContract(c.service, strings.TrimPrefix(method, "/"), o)
	if err != nil {
		return nil, asStatus(callError(err, c.service, method))
	}
	cc, err := c.s.plainConn(c.service, grpcService)
	if err != nil {
		return nil, asStatus(err)
	}
	plain := make([]grpc.CallOption, 0, len(opts))
	for _, opt := range opts {
		if _, ours := opt.(StreamOption); !ours {
			plain = append(plain, opt)
		}
	}
	md, _ := metadata.FromOutgoingContext(ctx)
	if md == nil {
		md = metadata.MD{}
	}
	for _, p := range o.set.headers {
		md.Append(p.Key, string(p.Value))
	}
	grpcmeta.Write(md, &o.Call.Call)
	ctx = metadata.NewOutgoingContext(ctx, md)
	if !o.Deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, o.Deadline)
		context.AfterFunc(ctx, cancel) // the stream outlives this function
	}
	st, err := cc.NewStream(ctx, desc, method, plain...)
	if o.span != nil {
		endSpan(o.span, err) // the stream is the user's from here on
	}
	return st, err
}

// applyGRPC takes in the options of a generated client's call.
func (o *outbound) applyGRPC(ctx context.Context, service, method string, opts []grpc.CallOption, unary bool) error {
	for _, opt := range opts {
		switch opt := opt.(type) {
		case grpc.StaticMethodCallOption, grpc.OnFinishCallOption:
		case grpc.HeaderCallOption:
			o.set.header = opt.HeaderAddr
		case grpc.TrailerCallOption:
			o.set.trailer = opt.TrailerAddr
		case grpc.PeerCallOption:
			o.set.peer = opt.PeerAddr
		case grpc.FailFastCallOption:
			o.set.wait = !opt.FailFast
			o.set.failFast = false
		case grpc.MaxRecvMsgSizeCallOption:
			o.set.maxRecv = max(opt.MaxRecvMsgSize, 1)
		case grpc.MaxSendMsgSizeCallOption:
			o.set.maxSend = max(opt.MaxSendMsgSize, 1)
		case grpc.PerRPCCredsCallOption:
			if err := o.credentials(ctx, service, method, opt.Creds); err != nil {
				return err
			}
		case grpc.EmptyCallOption:
		default:
			switch ours := opt.(type) {
			case StreamOption:
				ours.applyStream(&o.set)
			case CallOption:
				if !unary {
					return asStatus(errs.New(errs.InvalidArgument, "an option that fits only unary calls was given to the stream %s", method).In("sdk", "stream "+method).Unstarted())
				}
				ours.applyCall(&o.set)
			default:
				return asStatus(errs.New(errs.InvalidArgument, "the call option %T is not supported; it would be ignored", opt).In("sdk", "call "+method).Unstarted())
			}
		}
	}
	return nil
}

// credentials adds the headers of per-call credentials. Every path of Telford is
// encrypted, so that those which require it may be sent.
func (o *outbound) credentials(ctx context.Context, service, method string, creds credentials.PerRPCCredentials) error {
	grpcService, _ := splitMethod(method)
	info := credentials.RequestInfo{
		Method:   "/" + method,
		AuthInfo: credentials.TLSInfo{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}},
	}
	md, err := creds.GetRequestMetadata(credentials.NewContextWithRequestInfo(ctx, info), "https://"+service+"/"+grpcService)
	if err != nil {
		if s, ok := status.FromError(err); ok {
			return s.Err()
		}
		return status.Errorf(codes.Internal, "transport: per-RPC creds failed due to error: %v", err)
	}
	for k, v := range md {
		o.set.headers = append(o.set.headers[:len(o.set.headers):len(o.set.headers)], message.Pair{Key: strings.ToLower(k), Value: []byte(v)})
	}
	return nil
}
