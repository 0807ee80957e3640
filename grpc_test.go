package telford

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"telford.dev/telford/internal/ident"
)

// testServer answers as the test says.
type testServer struct {
	testpb.UnimplementedTestServiceServer
	unary  func(ctx context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error)
	stream func(in *testpb.StreamingOutputCallRequest, out grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error
	input  func(in grpc.ClientStreamingServer[testpb.StreamingInputCallRequest, testpb.StreamingInputCallResponse]) error
	duplex func(s grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error
}

func (s *testServer) UnaryCall(ctx context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return s.unary(ctx, in)
}

func (s *testServer) StreamingOutputCall(in *testpb.StreamingOutputCallRequest, out grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	return s.stream(in, out)
}

func (s *testServer) StreamingInputCall(in grpc.ClientStreamingServer[testpb.StreamingInputCallRequest, testpb.StreamingInputCallResponse]) error {
	return s.input(in)
}

func (s *testServer) FullDuplexCall(st grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
	return s.duplex(st)
}

// chains are the interceptors of a test.
type chains struct {
	unaryServer  []grpc.UnaryServerInterceptor
	streamServer []grpc.StreamServerInterceptor
	unaryClient  []grpc.UnaryClientInterceptor
	streamClient []grpc.StreamClientInterceptor
}

// overBoth runs one test over plain grpc-go and over Telford.
func overBoth(t *testing.T, server *testServer, c chains, test func(t *testing.T, client testpb.TestServiceClient)) {
	t.Parallel()
	t.Run("grpc", func(t *testing.T) {
		t.Parallel()
		test(t, testpb.NewTestServiceClient(overGRPC(t, server, c)))
	})
	t.Run("telford", func(t *testing.T) {
		t.Parallel()
		test(t, testpb.NewTestServiceClient(overTelford(t, server, c)))
	})
}

func overGRPC(t *testing.T, server testpb.TestServiceServer, c chains) grpc.ClientConnInterface {
	w := newWorld(t)
	callee := w.service("echo", "in_a")
	caller := w.service("caller", "in_b")
	t.Cleanup(func() { callee.release(); caller.release() })
	gs := grpc.NewServer(grpc.Creds(credentials.NewTLS(callee.trust.ServerConfig("h2"))),
		grpc.ChainUnaryInterceptor(c.unaryServer...), grpc.ChainStreamInterceptor(c.streamServer...))
	testpb.RegisterTestServiceServer(gs, server)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() { _ = gs.Serve(ln) })
	cc, err := grpc.NewClient(ln.Addr().String(), grpc.WithTransportCredentials(credentials.NewTLS(caller.trust.ClientConfig(ident.Expect{Instance: "in_a"}, "h2"))),
		grpc.WithChainUnaryInterceptor(c.unaryClient...), grpc.WithChainStreamInterceptor(c.streamClient...))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cc.Close()
		gs.Stop()
		wg.Wait()
	})
	return cc
}

func overTelford(t *testing.T, server testpb.TestServiceServer, c chains) grpc.ClientConnInterface {
	w := newWorld(t)
	callee := w.service("echo", "in_a", UnaryServerInterceptors(c.unaryServer...), StreamServerInterceptors(c.streamServer...))
	testpb.RegisterTestServiceServer(callee, server)
	w.start(callee)
	caller := w.start(w.service("caller", "in_b", CallerOnly(), UnaryClientInterceptors(c.unaryClient...), StreamClientInterceptors(c.streamClient...)))
	w.introduce()
	return caller.Conn("echo")
}

func echoUnary(_ context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{Payload: in.GetPayload()}, nil
}

func sized(n int) *testpb.SimpleRequest {
	return &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, n)}}
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	return ctx
}

