// Package registry owns what runs: which instances are registered, whether they are
// reachable, and who is told of it. It never calls an instance, opens a connection or
// chooses between instances. Reads of candidates take no lock; every change of memory
// happens after the change of the store is durable. One goroutine, owned by the
// Registry between Start and Stop, ends the leases that have run out.
package registry

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/alarm"
	"telford.dev/telford/server/internal/tx"
	"telford.dev/telford/server/internal/wheel"
)

// Config is what a Registry is made of. DB and Storage are required; zero values of
// the rest mean the default.
type Config struct {
	DB      tx.DB
	Storage Storage
	Clock   clock.Clock  // the clock of the machine
	Log     *slog.Logger // discards
	// Policy says what of a declaration has no effect; nil: nothing is forbidden. When its
	// answers change, Apply has to be called.
	Policy Policy
	// Zone is the name of the cluster that its instances are shown with.
	Zone string
	// TTL is the lease of an instance that names none: 90 s, and at least 1 s.
	TTL time.Duration
	// Tick is how finely leases end: up to so much later than they could. 1 s.
	Tick time.Duration
	// Retain is how many deltas a watch can be resumed over. 10,000.
	Retain int
	// MaxInstances bounds the instances of all namespaces together. 200,000.
	MaxInstances int
	// Hold is how long the ends of leases are held back at most, where so many run out
	// together that more likely something else is at fault. 1 h.
	Hold time.Duration
	// Alarms is told when ends are held back. Nil: nobody is.
	Alarms *alarm.Board
	// KeepTombstones is how long it is remembered why an instance went. 24 h.
	KeepTombstones time.Duration
}

func (c Config) withDefaults() Config {
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.TTL <= 0 {
		c.TTL = catalog.DefaultTTL
	}
	if c.Tick <= 0 {
		c.Tick = time.Second
	}
	if c.Retain <= 0 {
		c.Retain = 10_000
	}
	if c.MaxInstances <= 0 {
		c.MaxInstances = 200_000
	}
	if c.Hold <= 0 {
		c.Hold = time.Hour
	}
	if c.KeepTombstones <= 0 {
		c.KeepTombstones = 24 * time.Hour
	}
	return c
}

func (c Config) validate() error {
	switch {
	case c.DB == nil || c.Storage == nil:
		return errs.New(errs.InvalidArgument, "open registry: a database and a storage are required")
	case c.TTL < catalog.MinTTL || c.TTL > catalog.MaxTTL:
		return errs.New(errs.InvalidArgument, "open registry: ttl %s must be %s to %s", c.TTL, catalog.MinTTL, catalog.MaxTTL)
	}
	return nil
}

// Registry is the registry of one node. Its methods are safe for concurrent use.
type Registry struct {
	cfg   Config
	log   *slog.Logger
	clock clock.Clock
	epoch uint64
	time  timeline
	keys  keyLocks
	stats counters
	// maxUpdate is how many bytes one update takes at most.
	maxUpdate int

	// namespaces is replaced whole, under mu, and read without a lock.
	namespaces atomic.Pointer[map[string]*namespace]

	// mu guards everything below and the insides of namespaces, services and
	// watchers. It is held for memory only, never over a transaction.
	mu        sync.RWMutex
	entries   map[key]*entry
	ring      ring
	sessions  uint64
	reachable int
	reloads   uint64 // how often the memory was read anew
	stopped   bool
	watchers  map[*Watcher]struct{}
	onService func(namespace, service string) // nil: nobody asks

	// wheelMu guards leases and hints. It may be taken under mu, never the other way
	// round.
	wheelMu sync.Mutex
	leases  *wheel.Wheel[*entry]
	hints   *wheel.Wheel[*entry]

	keeper keeper

	life lifecycle
}

// key names an instance.
type key struct{ namespace, id string }

