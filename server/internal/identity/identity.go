// Package identity owns who may be whom in a cluster: the private certificate
// authority, service keys, namespaces, and what has been taken back. It decides and
// keeps; doors carry its answers, and what both ends of a connection check is in the
// root module's internal/ident. Its only goroutine is the timer that renews the
// runtime's own certificate, issuer and root and lets old revocations go: Start arms it,
// Stop ends it.
package identity

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/id"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/server/internal/alarm"
	"telford.dev/telford/server/internal/tx"
)

const component = "identity"

// DefaultNamespace exists from the first start on, with the account DefaultAccount.
const (
	DefaultNamespace       = "default"
	DefaultAccount   int64 = 1000
)

// Config is what an Authority is made of.
type Config struct {
	DB      tx.DB
	Storage Storage
	Clock   clock.Clock  // nil: the machine's
	Log     *slog.Logger // nil: none
	// Vault keeps the private keys; nil: files in DATA/pki.
	Vault Vault
	// ClusterSecret is the operator's TELFORD_CLUSTER_SECRET, at least 16 characters.
	// Empty: one is made at the first start and kept in the Vault.
	ClusterSecret string `json:"-"`
	// Data is the directory of admin.token and, in Dev, dev.key; "": they are kept in
	// memory only.
	Data string
	// Dev makes a key that may be any service, and accepts it.
	Dev bool
	// TrustDomain names the cluster at its first start; "": 12 random hex digits and
	// ".telford". Later another one is an error.
	TrustDomain string
	LeafLife    time.Duration // of certificates; 0: 24 h, at least 2 s
	IssuerLife  time.Duration // of the intermediate that signs them; 0: one year
	RootLife    time.Duration // 0: ten years
	// Node is the instance id of this runtime in its own certificate; "": a new one.
	Node string
	// Hosts are names and addresses, besides those of this machine, under which the
	// runtime is reached by clients that verify host names.
	Hosts []string
	// Holder says which service an instance id belongs to at present, so that another
	// service cannot take it; nil: only the certificates issued since the start count.
	// It must not wait.
	Holder func(namespace, instance string) (service string, held bool)
	// Alarms is told of what ends soon although it should have been renewed; nil: nobody.
	Alarms *alarm.Board
	// Shared says that other nodes use the same store.
	Shared bool
}

// Format implements fmt.Formatter: what tells one configuration from another, without
// the secret.
func (cfg Config) Format(s fmt.State, _ rune) {
	_, _ = fmt.Fprintf(s, "identity{data=%q dev=%t trust_domain=%q leaf_life=%s node=%q hosts=%q}",
		cfg.Data, cfg.Dev, cfg.TrustDomain, cfg.LeafLife, cfg.Node, cfg.Hosts)
}

// Authority is the certificate authority and the keeper of keys of one cluster. It is
// safe for concurrent use.
type Authority struct {
	cfg   Config
	db    tx.DB
	store Storage
	clock clock.Clock
	log   *slog.Logger
	vault Vault
	ids   id.Source

	mac      macKey
	ca       *ca
	trust    *ident.Trust
	keys     *keyring
	proved   proved
	names    *namespaces
	revs     *revocations
	issued   *issued
	renewals *limiter
	upkeep   *upkeep

	operator operatorToken
	devKey   *ident.Key

	// Of upkeep.work.
	ownRevision int64           // the hierarchy that the runtime's own chain is made for
	alive       time.Time       // when metaAlive was last written
	keyAlarms   map[string]bool // codes of the keys' alarms that are up

	rootsMu      sync.Mutex
	nextRootsSub int
	rootsSubs    map[int]func()

	holderMu sync.RWMutex
	holder   func(namespace, instance string) (service string, held bool)
}

// Open reads the state of the cluster, making it at the first start: root, issuer,
// secret, default namespace, operator token. ctx bounds the opening only. The error
// says what does not fit and what to do.
func Open(ctx context.Context, cfg Config) (*Authority, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	a := &Authority{
		cfg: cfg, db: cfg.DB, store: cfg.Storage, clock: cfg.Clock, log: cfg.Log, vault: cfg.Vault, holder: cfg.Holder,
		trust: ident.NewTrust(cfg.Clock), keys: newKeyring(), names: newNamespaces(),
		issued: newIssued(), renewals: newLimiter(cfg.LeafLife), rootsSubs: make(map[int]func()),
	}
	a.upkeep = newUpkeep(a)
	if a.mac, err = openSecret(ctx, a.meta(), cfg.Vault, cfg.ClusterSecret); err != nil {
		return nil, err
	}
	a.cfg.ClusterSecret = ""
	if a.ca, err = openCA(ctx, a.meta(), cfg); err != nil {
		return nil, err
	}
	a.ca.changed = a.rooted
	a.rooted()
	if err := a.load(ctx); err != nil {
		return nil, err
	}
	if err := a.followRoots(ctx); err != nil {
		return nil, err
	}
	if err := a.markAlive(ctx, cfg.Clock.Now()); err != nil {
		return nil, err
	}
	if err := a.openFiles(ctx); err != nil {
		return nil, err
	}
	return a, nil
}