func TestGRPCMetadata(t *testing.T) {
	want := metadata.MD{"x-one": {"a", "b"}, "raw-bin": {"\x00\x01\xff", "second"}}
	answer := func(ctx context.Context) (metadata.MD, metadata.MD, error) {
		in, ok := metadata.FromIncomingContext(ctx)
		if !ok {
			return nil, nil, status.Error(codes.Internal, "no metadata")
		}
		for k, v := range want {
			if !slices.Equal(in[k], v) {
				return nil, nil, status.Errorf(codes.Internal, "%s is %q", k, in[k])
			}
		}
		return metadata.MD{"h": {"1", "2"}, "h-bin": {"\xfe"}}, metadata.MD{"t": {"x"}, "t-bin": {"\x00"}}, nil
	}
	server := &testServer{
		unary: func(ctx context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			h, tr, err := answer(ctx)
			if err != nil {
				return nil, err
			}
			_ = grpc.SetHeader(ctx, metadata.MD{"h": h["h"][:1]})
			if err := grpc.SendHeader(ctx, metadata.MD{"h": h["h"][1:], "h-bin": h["h-bin"]}); err != nil {
				return nil, err
			}
			if grpc.SetHeader(ctx, metadata.MD{"late": {"x"}}) == nil {
				return nil, status.Error(codes.Internal, "headers after headers")
			}
			if err := grpc.SetTrailer(ctx, tr); err != nil {
				return nil, err
			}
			if m := grpc.ServerTransportStreamFromContext(ctx).Method(); m != "/grpc.testing.TestService/UnaryCall" {
				return nil, status.Errorf(codes.Internal, "method %q", m)
			}
			if len(in.GetPayload().GetBody()) == 1 {
				return nil, status.Error(codes.Aborted, "with trailers")
			}
			return &testpb.SimpleResponse{}, nil
		},
		stream: func(_ *testpb.StreamingOutputCallRequest, out grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
			h, tr, err := answer(out.Context())
			if err != nil {
				return err
			}
			if err := out.SendHeader(h); err != nil {
				return err
			}
			out.SetTrailer(tr)
			return out.Send(&testpb.StreamingOutputCallResponse{})
		},
	}
	check := func(t *testing.T, h, tr metadata.MD) {
		t.Helper()
		if !slices.Equal(h["h"], []string{"1", "2"}) || !slices.Equal(h["h-bin"], []string{"\xfe"}) {
			t.Errorf("headers %q", h)
		}
		if !slices.Equal(tr["t"], []string{"x"}) || !slices.Equal(tr["t-bin"], []string{"\x00"}) {
			t.Errorf("trailers %q", tr)
		}
	}
	overBoth(t, server, chains{}, func(t *testing.T, client testpb.TestServiceClient) {
		ctx := metadata.NewOutgoingContext(testContext(t), want)
		var h, tr metadata.MD
		if _, err := client.UnaryCall(ctx, sized(0), grpc.Header(&h), grpc.Trailer(&tr)); err != nil {
			t.Fatal(err)
		}
		check(t, h, tr)
		h, tr = nil, nil
		if _, err := client.UnaryCall(ctx, sized(1), grpc.Header(&h), grpc.Trailer(&tr)); status.Code(err) != codes.Aborted {
			t.Fatal(err)
		}
		check(t, h, tr)
		st, err := client.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{})
		if err != nil {
			t.Fatal(err)
		}
		h, err = st.Header()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Recv(); err != nil {
			t.Fatal(err)
		}
		if _, err := st.Recv(); !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
		check(t, h, st.Trailer())
	})
}

func TestGRPCStatus(t *testing.T) { //nolint:tparallel // overBoth makes it parallel
	full, err := status.New(codes.ResourceExhausted, "quota of 5 used up: ünïcode").WithDetails(
		&errdetails.QuotaFailure{Violations: []*errdetails.QuotaFailure_Violation{{Subject: "s", Description: "d"}}},
		&errdetails.ErrorInfo{Reason: "QUOTA", Domain: "example.com", Metadata: map[string]string{"k": "v"}})
	if err != nil {
		t.Fatal(err)
	}
	server := &testServer{
		unary: func(_ context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			switch len(in.GetPayload().GetBody()) {
			case 0:
				return nil, full.Err()
			case 1:
				return nil, errors.New("plain")
			case 2:
				return nil, context.DeadlineExceeded
			case 3:
				return nil, context.Canceled
			default:
				return nil, errors.Join(errors.New("outer"), status.Error(codes.NotFound, "inner"))
			}
		},
		stream: func(_ *testpb.StreamingOutputCallRequest, out grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
			for range 3 {
				if err := out.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
					return err
				}
			}
			return full.Err()
		},
	}
	overBoth(t, server, chains{}, func(t *testing.T, client testpb.TestServiceClient) {
		ctx := testContext(t)
		_, err := client.UnaryCall(ctx, sized(0))
		if got := status.Convert(err); !proto.Equal(got.Proto(), full.Proto()) {
			t.Errorf("got %v, want %v", got.Proto(), full.Proto())
		}
		for n, want := range []codes.Code{codes.ResourceExhausted, codes.Unknown, codes.DeadlineExceeded, codes.Canceled, codes.NotFound} {
			if _, err := client.UnaryCall(ctx, sized(n)); status.Code(err) != want {
				t.Errorf("%d: %v, want %v", n, err, want)
			}
		}
		if _, err := client.UnaryCall(ctx, sized(1)); status.Convert(err).Message() != "plain" {
			t.Errorf("got %v", err)
		}
		if _, err := client.EmptyCall(ctx, &testpb.Empty{}); status.Code(err) != codes.Unimplemented {
			t.Errorf("a method that is not implemented: %v", err)
		}
		st, err := client.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{})
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			if _, err := st.Recv(); err != nil {
				t.Fatal(err)
			}
		}
		_, err = st.Recv()
		if got := status.Convert(err); !proto.Equal(got.Proto(), full.Proto()) {
			t.Errorf("the stream ended with %v", got.Proto())
		}
	})
}

