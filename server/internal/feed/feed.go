// Package feed owns the append-only record of what happened to services and
// configuration in a namespace: events with time-ordered ids, their types and payloads,
// who may read on from where, and how long they are kept. It appends inside the
// transaction of the change that an event tells of, so that there is none without the
// other. It never changes an event, and rules on nothing that an event tells.
//
// One goroutine, owned by Feed between Start and Stop, removes what is too old. Followers
// start none: each works on the goroutine of its reader.
package feed

import (
	"crypto/rand"
	"log/slog"
	mathrand "math/rand/v2"
	"sync/atomic"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
	"telford.dev/telford/server/internal/wake"
)

const component = "feed"

// Namespaces is the neighbour that owns the tenants.
type Namespaces interface {
	// HoldTx keeps a namespace from being removed before t ends; not_found: there is
	// none.
	HoldTx(t tx.Tx, namespace string) error
}

// Config is what a Feed is made of. DB and Storage are required; zero values of the rest
// mean the default.
type Config struct {
	DB      tx.DB
	Storage Storage
	// Namespaces says where there may be events; nil: anywhere.
	Namespaces Namespaces
	Clock      clock.Clock
	Log        *slog.Logger
	// Shared says that other processes append to the same storage. Followers then look
	// by themselves every Poll: 2 s, and up to a fifth more or less.
	Shared bool
	Poll   time.Duration
	// Retention is how long an event is kept: 30 days.
	Retention time.Duration
	// Sweep is how often what is older is removed: 10 min, and up to a fifth more or less.
	Sweep time.Duration
	// MaxFollowers bounds those that are open at a time: 10,000.
	MaxFollowers int
	// MaxPage bounds the payloads of one page, in bytes: 2 MiB. The first event of a page
	// is in it whatever its size.
	MaxPage int
}

func (c Config) withDefaults() (Config, error) {
	if c.DB == nil || c.Storage == nil {
		return c, errs.New(errs.InvalidArgument, "open the feed: a database and a storage are required")
	}
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Poll <= 0 {
		c.Poll = 2 * time.Second
	}
	if c.Retention <= 0 {
		c.Retention = 30 * 24 * time.Hour
	}
	if c.Sweep <= 0 {
		c.Sweep = 10 * time.Minute
	}
	if c.MaxFollowers <= 0 {
		c.MaxFollowers = 10_000
	}
	if c.MaxPage <= 0 {
		c.MaxPage = 2 << 20
	}
	return c, nil
}

// Feed has the events of all namespaces. Its methods are safe for concurrent use.
type Feed struct {
	cfg Config
	// node ends the ids that this process makes.
	node  [8]byte
	hub   *wake.Hub
	stats counters
	life  lifecycle
}

type counters struct{ appended, pruned atomic.Uint64 }

// Stats are the counters of a Feed since it was opened.
type Stats struct {
	Appended  uint64 // events that became durable
	Pruned    uint64 // events that were removed because of their age
	Followers int    // that are open now
}

// Open returns a Feed. It reads nothing.
func Open(cfg Config) (*Feed, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	f := &Feed{cfg: cfg}
	_, _ = rand.Read(f.node[:])       // it does not fail
	f.node[0] = f.node[0]&0x3f | 0x80 // the variant
	f.node[2] |= 0x01                 // no address of a network card
	f.hub = wake.New(cfg.MaxFollowers)
	f.life.init()
	return f, nil
}

// Stats returns the counters.
func (f *Feed) Stats() Stats {
	return Stats{Appended: f.stats.appended.Load(), Pruned: f.stats.pruned.Load(), Followers: f.hub.Count()}
}

// Retention is how long events are kept.
func (f *Feed) Retention() time.Duration { return f.cfg.Retention }

// jitter returns about d, so that processes that started together do not work together.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + mathrand.Float64()*0.4)) //nolint:gosec // it spreads work, and guards nothing
}
