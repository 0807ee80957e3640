// Package rules owns what operators lay down while everything runs: who may call what,
// how much, and by which way; and it counts what rules that are not in force would have
// denied. It decides about a call when the router asks, and enforces nothing itself.
// Readers take no lock: they see snapshots that are replaced whole, after the store has
// what is new in them. One goroutine, owned by Rules between Start and Stop, writes the
// counts.
package rules

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/id"
	"telford.dev/telford/internal/limit"
	"telford.dev/telford/internal/policy"
	"telford.dev/telford/internal/transport"
	"telford.dev/telford/server/internal/tx"
)

const component = "rules"

// Namespaces is the neighbour that owns the tenants.
type Namespaces interface {
	// HoldTx keeps a namespace from being removed before t ends; not_found: there is
	// none.
	HoldTx(t tx.Tx, namespace string) error
}

// Config is what Rules are made of. DB and Storage are required; zero values of the rest
// mean the default.
type Config struct {
	DB      tx.DB
	Storage Storage
	// Namespaces says where rules may be laid down; nil: anywhere.
	Namespaces Namespaces
	Clock      clock.Clock
	Log        *slog.Logger
	// MaxRules bounds the rules of one namespace, all kinds together: 1,000.
	MaxRules int
	// MaxShadow bounds what is counted apart of shadow denials, for each namespace: 1,000.
	// What is beyond is counted together.
	MaxShadow int
	// Flush is how long a count may wait to be written: 10 s, and up to a fifth more.
	Flush time.Duration
}

func (c Config) withDefaults() (Config, error) {
	if c.DB == nil || c.Storage == nil {
		return c, errs.New(errs.InvalidArgument, "open rules: a database and a storage are required")
	}
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.MaxRules <= 0 {
		c.MaxRules = 1000
	}
	if c.MaxShadow <= 0 {
		c.MaxShadow = 1000
	}
	if c.Flush <= 0 {
		c.Flush = 10 * time.Second
	}
	return c, nil
}

// Stored is a rule with what is known of its last change.
type Stored[T any] struct {
	Rule T
	// Revision counts the changes from 1.
	Revision int64
	Updated  time.Time
	Author   string
}

// Rules has the rules of all namespaces. Its methods are safe for concurrent use.
type Rules struct {
	cfg Config
	log *slog.Logger
	ids id.Source

	// nothing is what a namespace without a space has.
	nothing *snapshot

	// writing has one token: who has it prepares and writes a change.
	writing chan struct{}

	// spaces is replaced whole, under mu, and read without a lock.
	spaces atomic.Pointer[map[string]*space]

	mu      sync.Mutex // guards the making of spaces, their snapshots, and what follows
	nextSub int
	subs    map[int]func(namespace string)

	flush flusher
	life  lifecycle
}

// Open reads the rules. ctx bounds the reading only.
func Open(ctx context.Context, cfg Config) (*Rules, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &Rules{cfg: cfg, log: cfg.Log, nothing: new(snapshot), writing: make(chan struct{}, 1), subs: make(map[int]func(string))}
	r.spaces.Store(&map[string]*space{})
	r.flush.init(r)
	r.life.init()
	if err := r.Reload(ctx); err != nil {
		return nil, err
	}
	var counted []ShadowDenial
	err = cfg.DB.Read(ctx, func(t tx.Tx) (err error) {
		counted, err = cfg.Storage.ShadowDenials(t, "")
		return err
	})
	if err != nil {
		return nil, storageError("read shadow denials", err)
	}
	for i := range counted {
		r.space(counted[i].Namespace).tally.known(&counted[i])
	}
	return r, nil
}

// Reload reads the rules again, for when the store may know more than memory does: after
// a commit whose outcome was unknown. It writes nothing.
func (r *Rules) Reload(ctx context.Context) error {
	const operation = "read the rules"
	var rows []*Row
	err := r.cfg.DB.Read(ctx, func(t tx.Tx) (err error) {
		rows, err = r.cfg.Storage.Rules(t)
		return err
	})
	if err != nil {
		return storageError(operation, err)
	}
	byNamespace := make(map[string]*snapshot)
	for _, row := range rows {
		s := byNamespace[row.Namespace]
		if s == nil {
			s = new(snapshot)
			byNamespace[row.Namespace] = s
		}
		if err := s.put(row); err != nil {
			return storageError(operation, err)
		}
	}
	r.mu.Lock()
	for name := range *r.spaces.Load() {
		if byNamespace[name] == nil {
			byNamespace[name] = new(snapshot)
		}
	}
	r.mu.Unlock()
	for name, next := range byNamespace {
		r.publish(name, func(now *snapshot) *snapshot {
			if now.same(next) {
				return nil
			}
			return next
		})
	}
	return nil
}

// publish replaces the snapshot of a namespace by what f makes of it, and tells who
// wants to know; nil from f changes nothing.
func (r *Rules) publish(namespace string, f func(now *snapshot) *snapshot) {
	sp := r.space(namespace)
	r.mu.Lock()
	now := sp.current.Load()
	next := f(now)
	if next == nil {
		r.mu.Unlock()
		return
	}
	next.revision = now.revision + 1
	next.compile()
	sp.current.Store(next)
	subs := make([]func(string), 0, len(r.subs))
	for _, f := range r.subs {
		subs = append(subs, f)
	}
	r.mu.Unlock()
	for _, f := range subs {
		f(namespace)
	}
}

// OnChange has f called after the rules of a namespace have changed, once readers see
// them. f must not wait nor write to the store. cancel ends it, but does not wait for a
// call that has begun.
func (r *Rules) OnChange(f func(namespace string)) (cancel func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.nextSub
	r.nextSub++
	r.subs[n] = f
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		delete(r.subs, n)
	}
}

// Policy returns the policy of a namespace, ready to decide by; nil: all is allowed.
func (r *Rules) Policy(namespace string) *policy.Index { return r.snapshot(namespace).index }

// PolicySet returns the policy of a namespace as it was laid down. It must not be
// changed.
func (r *Rules) PolicySet(namespace string) policy.Set { return r.snapshot(namespace).set }

// PolicyRules returns the rules of the policy of a namespace, ordered by id. The slice
// must not be changed; so with those of Limits and Transports.
func (r *Rules) PolicyRules(namespace string) []Stored[policy.Rule] {
	return r.snapshot(namespace).policy
}

// Limits returns the limits of a namespace, ordered by id.
func (r *Rules) Limits(namespace string) []Stored[limit.Rule] { return r.snapshot(namespace).limits }

// Transports returns the transport rules of a namespace, ordered by id.
func (r *Rules) Transports(namespace string) []Stored[transport.Rule] {
	return r.snapshot(namespace).transports
}

// Revision counts the changes of the rules of a namespace since the start.
func (r *Rules) Revision(namespace string) uint64 { return r.snapshot(namespace).revision }