func TestGRPCSizes(t *testing.T) {
	server := &testServer{unary: echoUnary, stream: func(in *testpb.StreamingOutputCallRequest, out grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
		return out.Send(&testpb.StreamingOutputCallResponse{Payload: in.GetPayload()})
	}}
	overBoth(t, server, chains{}, func(t *testing.T, client testpb.TestServiceClient) {
		ctx := testContext(t)
		if _, err := client.UnaryCall(ctx, sized(2000), grpc.MaxCallSendMsgSize(1000)); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "vs. 1000") {
			t.Errorf("sent too much: %v", err)
		}
		if _, err := client.UnaryCall(ctx, sized(2000), grpc.MaxCallRecvMsgSize(1000)); status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "vs. 1000") {
			t.Errorf("received too much: %v", err)
		}
		if _, err := client.UnaryCall(ctx, sized(2000), grpc.MaxCallRecvMsgSize(3000), grpc.MaxCallSendMsgSize(3000)); err != nil {
			t.Error(err)
		}
		st, err := client.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{Payload: &testpb.Payload{Body: make([]byte, 2000)}}, grpc.MaxCallRecvMsgSize(1000))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Recv(); status.Code(err) != codes.ResourceExhausted {
			t.Errorf("received too much from a stream: %v", err)
		}
	})
}

// token is a credential of a call.
type token struct{ fail bool }

func (c token) GetRequestMetadata(_ context.Context, uri ...string) (map[string]string, error) {
	if c.fail {
		return nil, errors.New("no token")
	}
	if len(uri) != 1 || !strings.HasPrefix(uri[0], "https://") || !strings.HasSuffix(uri[0], "/grpc.testing.TestService") {
		return nil, status.Errorf(codes.Internal, "asked for %q", uri)
	}
	return map[string]string{"authorization": "Bearer x"}, nil
}

func (token) RequireTransportSecurity() bool { return true }

func TestGRPCCredentialsPeerAndFinish(t *testing.T) {
	server := &testServer{unary: func(ctx context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		p, ok := peer.FromContext(ctx)
		if !ok {
			return nil, status.Error(codes.Internal, "no peer")
		}
		info, ok := p.AuthInfo.(credentials.TLSInfo)
		if !ok || len(info.State.PeerCertificates) == 0 || p.Addr == nil {
			return nil, status.Errorf(codes.Internal, "peer %+v", p)
		}
		id, err := ident.FromCertificate(info.State.PeerCertificates[0])
		if err != nil || id.Service != "caller" {
			return nil, status.Errorf(codes.Internal, "caller %v, %v", id, err)
		}
		md, _ := metadata.FromIncomingContext(ctx)
		if len(in.GetPayload().GetBody()) == 0 && !slices.Equal(md["authorization"], []string{"Bearer x"}) {
			return nil, status.Errorf(codes.Internal, "authorization %q", md["authorization"])
		}
		return &testpb.SimpleResponse{}, nil
	}}
	overBoth(t, server, chains{}, func(t *testing.T, client testpb.TestServiceClient) {
		ctx := testContext(t)
		var p peer.Peer
		var finished []error
		done := grpc.OnFinish(func(err error) { finished = append(finished, err) })
		if _, err := client.UnaryCall(ctx, sized(0), grpc.PerRPCCredentials(token{}), grpc.Peer(&p), done); err != nil {
			t.Fatal(err)
		}
		info, ok := p.AuthInfo.(credentials.TLSInfo)
		if !ok || p.Addr == nil {
			t.Fatalf("peer %+v", p)
		}
		if id, err := ident.FromCertificate(info.State.PeerCertificates[0]); err != nil || id.Instance != "in_a" {
			t.Errorf("callee %v, %v", id, err)
		}
		_, err := client.UnaryCall(ctx, sized(0), grpc.PerRPCCredentials(token{fail: true}), done)
		if status.Code(err) != codes.Internal {
			t.Errorf("a credential that fails: %v", err)
		}
		if len(finished) != 2 || finished[0] != nil || status.Code(finished[1]) != codes.Internal {
			t.Errorf("finished with %v", finished)
		}
	})
}

