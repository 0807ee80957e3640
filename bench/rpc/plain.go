package main

import (
	"context"
	"fmt"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/bench/internal/measure"
	echov1 "telford.dev/telford/bench/rpc/echo/v1"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/ident"
)

// dialPlainGRPC is a client without a line of the SDK: it has a certificate of the
// cluster, as any program may, and dials the port of the service with grpc-go.
func dialPlainGRPC(ctx context.Context, e env) (client, error) {
	trust, err := provision(ctx, e)
	if err != nil {
		return client{}, fmt.Errorf("getting a certificate: %w", err)
	}
	conf := trust.ClientConfig(ident.Expect{Service: callee(e)}, "h2")
	conn, err := grpc.NewClient("passthrough:///"+e.Target, grpc.WithTransportCredentials(credentials.NewTLS(conf)))
	if err != nil {
		return client{}, err
	}
	return client{
		caller: func(int) (measure.Call, error) { return unaryStub(echov1.NewEchoClient(conn), e.Size), nil },
		close:  func() { _ = conn.Close() },
	}, nil
}

// provision asks the runtime for a certificate, as the guide for other languages says.
func provision(ctx context.Context, e env) (*ident.Trust, error) {
	text, err := devKey(e)
	if err != nil {
		return nil, err
	}
	key, err := ident.ParseKey(text)
	if err != nil {
		return nil, err
	}
	conn, err := grpc.NewClient("passthrough:///"+e.Shared, grpc.WithTransportCredentials(credentials.NewTLS(ident.PinnedConfig(key, clock.Real()))))
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	private, request, err := ident.NewRequest()
	if err != nil {
		return nil, err
	}
	issued, err := telfordv1.NewIdentityClient(conn).Provision(ctx, &telfordv1.ProvisionRequest{
		KeyId: key.ID, Secret: key.Secret[:], Csr: request, Service: callerName,
	})
	if err != nil {
		return nil, err
	}
	pair, err := ident.Certificate(issued.GetChain(), private)
	if err != nil {
		return nil, err
	}
	roots, err := ident.ParseCertificates(issued.GetRoots())
	if err != nil {
		return nil, err
	}
	trust := ident.NewTrust(clock.Real())
	trust.SetRoots(roots)
	return trust, trust.SetCertificate(pair)
}
