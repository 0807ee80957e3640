package sdktest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	testpb "google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"telford.dev/telford"
	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/telfordtest"
)

// testService is the gRPC half of the callee of these tests.
type testService struct {
	testpb.UnimplementedTestServiceServer
}

func (testService) UnaryCall(context.Context, *testpb.SimpleRequest) (*testpb.SimpleResponse, error) {
	return &testpb.SimpleResponse{}, nil
}

func (testService) StreamingOutputCall(_ *testpb.StreamingOutputCallRequest, out grpc.ServerStreamingServer[testpb.StreamingOutputCallResponse]) error {
	return out.Send(&testpb.StreamingOutputCallResponse{})
}

func (testService) StreamingInputCall(in grpc.ClientStreamingServer[testpb.StreamingInputCallRequest, testpb.StreamingInputCallResponse]) error {
	return in.SendAndClose(&testpb.StreamingInputCallResponse{})
}

// target starts the service that everybody tries to call.
func (w *world) target(opts ...telford.Option) *telford.Service {
	w.t.Helper()
	s := w.echo(opts...)
	testpb.RegisterTestServiceServer(s, testService{})
	return w.start(s)
}

// credential is what somebody shows: a certificate, and the key of a service.
type credential struct {
	key  string
	cert *tls.Certificate
}

// certify gets a certificate for a key without an SDK.
func certify(t *testing.T, srv *telfordtest.Server, key, service, instance string) (*ident.Trust, error) {
	t.Helper()
	k, err := ident.ParseKey(key)
	must(t, err)
	private, csr, err := ident.NewRequest()
	must(t, err)
	cc, err := grpc.NewClient(srv.Addr(), grpc.WithTransportCredentials(credentials.NewTLS(ident.PinnedConfig(k, clock.Real()))))
	must(t, err)
	defer cc.Close()
	answer, err := telfordv1.NewIdentityClient(cc).Provision(t.Context(), &telfordv1.ProvisionRequest{
		KeyId: k.ID, Secret: k.Secret[:], Csr: csr, Service: service, Instance: instance,
	})
	if err != nil {
		return nil, err
	}
	cert, err := ident.Certificate(answer.GetChain(), private)
	must(t, err)
	roots, err := ident.ParseCertificates(answer.GetRoots())
	must(t, err)
	trust := ident.NewTrust(clock.Real())
	trust.SetRoots(roots)
	must(t, trust.SetCertificate(cert))
	return trust, nil
}

// way is one path of a call; it fails as the call does.
type way func(ctx context.Context) error

// rawWays are the paths of somebody who has no SDK and keeps no rule by himself. Each
// keeps the connection that its first call makes; more than one is an error.
func (w *world) rawWays(t *testing.T, who credential, callee telford.InstanceInfo) map[string]way {
	t.Helper()
	shows := func(alpn string) *tls.Config {
		return &tls.Config{
			MinVersion: tls.VersionTLS13, NextProtos: []string{alpn}, InsecureSkipVerify: true, // it is the other end that is to judge
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return who.cert, nil },
		}
	}
	linked := func(addr string, hello bool) func() (*link.Conn, error) {
		return sync.OnceValues(func() (*link.Conn, error) {
			nc, err := (&tls.Dialer{Config: shows(link.ALPN)}).DialContext(t.Context(), "tcp", addr)
			if err != nil {
				return nil, err
			}
			messages := make(chan []byte, 100)
			lc, err := link.Dial(t.Context(), nc, link.Options{Control: func(b []byte) { messages <- bytes.Clone(b) }})
			if err != nil {
				return nil, err
			}
			t.Cleanup(func() { lc.Close(nil) })
			if hello {
				err = sayHello(lc, messages)
			}
			return lc, err
		})
	}
	unary := func(open func() (*link.Conn, error)) way {
		return func(ctx context.Context) error {
			lc, err := open()
			if err != nil {
				return err
			}
			reply, err := lc.Call(ctx, &message.Call{Service: "echo", Method: "echo", ContentType: message.JSON, Body: []byte(`{"text":"x"}`)})
			if err == nil && reply.Err != nil {
				return reply.Err
			}
			return err
		}
	}
	stream := func(open func() (*link.Conn, error)) way {
		return func(ctx context.Context) error {
			lc, err := open()
			if err != nil {
				return err
			}
			st, err := lc.Stream(ctx, &message.Call{Service: "echo", Method: "count", Stream: true, ContentType: message.JSON, Body: []byte(`{"n":1}`)})
			if err != nil {
				return err
			}
			defer st.Close()
			for {
				if _, err := st.Recv(); err != nil {
					return orderly(err)
				}
			}
		}
	}
	plain := func(addr string, config *tls.Config, md ...string) (call, flow, input way) {
		dials := new(atomic.Int64)
		cc, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(credentials.NewTLS(config)),
			grpc.WithContextDialer(func(ctx context.Context, addr string) (net.Conn, error) {
				dials.Add(1)
				return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
			}))
		must(t, err)
		t.Cleanup(func() { _ = cc.Close() })
		stub := testpb.NewTestServiceClient(cc)
		counted := func(ctx context.Context, f func(ctx context.Context) error) error {
			err := f(metadata.AppendToOutgoingContext(ctx, md...))
			if n := dials.Load(); err == nil && n > 1 {
				return fmt.Errorf("it took %d connections", n)
			}
			return err
		}
		call = func(ctx context.Context) error {
			return counted(ctx, func(ctx context.Context) error {
				_, err := stub.UnaryCall(ctx, &testpb.SimpleRequest{})
				return err
			})
		}
		flow = func(ctx context.Context) error {
			return counted(ctx, func(ctx context.Context) error {
				st, err := stub.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{})
				if err != nil {
					return err
				}
				for {
					if _, err := st.Recv(); err != nil {
						return orderly(err)
					}
				}
			})
		}
		input = func(ctx context.Context) error {
			return counted(ctx, func(ctx context.Context) error {
				st, err := stub.StreamingInputCall(ctx)
				if err != nil {
					return err
				}
				_, err = st.CloseAndRecv()
				return err
			})
		}
		return call, flow, input
	}
	ways := make(map[string]way)
	directly, session := linked(callee.Address, false), linked(w.srv.Addr(), true)
	ways["direct link"], ways["direct link, stream"] = unary(directly), stream(directly)
	ways["link through the runtime"], ways["link through the runtime, stream"] = unary(session), stream(session)
	ways["direct gRPC"], ways["direct gRPC, stream"], ways["direct gRPC, stream of requests"] = plain(callee.Address, shows("h2"))
	ways["gRPC through the runtime"], ways["gRPC through the runtime, stream"], _ = plain(w.srv.Addr(), shows("h2"), "telford-service", "echo")
	bare := &tls.Config{MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, InsecureSkipVerify: true} // as above
	ways["gRPC with a key"], ways["gRPC with a key, stream"], _ = plain(w.srv.Addr(), bare, "telford-service", "echo", "authorization", "Bearer "+who.key)
	ways["HTTP"], ways["HTTP, stream"] = w.http(t, who.key, "/call/echo/echo"), w.http(t, who.key, "/stream/echo/count")
	return ways
}