func TestGRPCDeadlineAndCancel(t *testing.T) { //nolint:tparallel // its parts share their channels
	began := make(chan struct{}, 10)
	saw := make(chan error, 10)
	server := &testServer{
		unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			if _, ok := ctx.Deadline(); !ok {
				return nil, status.Error(codes.Internal, "no deadline")
			}
			began <- struct{}{}
			<-ctx.Done()
			saw <- ctx.Err()
			return nil, ctx.Err()
		},
		stream: func(_ *testpb.StreamingOutputCallRequest, out grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
			for {
				if err := out.Send(&testpb.StreamingOutputCallResponse{}); err != nil {
					saw <- out.Context().Err()
					return err
				}
			}
		},
	}
	t.Parallel()
	for name, over := range map[string]func(*testing.T, testpb.TestServiceServer, chains) grpc.ClientConnInterface{"grpc": overGRPC, "telford": overTelford} {
		t.Run(name, func(t *testing.T) {
			client := testpb.NewTestServiceClient(over(t, server, chains{}))
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			if _, err := client.UnaryCall(ctx, sized(0)); status.Code(err) != codes.DeadlineExceeded {
				t.Errorf("deadline: %v", err)
			}
			<-began
			if err := <-saw; !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
				t.Errorf("the handler saw %v", err)
			}
			ctx, cancel = context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			go func() { <-began; cancel() }()
			if _, err := client.UnaryCall(ctx, sized(0)); status.Code(err) != codes.Canceled {
				t.Errorf("cancel: %v", err)
			}
			if err := <-saw; !errors.Is(err, context.Canceled) {
				t.Errorf("the handler saw %v", err)
			}
			ctx, cancel = context.WithCancel(t.Context())
			st, err := client.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{})
			if err != nil {
				t.Fatal(err)
			}
			if _, err := st.Recv(); err != nil {
				t.Fatal(err)
			}
			cancel()
			for err == nil {
				_, err = st.Recv()
			}
			if status.Code(err) != codes.Canceled {
				t.Errorf("a cancelled stream: %v", err)
			}
			<-saw
		})
	}
}

