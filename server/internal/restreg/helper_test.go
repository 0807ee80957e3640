package restreg_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/restreg"
	"telford.dev/telford/server/internal/store"
	"telford.dev/telford/server/internal/store/storetest"
	"telford.dev/telford/server/internal/tx"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// bench is a Directory over a store, with a clock to move and the events that it wrote.
type bench struct {
	*restreg.Directory
	t        *testing.T
	store    *store.Store
	registry *registry.Registry
	clock    *clock.Manual
	quota    int

	mu     sync.Mutex
	events []restreg.Event
	fail   error
	ended  int
	power  *power
}

// power is a store whose process can be killed.
type power struct {
	*store.Store
	off atomic.Bool
}

func (p *power) Write(ctx context.Context, f func(tx.Tx) error) error {
	if p.off.Load() {
		return tx.ErrClosed
	}
	return p.Store.Write(ctx, f)
}

// onEngines runs a test on each real store.
func onEngines(t *testing.T, f func(*testing.T, *bench)) {
	t.Helper()
	for name, cfg := range map[string]func(*testing.T) store.Config{
		"sqlite":   func(t *testing.T) store.Config { return store.Config{Data: t.TempDir(), Fast: true} },
		"postgres": func(t *testing.T) store.Config { return store.Config{URL: storetest.Postgres(t)} },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s, err := store.Open(t.Context(), cfg(t))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = s.Close() })
			b := &bench{t: t, store: s, clock: clock.NewManual(noon)}
			b.open()
			f(t, b)
		})
	}
}

// open opens registry and Directory, as a restarted runtime does.
func (b *bench) open() {
	b.t.Helper()
	ctx := b.t.Context()
	var err error
	b.power = &power{Store: b.store}
	b.registry, err = registry.Open(ctx, registry.Config{DB: b.store, Storage: b.store, Clock: b.clock})
	if err != nil {
		b.t.Fatal(err)
	}
	b.Directory, err = restreg.Open(ctx, restreg.Config{
		DB: b.power, Storage: b.store, Instances: b.registry, Secret: [32]byte{1}, Clock: b.clock,
		Quota: func(string) int { return b.quota },
		Append: func(t tx.Tx, _ string, e restreg.Event) error {
			b.mu.Lock()
			defer b.mu.Unlock()
			if b.fail != nil {
				return b.fail
			}
			t.AfterCommit(func() {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.events = append(b.events, e)
			})
			return nil
		},
		Connect: func(string, string, string) func() {
			return func() {
				b.mu.Lock()
				defer b.mu.Unlock()
				b.ended++
			}
		},
	})
	if err != nil {
		b.t.Fatal(err)
	}
	if err := b.Start(ctx); err != nil {
		b.t.Fatal(err)
	}
	d := b.Directory
	b.t.Cleanup(func() { _ = d.Stop(context.Background()) })
}

// crash leaves the Directory behind as it is and opens another.
func (b *bench) crash() {
	b.t.Helper()
	b.power.off.Store(true)
	b.open()
}

// restart stops in good order and opens again.
func (b *bench) restart() {
	b.t.Helper()
	if err := b.Stop(b.t.Context()); err != nil {
		b.t.Fatal(err)
	}
	b.open()
}

func author() restreg.Author { return restreg.Author{Namespace: "default", KeyID: "key_1"} }

func (b *bench) create(id string, timeout time.Duration) restreg.UUID {
	b.t.Helper()
	u, err := b.Create(b.t.Context(), author(), restreg.Service{ID: id, Timeout: timeout})
	if err != nil {
		b.t.Fatal(err)
	}
	return u
}

func (b *bench) beat(id string, u restreg.UUID) restreg.UUID {
	b.t.Helper()
	next, err := b.Beat(b.t.Context(), author(), id, u)
	if err != nil {
		b.t.Fatal(err)
	}
	return next
}

// missing checks that err says that an object is not there.
func missing(t *testing.T, err error, object string) {
	t.Helper()
	if e := errs.From(err); err == nil || e.Code != errs.NotFound || e.Meta[restreg.MetaObject] != object {
		t.Errorf("got %v, want that there is no %s", err, object)
	}
}

func (b *bench) ids() []string {
	b.t.Helper()
	list, _, err := b.List(b.t.Context(), "default", "", "", 1000)
	if err != nil {
		b.t.Fatal(err)
	}
	out := []string{}
	for _, s := range list {
		out = append(out, s.ID)
	}
	return out
}

func (b *bench) told() []restreg.Event {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]restreg.Event{}, b.events...)
}

func (b *bench) types() []string {
	out := []string{}
	for _, e := range b.told() {
		out = append(out, e.Type)
	}
	return out
}
