package main

import (
	"context"
	"net"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"telford.dev/telford/bench/internal/measure"
	echov1 "telford.dev/telford/bench/rpc/echo/v1"
)

// echo is the service behind every stack with generated stubs.
type echo struct {
	echov1.UnimplementedEchoServer
}

func (echo) Call(_ context.Context, in *echov1.Blob) (*echov1.Blob, error) {
	return &echov1.Blob{Data: in.GetData()}, nil
}

func (echo) Down(in *echov1.Blob, out grpc.ServerStreamingServer[echov1.Blob]) error {
	chunk := &echov1.Blob{Data: in.GetData()}
	for {
		if err := out.Send(chunk); err != nil {
			return err
		}
	}
}

func grpcStacks() []stack {
	return []stack{
		{
			name: "grpc", about: "grpc-go, unary, mTLS, one connection, default options, no deadline",
			serve: serveGRPC, dial: func(_ context.Context, e env) (client, error) { return dialGRPC(e, unaryStub) },
		},
		{
			name: "grpc-stream", about: "grpc-go, server streaming, mTLS, one connection", stream: true,
			serve: serveGRPC, dial: func(_ context.Context, e env) (client, error) { return dialGRPC(e, streamStub) },
		},
	}
}

func serveGRPC(ctx context.Context, e env) error {
	conf, err := mutualTLS(e.Dir, "server")
	if err != nil {
		return err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	server := grpc.NewServer(grpc.Creds(credentials.NewTLS(conf)))
	echov1.RegisterEchoServer(server, echo{})
	context.AfterFunc(ctx, server.Stop)
	measure.Ready(listener.Addr().String())
	return server.Serve(listener)
}

func dialGRPC(e env, caller stubCaller) (client, error) {
	conf, err := mutualTLS(e.Dir, "client")
	if err != nil {
		return client{}, err
	}
	conn, err := grpc.NewClient("passthrough:///"+e.Target, grpc.WithTransportCredentials(credentials.NewTLS(conf)))
	if err != nil {
		return client{}, err
	}
	return client{
		caller: func(int) (measure.Call, error) { return caller(echov1.NewEchoClient(conn), e.Size), nil },
		close:  func() { _ = conn.Close() },
	}, nil
}

// stubCaller makes the call of one caller from a generated client, whatever carries it.
type stubCaller func(stub echov1.EchoClient, size int) measure.Call

func unaryStub(stub echov1.EchoClient, size int) measure.Call {
	in := &echov1.Blob{Data: payload(size)}
	return func(ctx context.Context) error {
		out, err := stub.Call(ctx, in)
		if err != nil {
			return err
		}
		return checkSize(len(out.GetData()), size)
	}
}

// streamStub opens its stream with the first call; every call receives one chunk.
func streamStub(stub echov1.EchoClient, size int) measure.Call {
	var stream grpc.ServerStreamingClient[echov1.Blob]
	return func(ctx context.Context) error {
		if stream == nil {
			var err error
			if stream, err = stub.Down(ctx, &echov1.Blob{Data: payload(size)}); err != nil {
				return err
			}
		}
		out, err := stream.Recv()
		if err != nil {
			return err
		}
		return checkSize(len(out.GetData()), size)
	}
}
