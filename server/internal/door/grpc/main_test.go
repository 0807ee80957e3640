package grpcdoor_test

import (
	"context"
	"crypto/tls"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/errpb"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/server/internal/door/accept"
	"telford.dev/telford/server/internal/door/doortest"
	grpcdoor "telford.dev/telford/server/internal/door/grpc"
	linkdoor "telford.dev/telford/server/internal/door/link"
	"telford.dev/telford/server/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// runtime is everything behind the port, and its address.
type runtime struct {
	*doortest.Backend
	addr string
}

func start(t *testing.T, opt doortest.Options) *runtime {
	t.Helper()
	st, err := store.Open(context.Background(), store.Config{Data: t.TempDir(), Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	b := doortest.New(t, st, opt)
	links := linkdoor.New(linkdoor.Config{Sessions: b.Sessions, Router: b.Router, Authority: b.Authority, Clock: b.Clock, Log: b.Log})
	door := grpcdoor.New(grpcdoor.Config{
		Router: b.Router, Gate: b.Gate, Authority: b.Authority, Sessions: b.Sessions,
		Credentials: accept.Credentials(), Clock: b.Clock, Log: b.Log,
	})
	server, addr := b.Listen(t, links.Serve)
	if err := door.Start(server.GRPC()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		b.StopSessions(0)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		door.Stop(ctx)
	})
	return &runtime{Backend: b, addr: addr}
}

// dial makes a plain gRPC client with the TLS configuration given.
func (r *runtime) dial(t *testing.T, cfg *tls.Config, opts ...grpc.DialOption) *grpc.ClientConn {
	t.Helper()
	cc, err := grpc.NewClient("passthrough:///"+r.addr, append(opts, grpc.WithTransportCredentials(credentials.NewTLS(cfg)))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	return cc
}

// byKey returns a client without a certificate, and a context with the key.
func (r *runtime) byKey(t *testing.T, service string) (*grpc.ClientConn, context.Context) {
	t.Helper()
	key, text := r.Key(t, service)
	return r.dial(t, ident.PinnedConfig(key, r.Clock)), metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+text)
}

// provider starts an instance over a link with the gRPC methods Charge (unary) and
// Watch (server-streaming) of shop.v1.Payments.
func (r *runtime) provider(t *testing.T, service, instance string, h doortest.Handler) *doortest.Wire {
	t.Helper()
	key, _ := r.Key(t, service)
	in := doortest.NewInstance(r.addr, r.Certify(t, key, service, instance), h)
	w := in.Connect(t, nil)
	if refused := w.Register(shop(service)).GetRefused(); refused != nil {
		t.Fatalf("registration refused: %v", refused)
	}
	return w
}

func shop(service string) *telfordv1.Declaration {
	return &telfordv1.Declaration{
		Service: service, Status: telfordv1.InstanceStatus_INSTANCE_STATUS_OK,
		Methods: []*telfordv1.Method{
			{Name: "shop.v1.Payments/Charge", Kind: telfordv1.MethodKind_METHOD_KIND_UNARY, ContentTypes: []string{"proto"}},
			{Name: "shop.v1.Payments/Watch", Kind: telfordv1.MethodKind_METHOD_KIND_SERVER_STREAM, ContentTypes: []string{"proto"}},
		},
	}
}

// check compares an error with what it has to be.
func check(t *testing.T, what string, err error, code errs.Code) *errs.Error {
	t.Helper()
	e := errpb.FromTransport(err)
	if err == nil {
		t.Errorf("%s: no error, want %s", what, code)
		return errs.New(errs.Internal, "")
	}
	if e.Code != code {
		t.Errorf("%s: %v (%s), want %s", what, err, e.Code, code)
	}
	if s, _ := status.FromError(err); s.Code() != code.GRPC() {
		t.Errorf("%s: gRPC code %s, want %s", what, s.Code(), code.GRPC())
	}
	return e
}
