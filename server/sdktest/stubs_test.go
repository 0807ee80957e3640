package sdktest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"telford.dev/telford"
)

// stubServer serves generated stubs.
type stubServer struct {
	grpc_testing.UnimplementedTestServiceServer
	calls atomic.Int64
}

func (s *stubServer) UnaryCall(context.Context, *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	s.calls.Add(1)
	return &grpc_testing.SimpleResponse{Username: "generated"}, nil
}

func (s *stubServer) EmptyCall(context.Context, *grpc_testing.Empty) (*grpc_testing.Empty, error) {
	return &grpc_testing.Empty{}, nil
}

func (s *stubServer) StreamingOutputCall(_ *grpc_testing.StreamingOutputCallRequest, out grpc.ServerStreamingServer[grpc_testing.StreamingOutputCallResponse]) error {
	s.calls.Add(1)
	return out.Send(&grpc_testing.StreamingOutputCallResponse{})
}

func (s *stubServer) FullDuplexCall(st grpc.BidiStreamingServer[grpc_testing.StreamingOutputCallRequest, grpc_testing.StreamingOutputCallResponse]) error {
	s.calls.Add(1)
	for {
		if _, err := st.Recv(); err != nil {
			return nil //nolint:nilerr // the caller has said all
		}
		if err := st.Send(&grpc_testing.StreamingOutputCallResponse{}); err != nil {
			return err
		}
	}
}

// duplex makes a call that streams both ways.
func duplex(ctx context.Context, stub grpc_testing.TestServiceClient) error {
	st, err := stub.FullDuplexCall(ctx)
	if err != nil {
		return err
	}
	if err := st.Send(&grpc_testing.StreamingOutputCallRequest{}); err != nil {
		return err
	}
	if _, err := st.Recv(); err != nil {
		return err
	}
	return st.CloseSend()
}

// TestStubsAreExact: a generated client goes to who has its types, though another version
// of the same methods is newer.
func TestStubsAreExact(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	server := &stubServer{}
	old := w.make("payments", telford.Version("1.0.0"))
	grpc_testing.RegisterTestServiceServer(old, server)
	w.start(old)
	var newer atomic.Int64
	next := w.make("payments", telford.Version("2.0.0"))
	must(t, telford.Handle(next, "grpc.testing.TestService/UnaryCall", func(context.Context, *reqV2) (*respV2, error) {
		newer.Add(1)
		return new(respV2), nil
	}))
	must(t, telford.HandleStream(next, "grpc.testing.TestService/StreamingOutputCall", func(_ context.Context, _ *reqV2, out *telford.Sender[respV2]) error {
		newer.Add(1)
		return out.Send(new(respV2))
	}))
	w.start(next)
	caller := w.start(w.make("caller", telford.CallerOnly(), telford.Uses("payments")))
	sides(t, caller, 2)
	for name, mode := range modes {
		stub := grpc_testing.NewTestServiceClient(caller.Conn("payments", telford.Transport(mode)))
		for range 10 {
			resp, err := stub.UnaryCall(t.Context(), &grpc_testing.SimpleRequest{})
			if err != nil || resp.GetUsername() != "generated" {
				t.Fatalf("%s: %v, %v", name, resp, err)
			}
			st, err := stub.StreamingOutputCall(t.Context(), &grpc_testing.StreamingOutputCallRequest{}, telford.ExactContract())
			must(t, err)
			if _, err := st.Recv(); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			if _, err := st.Recv(); !errors.Is(err, io.EOF) {
				t.Fatalf("%s: %v", name, err)
			}
		}
		if newer.Load() != 0 {
			t.Fatalf("%s: the other version got %d calls", name, newer.Load())
		}
		if _, err := stub.UnaryCall(t.Context(), &grpc_testing.SimpleRequest{}, telford.AnyContract()); err != nil || newer.Swap(0) != 1 {
			t.Errorf("%s: any contract: %v", name, err)
		}
	}
	// What streams from the client goes as plain gRPC, and to its own types too.
	stub := grpc_testing.NewTestServiceClient(caller.Conn("payments"))
	for range 20 {
		if err := duplex(t.Context(), stub); err != nil {
			t.Fatalf("both ways: %v", err)
		}
	}
	// A plain gRPC client that says what it means is held to it by the instance.
	cc, err := caller.GRPCConn("payments")
	must(t, err)
	own := contractOf(t, caller, "1.0.0", "grpc.testing.TestService/EmptyCall")
	plain := grpc_testing.NewTestServiceClient(cc)
	for contract, want := range map[string]codes.Code{"": codes.OK, own: codes.OK, "js:1": codes.OK, "pb:other": codes.Unavailable} {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "telford-contract", contract)
		// The newer version, which the connection may be at first, has not the method.
		eventually(t, fmt.Sprintf("contract %q ends with %v", contract, want), func() bool {
			_, err := plain.EmptyCall(ctx, &grpc_testing.Empty{})
			if got := status.Code(err); got != want && got != codes.Unimplemented {
				t.Errorf("contract %q: %v, want %v", contract, err, want)
			}
			return status.Code(err) == want
		})
	}
	w.stop(old)
	sides(t, caller, 1)
	if err := duplex(t.Context(), stub); !errors.Is(err, telford.ErrContract) {
		t.Errorf("both ways: %v", err)
	}
	for name, mode := range modes {
		stub := grpc_testing.NewTestServiceClient(caller.Conn("payments", telford.Transport(mode)))
		if _, err := stub.UnaryCall(t.Context(), &grpc_testing.SimpleRequest{}, telford.MaxAttempts(1)); !errors.Is(err, telford.ErrContract) {
			t.Errorf("%s: %v", name, err)
		}
		st, err := stub.StreamingOutputCall(t.Context(), &grpc_testing.StreamingOutputCallRequest{})
		if err == nil {
			_, err = st.Recv()
		}
		if !errors.Is(err, telford.ErrContract) {
			t.Errorf("%s: stream: %v", name, err)
		}
	}
}
