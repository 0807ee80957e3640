package telford

import (
	"context"
	"net"
	"sync"

	"google.golang.org/grpc"
	"google.golang.org/grpc/resolver"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/direct"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/view"
)

// GRPCConn returns a real gRPC connection to the instances of a service, as plain gRPC
// over mTLS on the direct path: for libraries that insist on a *grpc.ClientConn, for
// client interceptors, and for methods that stream from the client. It connects when it
// is first used, follows the instances as they come and go, and ends with Stop; it is
// not to be closed. Calls on it do not retry, fall back or go through the runtime.
func (s *Service) GRPCConn(service string) (*grpc.ClientConn, error) {
	return s.plainConn(service, "")
}

// plainConn is GRPCConn, to the instances only that have the types of a gRPC service as
// they are linked here; "" means all.
func (s *Service) plainConn(service, grpcService string) (*grpc.ClientConn, error) {
	if _, err := s.running("connect to " + service); err != nil {
		return nil, err
	}
	key := service + "\x00" + grpcService
	s.mu.Lock()
	c := s.conns[key]
	if c == nil && s.conns != nil {
		c = &grpcConn{s: s, service: service, grpcService: grpcService}
		s.conns[key] = c
	}
	s.mu.Unlock()
	if c == nil {
		return nil, stateError("connect to "+service, stateStopped)
	}
	if s.view.Want(service) {
		s.rewatch()
	}
	return c.conn()
}

// grpcConn makes its connection once.
type grpcConn struct {
	s                    *Service
	service, grpcService string
	once                 sync.Once
	cc                   *grpc.ClientConn
	err                  error
}

func (c *grpcConn) conn() (*grpc.ClientConn, error) {
	c.once.Do(func() {
		c.cc, c.err = grpc.NewClient(scheme+":///"+c.service,
			grpc.WithResolvers(&viewResolver{s: c.s, grpcService: c.grpcService}),
			grpc.WithTransportCredentials(direct.Credentials()),
			grpc.WithContextDialer(func(ctx context.Context, instance string) (net.Conn, error) {
				return c.s.pool.DialHTTP2(ctx, instance)
			}),
			grpc.WithDisableServiceConfig(), grpc.WithDisableRetry(),
			grpc.WithDefaultServiceConfig(`{"loadBalancingConfig":[{"round_robin":{}}]}`),
			grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(message.MaxPayload), grpc.MaxCallSendMsgSize(message.MaxPayload)),
		)
		if c.err != nil {
			c.err = errs.New(errs.Internal, "connect to %s: %w", c.service, c.err)
		}
	})
	return c.cc, c.err
}

func (c *grpcConn) close() {
	if cc, err := c.conn(); err == nil {
		_ = cc.Close() // it fails only when it is closed already
	}
}

// scheme is that of the targets that viewResolver resolves.
const scheme = "telford"

// viewResolver turns the name of a service into its instances, from the view. Their
// "addresses" are instance ids, which the dialer knows how to reach.
type viewResolver struct {
	s           *Service
	grpcService string // whose types the instances must have; "" means any
}

// Scheme implements resolver.Builder.
func (r *viewResolver) Scheme() string { return scheme }

// Build implements resolver.Builder. The goroutine ends with Close.
func (r *viewResolver) Build(target resolver.Target, cc resolver.ClientConn, _ resolver.BuildOptions) (resolver.Resolver, error) {
	ctx, cancel := context.WithCancel(context.Background())
	w := &viewWatch{cancel: cancel}
	service := target.Endpoint()
	w.wg.Go(func() {
		for {
			changed := r.s.view.Changed()
			r.update(service, cc)
			select {
			case <-changed:
			case <-ctx.Done():
				return
			}
		}
	})
	return w, nil
}

func (r *viewResolver) update(service string, cc resolver.ClientConn) {
	var state resolver.State
	for _, i := range r.s.view.Snapshot().Services[service] {
		if usable(i) && r.s.speaks(i, r.grpcService) {
			r.s.pool.Peer(i, view.Address(i))
			state.Endpoints = append(state.Endpoints, resolver.Endpoint{Addresses: []resolver.Address{{Addr: i.ID, ServerName: service}}})
		}
	}
	if len(state.Endpoints) == 0 {
		cc.ReportError(errs.New(errs.NoInstance, "no instance of %s can be called directly", service))
		return
	}
	_ = cc.UpdateState(state) // the balancer asks again by itself
}

func usable(i *catalog.Instance) bool {
	return i.Declaration.Status.Receives() && !i.Draining && view.Address(i) != ""
}

type viewWatch struct {
	cancel context.CancelFunc
	wg     sync.WaitGroup
}

// ResolveNow implements resolver.Resolver; the view is always as new as can be.
func (w *viewWatch) ResolveNow(resolver.ResolveNowOptions) {}

// Close implements resolver.Resolver.
func (w *viewWatch) Close() {
	w.cancel()
	w.wg.Wait()
}
