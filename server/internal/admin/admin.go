// Package admin owns the administration of a runtime, telford.admin.v1: it decodes a
// request, calls the domain and encodes the answer, over gRPC and as JSON over HTTP,
// both by the same code. It alone decides that administration takes the operator's
// token, and writes each change to the audit log with its author. It keeps nothing and
// rules on nothing else.
//
// It starts one goroutine for each watch and one more for each over HTTP; they end with
// the request, or by Stop.
package admin

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"google.golang.org/grpc"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
	"telford.dev/telford/server/internal/alarm"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/registry"
)

// Authority is the part of the identity domain that is administered;
// *identity.Authority is one.
type Authority interface {
	PKI
	Authenticate(ctx context.Context, bearer string) (identity.Principal, error)
	CreateKey(ctx context.Context, in identity.CreateKey) (identity.Key, string, error)
	Keys(ctx context.Context, f identity.KeyFilter) ([]identity.Key, error)
	RevokeKey(ctx context.Context, id, author, reason string) (identity.Key, error)
	RotateKey(ctx context.Context, id string, grace time.Duration, author string) (identity.Key, string, error)
	EnsureNamespace(ctx context.Context, name string, account int64) (identity.Namespace, error)
	Namespace(ref string) (identity.Namespace, error)
	Namespaces() []identity.Namespace
	RemoveNamespace(ctx context.Context, ref, author string) (identity.Namespace, error)
	SetAccount(ctx context.Context, ref string, account int64, author string) (identity.Namespace, error)
}

// Registry is the part of the registry that is administered; *registry.Registry is one.
type Registry interface {
	List(f registry.Filter) []*catalog.Instance
	Get(namespace, id string) (*catalog.Instance, error)
	Tombstones(ctx context.Context, f registry.Filter) ([]catalog.Tombstone, error)
	Watch(namespace string, services []string, after catalog.Revision) *registry.Watcher
	Drain(ctx context.Context, namespace, id string, on bool) error
	Deregister(ctx context.Context, namespace, id string, reason catalog.Reason) error
	Forbidden(namespace, id string) []catalog.DeclarationWarning
	Held() []registry.Held
	ConfirmExpiry(namespace string) int
}

// Config are the parts of an API; all are needed unless they say otherwise.
type Config struct {
	Authority Authority
	Registry  Registry
	Rules     Rules
	// Method finds the method that a call by a name would mean.
	Method func(namespace, service, name string) (catalog.Method, error)
	Keyed  Keyed
	Limits Limits
	// Values is the configuration, Events the feed.
	Values Values
	Events Events
	// EndSession ends the session of an instance, telling it the cause; false when it
	// has none.
	EndSession func(namespace, instance string, cause *errs.Error) bool
	// Info describes the node. The message belongs to the caller.
	Info func() *adminv1.Info
	// Alarms is what somebody has to see to; nil: never anything.
	Alarms *alarm.Board
	// Now is the time, for the state of keys.
	Now func() time.Time
	// Log is where changes are audited.
	Log *slog.Logger
}

// API is the administration of one runtime.
type API struct {
	cfg      Config
	once     sync.Once
	stopping chan struct{}
}

// New returns an API over the parts.
func New(cfg Config) *API { return &API{cfg: cfg, stopping: make(chan struct{})} }

// Stop ends the watches, which would go on for ever; further ones are refused. It is
// safe more than once.
func (a *API) Stop() { a.once.Do(func() { close(a.stopping) }) }

// Register adds the services of telford.admin.v1 to a gRPC server. Each checks the
// credential of its caller itself, whatever interceptors the server has.
func (a *API) Register(to grpc.ServiceRegistrar) {
	g := &guard{to: to, authority: a.cfg.Authority, log: a.cfg.Log}
	adminv1.RegisterKeysServer(g, &keys{api: a})
	adminv1.RegisterNamespacesServer(g, &namespaces{api: a})
	adminv1.RegisterIdempotencyServer(g, &keyed{api: a})
	adminv1.RegisterLimitsServer(g, &limits{api: a})
	adminv1.RegisterConfigServer(g, &values{api: a})
	adminv1.RegisterFeedServer(g, &events{api: a})
	adminv1.RegisterPKIServer(g, &pki{api: a})
	adminv1.RegisterServicesServer(g, &services{api: a})
	adminv1.RegisterPolicyServer(g, &policies{api: a})
	adminv1.RegisterTransportServer(g, &transports{api: a})
	adminv1.RegisterSystemServer(g, &system{api: a})
}
