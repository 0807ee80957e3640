package telford

import (
	"context"
	"errors"
	"maps"
	"net"
	"runtime"
	"slices"
	"strings"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/client"
	"telford.dev/telford/internal/direct"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/invoke"
)

// Start gets the service a certificate, listens, opens the session with the runtime,
// registers, and returns once the instance is on the map and knows those it uses. While
// the runtime cannot be reached it goes on trying until ctx ends; what trying again
// cannot mend is returned at once. ctx bounds only the start itself.
//
// A service is started once; after an error it is done with. A second Start is a
// StateError.
func (s *Service) Start(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	s.mu.Lock()
	if s.state != stateNew {
		defer s.mu.Unlock()
		return stateError("start "+s.name, s.state)
	}
	s.state = stateStarting
	s.startCancel = cancel
	deferred := s.deferred
	s.mu.Unlock()
	defer close(s.startDone)

	err := errors.Join(deferred...)
	if err == nil {
		err = s.begin(ctx)
	}
	s.mu.Lock()
	stopping := s.state != stateStarting
	if !stopping && err == nil {
		s.state = stateRunning
	}
	s.mu.Unlock()
	switch {
	case err == nil && stopping:
		return stateError("start "+s.name, stateStopping)
	case err == nil:
		return nil
	}
	s.release() //nolint:contextcheck // what was built is taken down also when ctx has ended
	s.mu.Lock()
	if s.state == stateStarting {
		s.state = stateStopped
	}
	s.mu.Unlock()
	return err
}

// begin builds up what release takes down.
func (s *Service) begin(ctx context.Context) error {
	if err := s.listenDirect(ctx); err != nil {
		return err
	}
	s.table.Freeze()
	key := s.opt.key
	var serverName string
	if s.opt.tls != nil {
		serverName = s.opt.tls.serverName
	}
	session := client.New(client.Options{
		Server: s.opt.server, Key: key, ServerName: serverName, Service: s.name, Instance: s.instance,
		SDK: "go " + strings.TrimPrefix(runtime.Version(), "go"), Trust: s.trust, Table: s.table, View: s.view,
		Declaration: s.declaration, Backoff: s.opt.reconnect, MaxInFlight: s.opt.maxInFlight, Events: s.sessionEvents(), //nolint:contextcheck // the session outlives the start
		Rules: s.obey, Denials: s.guard, FailOnViolation: s.opt.failOnViolation, DeafAfter: s.opt.deafAfter, Clock: s.opt.clock, Log: s.log,
	})
	s.mu.Lock()
	s.session = session
	session.SetStatus(catalog.Status(s.status), s.statusMessage) //nolint:contextcheck // the session outlives the start
	s.mu.Unlock()
	s.serveCalls(session)
	return session.Start(ctx)
}

// serveCalls makes outbound calls possible.
func (s *Service) serveCalls(proxy invoke.Runtime) {
	s.invoker.Store(invoke.New(invoke.Options{
		View: s.view, Pool: s.pool, Proxy: proxy, Locality: s.opt.locality, Clock: s.opt.clock,
		RetryShare: s.opt.retryShare,
		Denied:     s.deniedCall,
		Want: func(service string) {
			if s.view.Want(service) {
				s.rewatch()
			}
		},
	}))
}

func (s *Service) rewatch() {
	s.mu.Lock()
	session := s.session
	s.mu.Unlock()
	if session != nil {
		session.Rewatch()
	}
}

// listenDirect opens the port for direct calls. A service that serves nothing needs
// none.
func (s *Service) listenDirect(ctx context.Context) error {
	if s.opt.callerOnly || s.opt.listen == "" && len(s.table.Methods()) == 0 && len(s.grpcServer.GetServiceInfo()) == 0 {
		return nil
	}
	addr := s.opt.listen
	if addr == "" {
		addr = ":0"
		if loopback(ctx, s.opt.server) && s.opt.advertiseHost == "" {
			addr = "127.0.0.1:0"
		}
	}
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", addr)
	if err != nil {
		return errs.New(errs.FailedPrecondition, "listen for direct calls on %s: %w; choose another address with Listen", addr, err).In("sdk", "start "+s.name)
	}
	s.serveDirect(ln)
	return nil
}

// inLines is how many calls of one connection may wait for the limits of their methods,
// beyond those that run and wait for the instance.
const inLines = 16_384