// entry is one registered instance.
type entry struct {
	key
	service *service
	// inst is what readers see, view the same without descriptors: what watchers see.
	// Both are replaced, never changed.
	inst *catalog.Instance
	view view
	// methods are those that were declared. While the service may not handle calls, inst
	// has none.
	methods []catalog.Method
	hidden  bool
	// digest is of the stored declaration.
	digest [32]byte
	// drained is the operator's word, leaving the instance's own.
	drained, leaving bool
	// session numbers the live session; 0 is none.
	session uint64
	lease   lease
	hint    hint // guarded by Registry.mu
}

// Open loads what is registered. Every instance gets a whole new lease and is listed,
// but not reachable until its session is back. The revisions of this Registry are of a
// new epoch.
func Open(ctx context.Context, cfg Config) (*Registry, error) {
	cfg = cfg.withDefaults()
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	r := &Registry{
		cfg: cfg, log: cfg.Log, clock: cfg.Clock,
		entries:  make(map[key]*entry),
		watchers: make(map[*Watcher]struct{}),

		maxUpdate: defaultUpdate,
	}
	r.namespaces.Store(&map[string]*namespace{})
	r.ring.init(cfg.Retain)
	r.keys.init()
	r.keeper.init(cfg.TTL, cfg.Hold)
	r.life.init()
	err := cfg.DB.Write(ctx, func(t tx.Tx) (err error) {
		r.epoch, err = cfg.Storage.NextEpoch(t)
		return err
	})
	if err != nil {
		return nil, storeError("open registry", err)
	}
	var rows []*Row
	err = cfg.DB.Read(ctx, func(t tx.Tx) (err error) {
		rows, err = cfg.Storage.Instances(t)
		return err
	})
	if err != nil {
		return nil, storeError("open registry", err)
	}
	r.time.start(r.clock.Now())
	r.leases = wheel.New[*entry](0)
	r.hints = wheel.New[*entry](0)
	if bad := r.load(rows); len(bad) > 0 {
		if err := r.discard(ctx, bad); err != nil {
			return nil, storeError("open registry", err)
		}
	}
	return r, nil
}

// load fills the memory from rows and returns those it cannot read.
func (r *Registry) load(rows []*Row) (bad []*Row) {
	r.change(func(c *change) {
		c.quiet = true
		for _, row := range rows {
			rec, err := row.record()
			if err != nil {
				r.log.Error("a stored registration cannot be read and is dropped; the instance has to register again",
					"namespace", row.Namespace, "instance", row.ID, "service", row.Service, "error", err)
				bad = append(bad, row)
				continue
			}
			c.put(rec)
		}
	})
	return bad
}

// discard removes rows that cannot be read, leaving a tombstone each.
func (r *Registry) discard(ctx context.Context, rows []*Row) error {
	now := r.clock.Now()
	return r.cfg.DB.Write(ctx, func(t tx.Tx) error {
		for _, row := range rows {
			stone := catalog.Tombstone{
				Namespace: row.Namespace, ID: row.ID, Service: row.Service, Reason: catalog.Expired, At: stored(now),
			}
			if err := r.bury(t, stone); err != nil {
				return err
			}
		}
		return nil
	})
}

// bury removes the row of an instance and puts a tombstone in its place.
func (r *Registry) bury(t tx.Tx, stone catalog.Tombstone) error {
	if err := r.cfg.Storage.DeleteInstance(t, stone.Namespace, stone.ID); err != nil {
		return err
	}
	return r.cfg.Storage.PutTombstone(t, stone)
}

// Epoch is the epoch of the revisions of this Registry.
func (r *Registry) Epoch() uint64 { return r.epoch }

// Revision is where the history of the registry stands.
func (r *Registry) Revision() catalog.Revision {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.revision()
}

func (r *Registry) revision() catalog.Revision {
	return catalog.Revision{Epoch: r.epoch, N: r.ring.head}
}

// stored is an instant as the store gives it back.
func stored(t time.Time) time.Time { return t.UTC().Truncate(time.Microsecond) }
