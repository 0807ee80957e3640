package runtime

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net/http"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/admin"
	"telford.dev/telford/server/internal/alarm"
	"telford.dev/telford/server/internal/config"
	"telford.dev/telford/server/internal/door/accept"
	"telford.dev/telford/server/internal/door/admit"
	grpcdoor "telford.dev/telford/server/internal/door/grpc"
	httpdoor "telford.dev/telford/server/internal/door/http"
	linkdoor "telford.dev/telford/server/internal/door/link"
	restdoor "telford.dev/telford/server/internal/door/rest"
	"telford.dev/telford/server/internal/door/sessions"
	"telford.dev/telford/server/internal/feed"
	"telford.dev/telford/server/internal/idempotency"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/metrics"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/restreg"
	"telford.dev/telford/server/internal/router"
	"telford.dev/telford/server/internal/rules"
	"telford.dev/telford/server/internal/store"
	"telford.dev/telford/server/internal/tx"
)

// part is one step of the start, and its undoing. stop is called once, when start
// succeeded; its context says when patience ends.
type part struct {
	name  string
	start func(context.Context) error
	stop  func(context.Context) error
	// door says that stop waits for others: callers, instances.
	door bool
}

// components is what the parts have built.
type components struct {
	alarms    *alarm.Board
	metrics   *metrics.Metrics
	store     *store.Store
	authority *identity.Authority
	rules     *rules.Rules
	registry  *registry.Registry
	keys      *idempotency.Keys
	feed      *feed.Feed
	config    *config.Values
	router    *router.Router
	gate      *admit.Gate
	sessions  *sessions.Server
	admin     *admin.API
	accept    *accept.Server
	grpc      *grpcdoor.Server
	http      *httpdoor.Server
	services  *restreg.Directory // of the REST registry; nil: it is off
	callees   *restdoor.Callees
	rest      *restdoor.Door

	listeners          []*listener
	grpcAddr, httpAddr string
}

// plan lists the parts in the order of their start.
func (r *Runtime) plan(early chan<- error) []*part {
	parts := []*part{
		{name: "store", start: r.startStore, stop: func(context.Context) error { return r.built.store.Close() }},
		{name: "identity", start: r.startIdentity, stop: func(ctx context.Context) error { return r.built.authority.Stop(ctx) }},
		{name: "rules", start: r.startRules, stop: func(ctx context.Context) error { return r.built.rules.Stop(ctx) }},
		{name: "registry", start: r.startRegistry, stop: func(ctx context.Context) error { return r.built.registry.Stop(ctx) }},
		{name: "feed", start: r.startFeed, stop: func(ctx context.Context) error { return r.built.feed.Stop(ctx) }},
		{name: "configuration", start: r.startConfig, stop: func(ctx context.Context) error { return r.built.config.Stop(ctx) }},
		{name: "idempotency", start: r.startIdempotency, stop: func(ctx context.Context) error { return r.built.keys.Stop(ctx) }},
		{name: "router", start: r.startRouter, stop: r.stopRouter, door: true},
	}
	if r.cfg.GRPC != Off {
		parts = append(parts, &part{
			name: "grpc", start: func(ctx context.Context) error { return r.startGRPC(ctx, early) }, stop: r.stopGRPC, door: true,
		})
	}
	if r.cfg.HTTP != Off && r.cfg.REST != Off {
		parts = append(parts, &part{name: "rest", start: r.startREST, stop: r.stopREST})
	}
	if r.cfg.HTTP != Off {
		parts = append(parts, &part{
			name: "http", start: func(ctx context.Context) error { return r.startHTTP(ctx, early) }, stop: r.stopHTTP, door: true,
		})
	}
	return parts
}

func (r *Runtime) startStore(ctx context.Context) (err error) {
	r.built.alarms = alarm.New(r.clock, r.part("alarm"))
	build := BuildInfo()
	if r.built.metrics, err = metrics.New(build.Version, build.Commit, build.GoVersion); err != nil {
		return err
	}
	r.built.store, err = store.Open(ctx, store.Config{
		URL: r.cfg.Database, Data: r.cfg.Data, Clock: r.cfg.Clock, Log: r.part("store"),
		Metrics: r.built.metrics.Registerer(), Fast: r.cfg.Fast,
	})
	return err
}