func (s *Service) serveDirect(ln net.Listener) {
	l := direct.Serve(ln, direct.ListenerOptions{
		Trust: s.trust, Clock: s.opt.clock, Log: s.log, Table: s.table, GRPC: s.grpcServer,
		MaxInbound: s.opt.maxRunning + s.opt.maxWaiting + s.opt.maxStreams + s.opt.maxLine + inLines, MaxWaiting: s.opt.maxWaiting,
	})
	s.mu.Lock()
	s.listener = l
	s.mu.Unlock()
}

// loopback reports whether the way to addr does not leave this host.
func loopback(ctx context.Context, addr string) bool {
	nc, err := (&net.Dialer{}).DialContext(ctx, "udp", addr) // sends nothing
	if err != nil {
		return false
	}
	defer nc.Close()
	host, ok := nc.LocalAddr().(*net.UDPAddr)
	return ok && host.IP.IsLoopback()
}

// endpoint is the address that others dial; false when there is none.
func (s *Service) endpoint(local net.Addr) (catalog.Endpoint, bool, error) {
	s.mu.Lock()
	l := s.listener
	s.mu.Unlock()
	if l == nil {
		return catalog.Endpoint{}, false, nil
	}
	tcp, ok := l.Addr().(*net.TCPAddr)
	if !ok {
		return catalog.Endpoint{}, false, errs.New(errs.Internal, "the listener has the address %v, which is no TCP address", l.Addr())
	}
	e := catalog.Endpoint{Kind: "link", Host: s.opt.advertiseHost, Port: s.opt.advertisePort}
	if e.Port == 0 {
		e.Port = tcp.Port
	}
	switch {
	case e.Host != "":
	case s.opt.listen != "":
		e.Host, _, _ = net.SplitHostPort(s.opt.listen) // checked by Listen
	default:
		from, ok := local.(*net.TCPAddr)
		if !ok || from.IP.IsUnspecified() {
			return e, false, errs.New(errs.FailedPrecondition, "the session's own address %v cannot be advertised; give Advertise(host, port)", local)
		}
		e.Host = from.IP.String()
	}
	if ip := net.ParseIP(e.Host); ip != nil && ip.IsLoopback() || e.Host == "localhost" {
		s.warnLoopback.Do(func() {
			s.log.Warn("this instance advertises a loopback address: only processes on this host can call it directly", "host", e.Host, "port", e.Port)
		})
	}
	return e, true, nil
}

// declaration describes this instance to the runtime.
func (s *Service) declaration(local net.Addr) (*catalog.Declaration, error) {
	endpoint, listens, err := s.endpoint(local)
	if err != nil {
		return nil, errs.From(err).In("sdk", "register "+s.name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	o := &s.opt
	d := &catalog.Declaration{
		Service: s.name, Realm: o.realm, Version: o.version, CompatibleVersions: o.compatible, Methods: s.table.Methods(),
		Tags: o.tags, Metadata: maps.Clone(o.metadata), Capabilities: slices.Clone(o.capabilities), Scope: catalog.ScopeGlobal, Locality: o.locality,
		Weight: o.weight, TTL: o.ttl, SDK: "telford-go",
	}
	if o.local {
		d.Scope = catalog.ScopeZone
	}
	if len(d.Methods) > 0 && !slices.Contains(d.Capabilities, "rpc.handle") {
		d.Capabilities = append(d.Capabilities, "rpc.handle")
	}
	if listens {
		d.Endpoints = []catalog.Endpoint{endpoint}
	}
	for _, m := range o.menu {
		d.Menu = append(d.Menu, catalog.MenuItem{ID: m.ID, Label: m.Label, Kind: m.Kind, Path: m.Path, Icon: m.Icon, Order: m.Order, Roles: m.Roles})
	}
	for _, service := range slices.Sorted(maps.Keys(s.uses)) {
		d.Dependencies = append(d.Dependencies, catalog.Dependency{Kind: "rpc", Target: service, Names: slices.Compact(slices.Sorted(slices.Values(s.uses[service])))})
	}
	d.Dependencies = append(d.Dependencies, s.depends...)
	if d.Descriptors, err = s.descriptors.marshal(); err != nil {
		return nil, errs.New(errs.Internal, "encode the descriptors: %w", err).In("sdk", "register "+s.name)
	}
	return d, nil
}