func TestGRPCInterceptors(t *testing.T) {
	type note struct{}
	add := func(ctx context.Context, s string) context.Context {
		list, _ := ctx.Value(note{}).([]string)
		return context.WithValue(ctx, note{}, append(slices.Clip(list), s))
	}
	notes := func(ctx context.Context) string { l, _ := ctx.Value(note{}).([]string); return strings.Join(l, ",") }
	server := &testServer{
		unary: func(ctx context.Context, _ *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
			md, _ := metadata.FromIncomingContext(ctx)
			return &testpb.SimpleResponse{Username: notes(ctx) + "|" + strings.Join(md["client"], ",")}, nil
		},
		stream: func(_ *testpb.StreamingOutputCallRequest, out grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
			md, _ := metadata.FromIncomingContext(out.Context())
			return out.Send(&testpb.StreamingOutputCallResponse{Payload: &testpb.Payload{Body: []byte(notes(out.Context()) + "|" + strings.Join(md["client"], ","))}})
		},
	}
	unary := func(name string) grpc.UnaryServerInterceptor {
		return func(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
			if info.FullMethod != "/grpc.testing.TestService/UnaryCall" {
				return nil, status.Errorf(codes.Internal, "method %s", info.FullMethod)
			}
			return next(add(ctx, name), req)
		}
	}
	client := func(name string) grpc.UnaryClientInterceptor {
		return func(ctx context.Context, method string, req, reply any, cc *grpc.ClientConn, next grpc.UnaryInvoker, opts ...grpc.CallOption) error {
			if cc == nil || cc.Target() == "" {
				return status.Error(codes.Internal, "no connection")
			}
			return next(metadata.AppendToOutgoingContext(ctx, "client", name), method, req, reply, cc, opts...)
		}
	}
	c := chains{
		unaryServer: []grpc.UnaryServerInterceptor{unary("a"), unary("b"), unary("c")},
		unaryClient: []grpc.UnaryClientInterceptor{client("1"), client("2")},
		streamServer: []grpc.StreamServerInterceptor{
			func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
				return next(srv, &wrapped{ss, add(ss.Context(), "a")})
			},
			func(srv any, ss grpc.ServerStream, _ *grpc.StreamServerInfo, next grpc.StreamHandler) error {
				return next(srv, &wrapped{ss, add(ss.Context(), "b")})
			},
		},
		streamClient: []grpc.StreamClientInterceptor{
			func(ctx context.Context, desc *grpc.StreamDesc, cc *grpc.ClientConn, method string, next grpc.Streamer, opts ...grpc.CallOption) (grpc.ClientStream, error) {
				return next(metadata.AppendToOutgoingContext(ctx, "client", "1"), desc, cc, method, opts...)
			},
		},
	}
	overBoth(t, server, c, func(t *testing.T, client testpb.TestServiceClient) {
		ctx := testContext(t)
		resp, err := client.UnaryCall(ctx, sized(0))
		if err != nil || resp.GetUsername() != "a,b,c|1,2" {
			t.Errorf("got %q, %v", resp.GetUsername(), err)
		}
		st, err := client.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{})
		if err != nil {
			t.Fatal(err)
		}
		chunk, err := st.Recv()
		if err != nil || string(chunk.GetPayload().GetBody()) != "a,b|1" {
			t.Errorf("got %q, %v", chunk.GetPayload().GetBody(), err)
		}
	})
}

type wrapped struct {
	grpc.ServerStream
	ctx context.Context
}

func (w *wrapped) Context() context.Context { return w.ctx }

func TestGRPCClientAndBidiStreams(t *testing.T) {
	server := &testServer{
		input: func(in grpc.ClientStreamingServer[testpb.StreamingInputCallRequest, testpb.StreamingInputCallResponse]) error {
			n := 0
			for {
				m, err := in.Recv()
				if errors.Is(err, io.EOF) {
					return in.SendAndClose(&testpb.StreamingInputCallResponse{AggregatedPayloadSize: int32(n)})
				}
				if err != nil {
					return err
				}
				n += len(m.GetPayload().GetBody())
			}
		},
		duplex: func(s grpc.BidiStreamingServer[testpb.StreamingOutputCallRequest, testpb.StreamingOutputCallResponse]) error {
			for {
				m, err := s.Recv()
				if errors.Is(err, io.EOF) {
					return nil
				}
				if err != nil {
					return err
				}
				if err := s.Send(&testpb.StreamingOutputCallResponse{Payload: m.GetPayload()}); err != nil {
					return err
				}
			}
		},
	}
	overBoth(t, server, chains{}, func(t *testing.T, client testpb.TestServiceClient) {
		ctx := testContext(t)
		in, err := client.StreamingInputCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if err := in.Send(&testpb.StreamingInputCallRequest{Payload: &testpb.Payload{Body: make([]byte, 100)}}); err != nil {
				t.Fatal(err)
			}
		}
		if resp, err := in.CloseAndRecv(); err != nil || resp.GetAggregatedPayloadSize() != 1000 {
			t.Errorf("got %v, %v", resp, err)
		}
		both, err := client.FullDuplexCall(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for range 10 {
			if err := both.Send(&testpb.StreamingOutputCallRequest{Payload: &testpb.Payload{Body: []byte("x")}}); err != nil {
				t.Fatal(err)
			}
			if m, err := both.Recv(); err != nil || string(m.GetPayload().GetBody()) != "x" {
				t.Fatalf("got %v, %v", m, err)
			}
		}
		if err := both.CloseSend(); err != nil {
			t.Fatal(err)
		}
		if _, err := both.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("the end is %v", err)
		}
	})
}

