package telford

import (
	"context"
	"testing"
	"time"

	"google.golang.org/grpc"
	testpb "google.golang.org/grpc/interop/grpc_testing"
)

type benchServer struct {
	testpb.UnimplementedTestServiceServer
}

func (benchServer) UnaryCall(_ context.Context, in *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{Payload: in.GetPayload()}, nil
}

func (benchServer) StreamingOutputCall(in *testpb.StreamingOutputCallRequest, out grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	chunk := &testpb.StreamingOutputCallResponse{Payload: in.GetPayload()}
	for range in.GetResponseParameters()[0].GetSize() {
		if err := out.Send(chunk); err != nil {
			return err
		}
	}
	return nil
}

func benchClient(b *testing.B) testpb.TestServiceClient {
	w := newWorld(b)
	callee := w.service("echo", "in_a")
	testpb.RegisterTestServiceServer(callee, benchServer{})
	w.start(callee)
	caller := w.start(w.service("caller", "in_b", CallerOnly()))
	w.introduce()
	return testpb.NewTestServiceClient(caller.Conn("echo"))
}

func BenchmarkDirectUnary(b *testing.B) {
	for _, callers := range []int{1, 64} {
		b.Run(map[int]string{1: "1", 64: "64"}[callers], func(b *testing.B) {
			client := benchClient(b)
			req := &testpb.SimpleRequest{Payload: &testpb.Payload{Body: make([]byte, 128)}}
			ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
			defer cancel()
			if _, err := client.UnaryCall(ctx, req); err != nil {
				b.Fatal(err)
			}
			b.ReportAllocs()
			b.SetParallelism(max(callers/2, 1))
			b.ResetTimer()
			if callers == 1 {
				for b.Loop() {
					if _, err := client.UnaryCall(ctx, req); err != nil {
						b.Fatal(err)
					}
				}
				return
			}
			b.RunParallel(func(p *testing.PB) {
				for p.Next() {
					if _, err := client.UnaryCall(ctx, req); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}

func BenchmarkDirectStream(b *testing.B) {
	client := benchClient(b)
	req := &testpb.StreamingOutputCallRequest{
		Payload: &testpb.Payload{Body: make([]byte, 128)}, ResponseParameters: []*testpb.ResponseParameters{{Size: int32(b.N)}},
	}
	b.ReportAllocs()
	b.ResetTimer()
	st, err := client.StreamingOutputCall(context.Background(), req)
	if err != nil {
		b.Fatal(err)
	}
	for range b.N {
		if _, err := st.Recv(); err != nil {
			b.Fatal(err)
		}
	}
}
