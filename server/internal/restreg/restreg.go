// Package restreg owns what the REST registry needs beyond the registry of instances:
// services that live by heartbeats with a deadline each, the chain of heartbeat tokens,
// the tokens that stand for a key, and the exact order in which all of that ends. Each of
// its services is an instance of the registry too. It knows no HTTP.
//
// One goroutine, owned by the Directory between Start and Stop, ends the services that
// nobody asks about; what else runs, runs on goroutines of callers.
package restreg

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/tx"
)

const component = "restreg"

// Door is the door that the registry shows for services of a Directory.
const Door = "rest"

// DefaultServices is how many services a namespace may have unless it has a quota.
const DefaultServices = 200

// The types of events that a Directory writes.
const (
	Joined   = "service.join"
	Removed  = "service.remove"
	TimedOut = "service.timeout"
)

// Instances is the registry, as far as a Directory needs it; *registry.Registry is one.
type Instances interface {
	Register(ctx context.Context, o registry.Owner, d *catalog.Declaration) (catalog.Revision, []registry.Warning, error)
	Deregister(ctx context.Context, namespace, id string, reason catalog.Reason) error
	Get(namespace, id string) (*catalog.Instance, error)
	List(f registry.Filter) []*catalog.Instance
	Touch(namespace, id string) bool
}

// Event is something that happened to a service. ID and At are zero unless the event
// has them by itself: that of a timeout is the token that was not shown, at its deadline.
type Event struct {
	Type    string
	ID      string
	At      time.Time
	Payload []byte // JSON
}

// Config is what a Directory is made of. DB, Storage, Instances and Secret are required.
type Config struct {
	DB        tx.DB
	Storage   Storage
	Instances Instances
	// Secret is what tokens are signed with: the same after every start.
	Secret [32]byte
	Clock  clock.Clock  // nil: the machine's
	Log    *slog.Logger // nil: none
	// Append writes an event within the transaction of what happened; nil: nobody is told.
	Append func(t tx.Tx, namespace string, e Event) error
	// Quota returns how many instances a namespace may have, 0 if nobody has said so; nil:
	// nobody has. A quota takes the place of DefaultServices.
	Quota func(namespace string) int
	// Connect makes a service callable whose metadata says where it is and what it does,
	// until end is called; nil: none can be called. It must not wait.
	Connect func(namespace, id, address string) (end func())
	// Grace is how long after its deadline a service still stands that nobody asks about,
	// so that a late heartbeat can save it. 5 s.
	Grace time.Duration
}

// Directory keeps the services of all namespaces. It is safe for concurrent use.
type Directory struct {
	cfg   Config
	log   *slog.Logger
	clock clock.Clock
	locks keyLocks

	mu       sync.RWMutex
	accounts map[string]*account

	// dirty: the memory was read anew, so that the registry may differ from it.
	dirty atomic.Bool
	stats counters
	life  lifecycle
}

// Open reads the services. Each has its whole timeout from now on, as nobody could be
// heard before.
func Open(ctx context.Context, cfg Config) (*Directory, error) {
	if cfg.DB == nil || cfg.Storage == nil || cfg.Instances == nil || cfg.Secret == [32]byte{} {
		return nil, errs.New(errs.InvalidArgument, "open the REST directory: a database, a storage, a registry and a secret are required")
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.Real()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Grace <= 0 {
		cfg.Grace = 5 * time.Second
	}
	d := &Directory{cfg: cfg, log: cfg.Log, clock: cfg.Clock, accounts: make(map[string]*account)}
	d.locks.init()
	d.life.init()
	if err := d.Reload(ctx); err != nil {
		return nil, err
	}
	return d, nil
}

// Reload reads the services again, for when the store may know more than memory does:
// after a commit whose outcome was unknown. It writes nothing.
func (d *Directory) Reload(ctx context.Context) error {
	var rows []*Row
	err := d.cfg.DB.Read(ctx, func(t tx.Tx) (err error) {
		rows, err = d.cfg.Storage.RESTServices(t)
		return err
	})
	if err != nil {
		return storeError("read services", err)
	}
	now := d.now()
	found := make(map[string]map[string]*Row)
	for _, row := range rows {
		if found[row.Namespace] == nil {
			found[row.Namespace] = make(map[string]*Row)
		}
		found[row.Namespace][row.ID] = row
		d.account(row.Namespace)
	}
	for _, a := range d.all() {
		for _, end := range a.reload(d, found[a.namespace], now) {
			end()
		}
	}
	d.dirty.Store(true)
	return nil
}

// account returns the account of a namespace, making it if there is none.
func (d *Directory) account(namespace string) *account {
	d.mu.RLock()
	a := d.accounts[namespace]
	d.mu.RUnlock()
	if a != nil {
		return a
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if a = d.accounts[namespace]; a == nil {
		a = newAccount(namespace)
		d.accounts[namespace] = a
	}
	return a
}

func (d *Directory) all() []*account {
	d.mu.RLock()
	defer d.mu.RUnlock()
	list := make([]*account, 0, len(d.accounts))
	for _, a := range d.accounts {
		list = append(list, a)
	}
	return list
}

// now is the time as it is stored: microseconds, UTC.
func (d *Directory) now() time.Time { return d.clock.Now().UTC().Truncate(time.Microsecond) }

// ServiceLimit is how many services a namespace may have.
func (d *Directory) ServiceLimit(namespace string) int {
	if d.cfg.Quota != nil {
		if n := d.cfg.Quota(namespace); n > 0 {
			return n
		}
	}
	return DefaultServices
}

// RemoveNamespaceTx refuses, failed_precondition, to let a namespace end that has
// services.
func (d *Directory) RemoveNamespaceTx(_ tx.Tx, namespace string) error {
	d.mu.RLock()
	a := d.accounts[namespace]
	d.mu.RUnlock()
	if a == nil {
		return nil
	}
	a.mu.Lock()
	n := len(a.services)
	a.mu.Unlock()
	if n == 0 {
		return nil
	}
	return errs.New(errs.FailedPrecondition, "namespace %q has %d services of the REST registry; delete them first, or let them lapse",
		namespace, n).In(component, "remove namespace")
}
