// Package config owns the configuration that services read: values by id in namespaces,
// their revisions with author and time, what a value was before, and who is told of
// changes. Each change is appended to the feed in its own transaction. It does not look
// into values, except that those that claim to be JSON are.
//
// Reads go to the store, so that they see every write that was answered before. One
// goroutine, owned by Values between Start and Stop, removes history that is too old.
// Watchers start none: each works on the goroutine of its reader.
package config

import (
	"log/slog"
	mathrand "math/rand/v2"
	"sync/atomic"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/feed"
	"telford.dev/telford/server/internal/tx"
	"telford.dev/telford/server/internal/wake"
)

const component = "config"

// Namespaces is the neighbour that owns the tenants.
type Namespaces interface {
	// HoldTx keeps a namespace from being removed before t ends; not_found: there is
	// none.
	HoldTx(t tx.Tx, namespace string) error
}

// Feed is the neighbour that records what happens; *feed.Feed is one.
type Feed interface {
	AppendTx(t tx.Tx, n feed.New) (feed.Event, error)
}

// Config is what Values are made of. DB, Storage and Feed are required; zero values of
// the rest mean the default.
type Config struct {
	DB      tx.DB
	Storage Storage
	Feed    Feed
	// Namespaces says where there may be values; nil: anywhere.
	Namespaces Namespaces
	Clock      clock.Clock
	Log        *slog.Logger
	// Shared says that other processes write to the same storage. Watchers then look by
	// themselves every Poll: 2 s, and up to a fifth more or less.
	Shared bool
	Poll   time.Duration

	// MaxValue bounds one value, in bytes: 1 MiB.
	MaxValue int
	// MaxValues bounds the values of a namespace: 10,000.
	MaxValues int64
	// MaxBytes bounds the values of a namespace together, in bytes: 256 MiB.
	MaxBytes int64

	// MaxHistory is how many revisions of one value are kept, the present one included:
	// 1,000. MaxHistoryBytes bounds them together, in bytes: 16 MiB. The present one is
	// always kept.
	MaxHistory      int64
	MaxHistoryBytes int64
	// Retention is how long a revision that is not the present one is kept: 90 days.
	Retention time.Duration
	// Sweep is how often older ones are removed: 10 min, and up to a fifth more or less.
	Sweep time.Duration

	// MaxWatchers bounds those that are open at a time: 10,000.
	MaxWatchers int
	// MaxPage bounds the values of one page or update, in bytes: 2 MiB. The first value is
	// in it whatever its size.
	MaxPage int
}

func (c Config) withDefaults() (Config, error) {
	if c.DB == nil || c.Storage == nil || c.Feed == nil {
		return c, errs.New(errs.InvalidArgument, "open the configuration: a database, a storage and a feed are required")
	}
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	positive(&c.Poll, 2*time.Second)
	positive(&c.MaxValue, 1<<20)
	positive(&c.MaxValues, 10_000)
	positive(&c.MaxBytes, 256<<20)
	positive(&c.MaxHistory, 1000)
	positive(&c.MaxHistoryBytes, 16<<20)
	positive(&c.Retention, 90*24*time.Hour)
	positive(&c.Sweep, 10*time.Minute)
	positive(&c.MaxWatchers, 10_000)
	positive(&c.MaxPage, 2<<20)
	return c, nil
}

func positive[T int | int64 | time.Duration](v *T, otherwise T) {
	if *v <= 0 {
		*v = otherwise
	}
}

// Values has the configuration of all namespaces. Its methods are safe for concurrent
// use.
type Values struct {
	cfg   Config
	hub   *wake.Hub
	stats counters
	life  lifecycle
}

type counters struct{ changes, conflicts, forgotten, snapshots atomic.Uint64 }

// Stats are the counters of Values since they were opened.
type Stats struct {
	Changes   uint64 // revisions that became durable
	Conflicts uint64 // changes that were refused because they were made for another revision
	Forgotten uint64 // revisions that were removed because of their age
	Snapshots uint64 // that watchers got because they began, or had stayed behind
	Watchers  int    // that are open now
}

// Open returns the values that are in the store. It reads nothing.
func Open(cfg Config) (*Values, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	v := &Values{cfg: cfg}
	v.hub = wake.New(cfg.MaxWatchers)
	v.life.init()
	return v, nil
}

// Stats returns the counters.
func (v *Values) Stats() Stats {
	return Stats{
		Changes: v.stats.changes.Load(), Conflicts: v.stats.conflicts.Load(), Forgotten: v.stats.forgotten.Load(),
		Snapshots: v.stats.snapshots.Load(), Watchers: v.hub.Count(),
	}
}

// jitter returns about d, so that processes that started together do not work together.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.8 + mathrand.Float64()*0.4)) //nolint:gosec // it spreads work, and guards nothing
}