func (r *Runtime) startIdentity(ctx context.Context) (err error) {
	vault, err := r.vault()
	if err != nil {
		return err
	}
	s := r.built.store
	config := r.cfg.identity(s, r.part("identity"))
	config.Vault, config.Alarms = vault, r.built.alarms
	r.built.authority, err = identity.Open(ctx, config)
	if err != nil {
		return err
	}
	s.OnReopen(r.built.authority.Reload)
	if err := r.writeRoots(); err != nil {
		return err
	}
	r.built.authority.OnRoots(func() {
		if err := r.writeRoots(); err != nil {
			r.log.Error("commands on this host may not believe this runtime any more", "error", err)
		}
	})
	return r.built.authority.Start(ctx)
}

// identity is the part of the configuration that the identity domain takes.
func (c Config) identity(s *store.Store, log *slog.Logger) identity.Config {
	clk := c.CertificateClock
	if clk == nil {
		clk = s.Clock()
	}
	return identity.Config{
		DB: s, Storage: s, Clock: clk, Log: log, Shared: c.Postgres(),
		ClusterSecret: c.ClusterSecret, Data: c.Data, Dev: c.Dev, TrustDomain: c.TrustDomain,
		LeafLife: c.LeafLife, IssuerLife: c.IssuerLife, RootLife: c.RootLife, Hosts: c.advertised(),
	}
}

// vault is where the keys of the cluster are. Nodes that share a database share the keys
// in it.
func (r *Runtime) vault() (identity.Vault, error) {
	return r.cfg.vault(r.built.store)
}

func (c Config) vault(s *store.Store) (identity.Vault, error) {
	switch {
	case c.Vault != nil:
		return c.Vault, nil
	case c.Postgres():
		return identity.NewMetaVault(s, s, c.ClusterSecret)
	default:
		return nil, nil // files below Data
	}
}

// startRules reads what operators have laid down, by which everything behind it goes.
func (r *Runtime) startRules(ctx context.Context) (err error) {
	s, authority := r.built.store, r.built.authority
	r.built.rules, err = rules.Open(ctx, rules.Config{
		DB: s, Storage: s, Namespaces: authority, Clock: s.Clock(), Log: r.part("rules"),
	})
	if err != nil {
		return err
	}
	s.OnReopen(r.built.rules.Reload)
	authority.AddTenant(r.built.rules)
	return r.built.rules.Start(ctx)
}

func (r *Runtime) startRegistry(ctx context.Context) (err error) {
	s := r.built.store
	r.built.registry, err = registry.Open(ctx, registry.Config{
		DB: s, Storage: s, Policy: r.built.rules, Clock: s.Clock(), Log: r.part("registry"), Zone: r.cfg.Zone,
		Alarms: r.built.alarms,
	})
	if err != nil {
		return err
	}
	s.OnReopen(r.built.registry.Reload)
	r.built.rules.OnChange(r.built.registry.Apply)
	r.built.authority.AddTenant(r.built.registry)
	r.built.authority.SetHolder(func(namespace, instance string) (string, bool) {
		i, err := r.built.registry.Get(namespace, instance)
		if err != nil {
			return "", false
		}
		return i.Declaration.Service, true
	})
	return r.built.registry.Start(ctx)
}

// returning is how long calls through a node that has started wait for instances that
// were registered before: the SDK tries to connect at least this often.
const returning = 30 * time.Second

// startRouter builds what the doors share.
func (r *Runtime) startRouter(context.Context) error {
	b := &r.built
	b.router = router.New(router.Config{
		Index: b.registry, Policy: b.rules, Keys: b.keys, Zone: r.cfg.Zone, Locality: r.cfg.Locality, Clock: r.clock, Log: r.part("router"),
		Returning: returning, Failing: b.registry,
	})
	b.gate = admit.New(b.authority, b.authority.Trust())
	b.sessions = sessions.New(sessions.Config{
		Registry: b.registry, Router: b.router, Authority: b.authority, Rules: b.rules, Shares: b.router.Shares, Zone: r.cfg.Zone,
		Version: BuildInfo().Version, Clock: r.clock, Log: r.part("sessions"),
	})
	r.applyLimits()
	b.admin = admin.New(admin.Config{
		Authority: b.authority, Registry: b.registry, Rules: b.rules, Method: b.router.ResolveMethod, Keyed: b.keys, Values: b.config, Events: b.feed, Limits: b.rules, EndSession: b.sessions.End, Alarms: b.alarms,
		Info: r.info, Now: b.store.Clock().Now, Log: r.part("admin"),
	})
	return r.registerMetrics()
}