func (cfg Config) withDefaults() (Config, error) {
	var bad []error
	if cfg.DB == nil || cfg.Storage == nil {
		bad = append(bad, errors.New("DB and Storage are required"))
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.Real()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	for _, life := range []struct {
		name string
		d    *time.Duration
		def  time.Duration
	}{
		{"LeafLife", &cfg.LeafLife, 24 * time.Hour},
		{"IssuerLife", &cfg.IssuerLife, 365 * 24 * time.Hour},
		{"RootLife", &cfg.RootLife, 10 * 365 * 24 * time.Hour},
	} {
		if *life.d == 0 {
			*life.d = life.def
		}
		if *life.d < 2*time.Second {
			bad = append(bad, fmt.Errorf("%s %s: want at least 2s", life.name, *life.d))
		}
	}
	if cfg.LeafLife > cfg.IssuerLife || cfg.IssuerLife > cfg.RootLife {
		bad = append(bad, fmt.Errorf("certificate lives: want leaf (%s) <= issuer (%s) <= root (%s)",
			cfg.LeafLife, cfg.IssuerLife, cfg.RootLife))
	}
	if cfg.Node == "" {
		cfg.Node = id.New("node")
	}
	if err := ident.CheckInstance(cfg.Node); err != nil {
		bad = append(bad, fmt.Errorf("node: %w", err))
	}
	if cfg.TrustDomain != "" {
		check := ident.Identity{TrustDomain: cfg.TrustDomain, Namespace: "n", Service: "s", Instance: "i"}
		if err := check.Check(); err != nil {
			bad = append(bad, err)
		}
	}
	if err := checkClusterSecret(cfg.ClusterSecret); err != nil {
		bad = append(bad, err)
	}
	if cfg.Vault == nil && cfg.Data == "" {
		bad = append(bad, errors.New("a Vault or a Data directory is required"))
	}
	if len(bad) > 0 {
		return cfg, errs.New(errs.InvalidArgument, "identity: %w", errors.Join(bad...))
	}
	if cfg.Vault == nil {
		cfg.Vault = NewFileVault(pkiDir(cfg.Data), cfg.ClusterSecret)
	}
	return cfg, nil
}

// load fills the caches from the store.
func (a *Authority) load(ctx context.Context) error {
	life, err := a.meta().largest(ctx, metaLeafLife, int64(a.cfg.LeafLife/time.Microsecond))
	if err != nil {
		return err
	}
	a.revs = newRevocations(time.Duration(life) * time.Microsecond)
	a.ca.longest.Store(int64(time.Duration(life) * time.Microsecond))
	if err := a.Reload(ctx); err != nil {
		return err
	}
	return a.ensureDefault(ctx)
}

// Reload reads keys, revocations, namespaces and the state of the roots again, for when the store may know
// more than memory does: after a commit whose outcome was unknown. It writes nothing.
func (a *Authority) Reload(ctx context.Context) error {
	var keys []*Key
	var revoked []*Revocation
	var names []*Namespace
	err := a.db.Read(ctx, func(t tx.Tx) (err error) {
		if keys, err = a.store.Keys(t, KeyFilter{}); err != nil {
			return err
		}
		if revoked, err = a.store.Revocations(t); err != nil {
			return err
		}
		names, err = a.store.Namespaces(t)
		return err
	})
	if err != nil {
		return storageError("read keys, revocations and namespaces", err)
	}
	a.keys.put(keys...)
	a.names.replace(names)
	a.revoked(revoked...)
	a.sweep(a.clock.Now())
	return a.ca.refresh(ctx)
}

// Start keeps the runtime's certificate fresh until Stop. It is safe to call twice and
// again after Stop; ctx bounds nothing.
func (a *Authority) Start(context.Context) error {
	a.upkeep.start()
	return nil
}

// Stop ends what Start began and waits for it. It is safe to call twice, and without
// Start.
func (a *Authority) Stop(context.Context) error {
	a.upkeep.stop()
	return nil
}

// Trust returns what this runtime believes and shows: its own certificate, the roots
// and the revocations, kept up to date.
func (a *Authority) Trust() *ident.Trust { return a.trust }

// TrustDomain returns the name of the cluster in SPIFFE ids.
func (a *Authority) TrustDomain() string { return a.ca.domain }

// Roots returns the roots to trust.
func (a *Authority) Roots() []*x509.Certificate { return a.trust.Roots() }

// SetHolder replaces Config.Holder, for a registry that is built after the Authority.
func (a *Authority) SetHolder(f func(namespace, instance string) (service string, held bool)) {
	a.holderMu.Lock()
	defer a.holderMu.Unlock()
	a.holder = f
}

// now is the time as it is stored: microseconds, UTC.
func (a *Authority) now() time.Time { return a.clock.Now().UTC().Truncate(time.Microsecond) }

// storageError puts an error of the store into the model.
func storageError(operation string, err error) error {
	code := errs.CodeOf(err)
	switch {
	case errors.Is(err, tx.ErrNotFound):
		code = errs.NotFound
	case errors.Is(err, tx.ErrExists):
		code = errs.AlreadyExists
	case errors.Is(err, tx.ErrStale):
		code = errs.Conflict
	case errors.Is(err, tx.ErrFull):
		code = errs.ResourceExhausted
	case errors.Is(err, tx.ErrReadOnly):
		code = errs.FailedPrecondition
	case errors.Is(err, tx.ErrClosed), errors.Is(err, tx.ErrOutcomeUnknown):
		code = errs.Unavailable
	}
	var e *errs.Error
	if errors.As(err, &e) {
		return e.In(component, operation)
	}
	return errs.New(code, "%w", err).In(component, operation)
}