func TestGRPCWaitForReady(t *testing.T) {
	t.Parallel()
	server := &testServer{unary: echoUnary}
	t.Run("grpc", func(t *testing.T) {
		t.Parallel()
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		w := newWorld(t)
		callee, caller := w.service("echo", "in_a"), w.service("caller", "in_b")
		t.Cleanup(func() { callee.release(); caller.release() })
		addr := ln.Addr().String()
		_ = ln.Close()
		cc, err := grpc.NewClient(addr, grpc.WithTransportCredentials(credentials.NewTLS(caller.trust.ClientConfig(ident.Expect{Instance: "in_a"}, "h2"))))
		if err != nil {
			t.Fatal(err)
		}
		defer cc.Close()
		gs := grpc.NewServer(grpc.Creds(credentials.NewTLS(callee.trust.ServerConfig("h2"))))
		testpb.RegisterTestServiceServer(gs, server)
		defer gs.Stop()
		waitForReady(t, testpb.NewTestServiceClient(cc), func() {
			ln, err := net.Listen("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			_ = gs.Serve(ln)
		})
	})
	t.Run("telford", func(t *testing.T) {
		t.Parallel()
		w := newWorld(t)
		callee := w.service("echo", "in_a")
		testpb.RegisterTestServiceServer(callee, server)
		caller := w.start(w.service("caller", "in_b", CallerOnly()))
		w.introduce()
		waitForReady(t, testpb.NewTestServiceClient(caller.Conn("echo")), func() {
			w.start(callee)
			w.introduce()
		})
	})
}

// waitForReady calls before anybody is there, with and without waiting.
func waitForReady(t *testing.T, client testpb.TestServiceClient, serve func()) {
	ctx := testContext(t)
	soon, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if _, err := client.UnaryCall(soon, sized(0)); status.Code(err) != codes.Unavailable {
		t.Errorf("without waiting: %v", err)
	}
	var wg sync.WaitGroup
	begin := time.AfterFunc(200*time.Millisecond, func() { wg.Go(serve) })
	defer begin.Stop()
	if _, err := client.UnaryCall(ctx, sized(0), grpc.WaitForReady(true)); err != nil {
		t.Errorf("waiting: %v", err)
	}
}

func TestGRPCOtherOptionIsRefused(t *testing.T) {
	t.Parallel()
	client := testpb.NewTestServiceClient(overTelford(t, &testServer{unary: echoUnary}, chains{}))
	for _, opt := range []grpc.CallOption{grpc.UseCompressor("gzip"), grpc.CallContentSubtype("json"), grpc.MaxRetryRPCBufferSize(1)} {
		_, err := client.UnaryCall(testContext(t), sized(0), opt)
		if !errors.Is(err, ErrInvalidArgument) || status.Code(err) != codes.InvalidArgument {
			t.Errorf("%T: %v", opt, err)
		}
		if _, err := client.StreamingOutputCall(testContext(t), &testpb.StreamingOutputCallRequest{}, opt); !errors.Is(err, ErrInvalidArgument) {
			t.Errorf("%T on a stream: %v", opt, err)
		}
	}
	if _, err := client.StreamingOutputCall(testContext(t), &testpb.StreamingOutputCallRequest{}, MaxAttempts(2)); !errors.Is(err, ErrInvalidArgument) {
		t.Errorf("MaxAttempts on a stream: %v", err)
	}
	if _, err := client.UnaryCall(testContext(t), sized(0), Timeout(time.Second), MaxAttempts(1), Transport(Direct)); err != nil {
		t.Errorf("our own options: %v", err)
	}
}

func TestGRPCErrorsMatchSentinels(t *testing.T) {
	t.Parallel()
	client := testpb.NewTestServiceClient(overTelford(t, &testServer{unary: func(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
		return nil, Errorf(CodeConflict, "charged already")
	}}, chains{}))
	_, err := client.UnaryCall(testContext(t), sized(0))
	var e *Error
	if !errors.Is(err, ErrConflict) || status.Code(err) != codes.Aborted || !errors.As(err, &e) || e.Message != "charged already" {
		t.Errorf("got %v", err)
	}
}
