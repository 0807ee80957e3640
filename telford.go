// Package telford is the Go SDK of Telford: a service registers itself, serves methods
// and calls those of others, directly or through the runtime, with one identity, one
// error model and one trace.
//
// A Service is made with New, given handlers with Handle, HandleStream or
// RegisterService, started with Start and ended with Stop. Calls are made with Call and
// Stream, or with protoc-generated clients on Conn.
//
// The package reads no environment unless FromEnv is given, keeps no state outside of a
// Service, and never uses a global logger or tracer. A Service owns all goroutines that
// it starts; they end with Stop.
package telford

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"

	"google.golang.org/grpc"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/client"
	"telford.dev/telford/internal/direct"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/guard"
	"telford.dev/telford/internal/handlers"
	"telford.dev/telford/internal/id"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/invoke"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/view"
)

// Service is this process as an instance of a service. It is safe for concurrent use.
type Service struct {
	name  string
	opt   options
	log   *slog.Logger
	trust *ident.Trust
	table *handlers.Table
	view  *view.View
	chain handlers.Interceptors
	// guard decides inbound calls by the policy, of which policy is what users may see.
	guard  *guard.Guard
	policy policyState
	// grpcServer serves plain gRPC callers that dial this instance.
	grpcServer *grpc.Server
	events     *notifier

	pool *direct.Pool
	// callDefaults and streamDefaults are what calls begin with.
	callDefaults, streamDefaults callSettings
	// invoker makes outbound calls; nil unless the service runs.
	invoker      atomic.Pointer[invoke.Invoker]
	typed        sync.Map // typedCall to *invoke.Route
	linked       sync.Map // method to its contract by the types linked here
	warnLoopback sync.Once
	closing      sync.WaitGroup // what fencing closes

	mu            sync.Mutex
	state         lifeState
	instance      string
	descriptors   descriptorSet
	uses          map[string][]string
	depends       []catalog.Dependency
	deferred      []error // what RegisterService could not report
	conns         map[string]*grpcConn
	listener      *direct.Listener
	session       *client.Session
	startCancel   context.CancelFunc
	startDone     chan struct{}
	status        Status
	statusMessage string
	stopOnce      sync.Once
	stopped       chan struct{}
	stopErr       error
}

// New makes a service of the given name, which must be that of its key. It reports
// every option that is wrong at once, as one error of code invalid_argument. Nothing is
// dialed or listened on before Start.
func New(name string, opts ...Option) (*Service, error) {
	o := defaultOptions()
	var bad problems
	bad.add(ident.CheckService(name))
	for _, opt := range opts {
		if opt == nil {
			bad.addf("an option is nil")
			continue
		}
		opt.applyService(&o, &bad)
	}
	o.validate(&bad)
	if err := bad.err("new service " + name); err != nil {
		return nil, err
	}
	log := o.logger
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	s := &Service{
		name: name, opt: o, log: log.With("service", name), trust: ident.NewTrust(o.calendar), view: view.New(), guard: guard.New(name),
		uses: make(map[string][]string), conns: make(map[string]*grpcConn), instance: o.instanceID, stopped: make(chan struct{}),
		startDone: make(chan struct{}), status: StatusOK, callDefaults: defaultSettings(), streamDefaults: defaultSettings(),
		chain: handlers.Interceptors{Unary: o.unaryServer, Stream: o.streamServer},
	}
	if s.instance == "" {
		s.instance = id.New("in")
	}
	if o.tls != nil {
		if err := s.trust.SetCertificate(o.tls.cert); err != nil {
			return nil, errs.From(err).In("sdk", "new service "+name)
		}
		s.trust.SetRoots(o.tls.roots)
		own := s.trust.Identity()
		if own.Service != name {
			return nil, errs.New(errs.InvalidArgument, "the certificate of WithTLS is for service %s, not for %s", own.Service, name).In("sdk", "new service "+name)
		}
		if o.instanceID != "" && o.instanceID != own.Instance {
			return nil, errs.New(errs.InvalidArgument, "InstanceID is %s and the certificate of WithTLS is for instance %s", o.instanceID, own.Instance).In("sdk", "new service "+name)
		}
		s.instance = own.Instance
	}
	s.table = handlers.New(handlers.Options{
		Service: name, MaxRunning: o.maxRunning, MaxWaiting: o.maxWaiting,
		MaxStreams: o.maxStreams, MaxStreamsWaiting: o.maxLine, Clock: o.clock, Tracer: o.tracer, Log: s.log, Refuse: s.refuseCaller, Allow: s.guard.Allow,
	})
	s.grpcServer = s.newGRPCServer()
	s.events = newNotifier(s.log)
	s.pool = direct.NewPool(direct.PoolOptions{
		Trust: s.trust, Clock: o.clock, Log: s.log, Breaking: o.breaking, OnFailing: s.reportFailing,
	})
	for _, opt := range o.defaults {
		opt.applyCall(&s.callDefaults)
		if both, ok := opt.(StreamOption); ok {
			both.applyStream(&s.streamDefaults)
		}
	}
	for _, u := range o.uses {
		s.declareUse(u.service, u.methods...)
	}
	s.depends = append(s.depends, o.depends...)
	return s, nil
}

// Name is the name given to New.
func (s *Service) Name() string { return s.name }

// refuseCaller looks at the caller of an inbound call, which on the way through the
// runtime may be one whose revocation only this end has heard of yet. Before the rules
// are known here nobody is let in.
func (s *Service) refuseCaller(c message.Caller) *errs.Error {
	if err := s.guard.Ready(); err != nil {
		return err
	}
	who := ident.Identity{TrustDomain: "telford", Namespace: c.Namespace, Service: c.Service, Instance: c.Instance, KeyID: c.KeyID}
	if s.trust.Revoked(who) {
		return errs.New(errs.PermissionDenied, "the key or the instance of the caller, %s of %s, is revoked", c.Instance, c.Service)
	}
	return nil
}

// lifeState is where a Service stands.
type lifeState int

const (
	stateNew lifeState = iota
	stateStarting
	stateRunning
	stateStopping
	stateStopped
)

func (l lifeState) String() string {
	return [...]string{"new", "starting", "running", "stopping", "stopped"}[l]
}

// running returns the invoker, or a StateError.
func (s *Service) running(operation string) (*invoke.Invoker, error) {
	if v := s.invoker.Load(); v != nil {
		return v, nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return nil, stateError(operation, s.state)
}

// beforeStart returns a StateError once Start was called.
func (s *Service) beforeStart(operation string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.state != stateNew {
		return stateError(operation, s.state)
	}
	return nil
}

var _ grpc.ServiceRegistrar = (*Service)(nil)