// sayHello begins a session of the intruder on a link.
func sayHello(lc *link.Conn, messages <-chan []byte) error {
	b, err := proto.Marshal(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Hello{Hello: &telfordv1.Hello{
		Service: "intruder", Instance: "in-intruder",
	}}})
	if err == nil {
		err = lc.Control(b)
	}
	for err == nil {
		select {
		case b := <-messages:
			m := new(telfordv1.ServerMessage)
			if err = proto.Unmarshal(b, m); m.GetHelloAck() != nil {
				return nil
			}
		case <-lc.Done():
			err = lc.Err()
		}
	}
	return err
}

// orderly is nil for the end of a stream that is none of a failure.
func orderly(err error) error {
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

// http calls over the HTTP door with a key.
func (w *world) http(t *testing.T, key, path string) way {
	t.Helper()
	client := &http.Client{Transport: &http.Transport{}}
	t.Cleanup(client.CloseIdleConnections)
	return func(ctx context.Context) error {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, w.srv.HTTP()+path, bytes.NewReader([]byte(`{"text":"x","n":1}`)))
		if err != nil {
			return err
		}
		req.Header.Set("Authorization", "Bearer "+key)
		req.Header.Set("Content-Type", "application/json")
		resp, err := client.Do(req)
		if err != nil {
			return err
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		if err != nil {
			return err
		}
		if resp.StatusCode != http.StatusOK {
			return fmt.Errorf("status %d: %s", resp.StatusCode, body)
		}
		// The failure of a stream is in its last line.
		var last struct {
			Error json.RawMessage `json:"error"`
		}
		for lines := bufio.NewScanner(bytes.NewReader(body)); lines.Scan(); {
			last.Error = nil
			if json.Unmarshal(lines.Bytes(), &last) == nil && last.Error != nil {
				return fmt.Errorf("the stream ended with %s", last.Error)
			}
		}
		return nil
	}
}

// sdkWays are the paths of the SDK.
func sdkWays(s *telford.Service) map[string]way {
	ways := make(map[string]way)
	for name, mode := range map[string]telford.TransportMode{"SDK direct": telford.Direct, "SDK proxy": telford.Proxy, "SDK auto": telford.Auto} {
		ways[name] = func(ctx context.Context) error {
			_, err := telford.Call[echoResp](ctx, s, "echo", "echo", &echoReq{}, telford.Transport(mode))
			return err
		}
		ways[name+", stream"] = func(ctx context.Context) error {
			for _, err := range telford.Stream[echoResp](ctx, s, "echo", "count", &echoReq{N: 1}, telford.Transport(mode)) {
				if err != nil {
					return err
				}
			}
			return nil
		}
	}
	stub := testpb.NewTestServiceClient(s.Conn("echo"))
	ways["SDK stub"] = func(ctx context.Context) error {
		_, err := stub.UnaryCall(ctx, &testpb.SimpleRequest{})
		return err
	}
	ways["SDK stub, stream"] = func(ctx context.Context) error {
		st, err := stub.StreamingOutputCall(ctx, &testpb.StreamingOutputCallRequest{})
		if err != nil {
			return err
		}
		for {
			if _, err := st.Recv(); err != nil {
				return orderly(err)
			}
		}
	}
	ways["SDK stub, stream of requests"] = func(ctx context.Context) error {
		st, err := stub.StreamingInputCall(ctx)
		if err != nil {
			return err
		}
		_, err = st.CloseAndRecv()
		return err
	}
	return ways
}

// try makes one call of bounded time.
func (f way) try(t *testing.T) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return f(ctx)
}
