// Package grpcdoor owns what plain gRPC clients find on the runtime's port: the
// services Identity and Session, health, and the way through to every registered
// service. It decodes metadata and encodes statuses; bodies pass through undecoded.
//
// The Server owns the goroutine that serves; grpc-go owns those of connections and
// calls, and each Session/Open stream owns one that writes and those of its calls.
// Stop ends them all.
package grpcdoor

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	_ "google.golang.org/grpc/encoding/gzip" // clients may compress
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/keepalive"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/door/admit"
	"telford.dev/telford/server/internal/door/sessions"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/router"
)

// Router runs calls; *router.Router is one.
type Router interface {
	Call(ctx context.Context, req *router.Request) (*message.Reply, error)
	Stream(ctx context.Context, req *router.Request) (message.Stream, error)
	ResolveContract(namespace, service, name, contract string) (catalog.Method, error)
}

// Authority issues certificates; *identity.Authority is one.
type Authority interface {
	Provision(ctx context.Context, req identity.ProvisionRequest) (*identity.Issued, error)
	Renew(ctx context.Context, id ident.Identity, csr []byte) (*identity.Issued, error)
	TrustDomain() string
}

// Sizes and times of the door.
const (
	maxMetadata   = 2 * message.MaxHeaders // what grpc-go counts, names of its own included
	maxStreams    = 1000                   // calls at once on one connection
	pingIdle      = 30 * time.Second       // silence before a client is asked whether it lives
	pingTimeout   = 10 * time.Second
	minClientPing = 5 * time.Second // a client that pings more often is sent away
)

// Config says what is served.
type Config struct {
	Router    Router
	Gate      *admit.Gate
	Authority Authority
	// Sessions serves Session/Open.
	Sessions *sessions.Server
	// Register adds services, such as the administration API, which check the
	// credentials of their callers themselves.
	Register func(grpc.ServiceRegistrar)
	// Credentials are those of the accept loop.
	Credentials credentials.TransportCredentials
	Zone        string
	Clock       clock.Clock
	Log         *slog.Logger
}

// Server is the gRPC door.
type Server struct {
	cfg    Config
	grpc   *grpc.Server
	health *health.Server

	handlers sync.WaitGroup // of Session streams: their goroutines and their calls

	mu      sync.Mutex
	started bool
	stopped bool
	done    chan struct{}
}

// New returns a Server that has not started.
func New(cfg Config) *Server {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.Real()
	}
	s := &Server{cfg: cfg, health: health.NewServer(), done: make(chan struct{})}
	s.grpc = grpc.NewServer(
		grpc.Creds(cfg.Credentials),
		grpc.ForceServerCodecV2(newCodec()),
		grpc.UnknownServiceHandler(s.proxy),
		grpc.MaxRecvMsgSize(message.MaxPayload),
		grpc.MaxSendMsgSize(message.MaxPayload),
		grpc.MaxHeaderListSize(maxMetadata),
		grpc.MaxConcurrentStreams(maxStreams),
		grpc.WaitForHandlers(true),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: pingIdle, Timeout: pingTimeout}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: minClientPing, PermitWithoutStream: true}),
	)
	telfordv1.RegisterIdentityServer(s.grpc, &identityService{authority: cfg.Authority})
	if cfg.Sessions != nil {
		telfordv1.RegisterSessionServer(s.grpc, &sessionService{server: s})
	}
	grpc_health_v1.RegisterHealthServer(s.grpc, s.health)
	if cfg.Register != nil {
		cfg.Register(s.grpc)
	}
	return s
}

// Start serves on l, which the Server owns from here on. A second Start, or one after
// Stop, is an error and closes l.
func (s *Server) Start(l net.Listener) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.started || s.stopped {
		_ = l.Close()
		return errs.New(errs.FailedPrecondition, "the gRPC door was started or stopped before; make a new one").In("grpc", "start")
	}
	s.started = true
	go func() {
		defer close(s.done)
		if err := s.grpc.Serve(l); err != nil && !errors.Is(err, grpc.ErrServerStopped) && !errors.Is(err, net.ErrClosed) {
			s.cfg.Log.Error("the gRPC door has ended", "error", err)
		}
	}()
	return nil
}

// Stop reports NOT_SERVING, takes no new calls and waits for those under way; when ctx
// ends first, they are cut. Sessions must have been ended before. It is safe before
// Start and more than once.
func (s *Server) Stop(ctx context.Context) {
	s.mu.Lock()
	s.stopped = true
	started := s.started
	s.mu.Unlock()
	s.health.Shutdown()
	graceful := make(chan struct{})
	go func() {
		defer close(graceful)
		s.grpc.GracefulStop()
	}()
	select {
	case <-graceful:
	case <-ctx.Done():
		s.grpc.Stop()
		<-graceful
	}
	if started {
		<-s.done
	}
	s.handlers.Wait()
}