// stopRouter ends what the doors share. Sessions have ended before, unless the start
// did not come that far.
func (r *Runtime) stopRouter(ctx context.Context) error {
	r.built.admin.Stop()
	r.built.sessions.Stop(ctx)
	r.built.gate.Close()
	return nil
}

func (r *Runtime) startGRPC(ctx context.Context, early chan<- error) error {
	b := &r.built
	link := linkdoor.New(linkdoor.Config{
		Sessions: b.sessions, Router: b.router, Authority: b.authority, Clock: r.clock, Log: r.part("link"),
	})
	b.accept = accept.New(accept.Config{
		Trust: b.authority.Trust(), Link: link.Serve, Clock: b.authority.Trust().Clock(), Log: r.part("accept"),
	})
	b.grpc = grpcdoor.New(grpcdoor.Config{
		Router: b.router, Gate: b.gate, Authority: b.authority, Sessions: b.sessions, Register: b.admin.Register,
		Credentials: accept.Credentials(), Zone: r.cfg.Zone, Clock: r.clock, Log: r.part("grpc"),
	})
	l, err := listen(ctx, "grpc", r.cfg.GRPC, early)
	if err != nil {
		return err
	}
	b.listeners = append(b.listeners, l)
	b.grpcAddr = l.Addr().String()
	if err := b.grpc.Start(b.accept.GRPC()); err != nil {
		return errors.Join(err, l.Close())
	}
	if err := b.accept.Start(l); err != nil { //nolint:contextcheck // connections outlive the start
		b.grpc.Stop(ctx)
		return err
	}
	return nil
}

func (r *Runtime) stopGRPC(ctx context.Context) error {
	r.built.accept.Stop(ctx)
	r.built.grpc.Stop(ctx)
	return nil
}

func (r *Runtime) startHTTP(ctx context.Context, early chan<- error) error {
	b := &r.built
	config, err := r.httpTLS()
	if err != nil {
		return err
	}
	problem := func(w http.ResponseWriter, _ *http.Request, err *errs.Error) { httpdoor.WriteProblem(w, err) }
	gateway, err := b.admin.Gateway(problem) //nolint:contextcheck // requests bring contexts of their own
	if err != nil {
		return err
	}
	door := httpdoor.Config{
		Router: b.router, Gate: b.gate, TLS: config, Ready: r.checkReady, Metrics: b.metrics.Handler(),
		Admin: gateway, Version: BuildInfo().Version, Zone: r.cfg.Zone, Log: r.part("http"),
	}
	if b.rest != nil {
		door.REST = b.rest
	}
	b.http = httpdoor.New(door)
	l, err := listen(ctx, "http", r.cfg.HTTP, early)
	if err != nil {
		return err
	}
	b.listeners = append(b.listeners, l)
	b.httpAddr = l.Addr().String()
	if err := b.http.Start(l); err != nil {
		return err
	}
	if err := r.writeURL(); err != nil {
		return errors.Join(err, r.stopHTTP(ctx))
	}
	return nil
}

// httpTLS is the TLS of the HTTP door; nil when it is plain.
func (r *Runtime) httpTLS() (*tls.Config, error) {
	switch {
	case r.cfg.plainHTTP():
		return nil, nil
	case r.cfg.HTTPCert != "":
		f, err := newFileCertificate(r.cfg.HTTPCert, r.cfg.HTTPKey, r.part("http"))
		if err != nil {
			return nil, err
		}
		return f.config(), nil
	default:
		return r.built.authority.Trust().HTTPConfig("h2", "http/1.1"), nil
	}
}

func (r *Runtime) stopHTTP(ctx context.Context) error {
	r.removeURL()
	r.built.http.Stop(ctx)
	return nil
}

// readyWait bounds the question to the store.
const readyWait = 2 * time.Second

// checkReady says why the runtime does not take work, nil when it does.
func (r *Runtime) checkReady(ctx context.Context) error {
	if !r.ready.Load() {
		return errs.New(errs.Unavailable, "the runtime is starting or stopping")
	}
	ctx, cancel := context.WithTimeout(ctx, readyWait)
	defer cancel()
	if err := r.built.store.Read(ctx, func(tx.Tx) error { return nil }); err != nil {
		return errs.New(errs.Unavailable, "the store does not answer: %w", err)
	}
	return nil
}
