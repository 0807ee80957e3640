package registry

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/server/internal/tx"
)

// memory is a store that keeps everything in maps and can be told to fail.
type memory struct {
	mu     sync.Mutex
	rows   map[key]Row
	stones map[key]catalog.Tombstone
	epoch  uint64
	writes int
	// fail is what Write answers; with lost it answers so although it has committed.
	fail error
	lost bool
	// twice runs every function a second time, as a store may.
	twice bool
	// flat does not copy the maps for each transaction, of which none may fail then.
	flat bool
	// reload, if set, runs before the write that follows an outcome that was unknown.
	reload func(context.Context) error
	stale  bool
	// gate, if set, is received from before each write.
	gate chan struct{}
}

func newMemory() *memory {
	return &memory{rows: make(map[key]Row), stones: make(map[key]catalog.Tombstone)}
}

type memoryTx struct {
	rows   map[key]Row
	stones map[key]catalog.Tombstone
	epoch  uint64
	after  []func()
}

func (t *memoryTx) AfterCommit(f func()) { t.after = append(t.after, f) }

func (m *memory) begin() *memoryTx {
	if m.flat {
		return &memoryTx{rows: m.rows, stones: m.stones, epoch: m.epoch}
	}
	return &memoryTx{rows: maps.Clone(m.rows), stones: maps.Clone(m.stones), epoch: m.epoch}
}

func (m *memory) Write(ctx context.Context, f func(tx.Tx) error) error {
	if m.gate != nil {
		select {
		case <-m.gate:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.stale && m.reload != nil {
		m.mu.Unlock()
		err := m.reload(ctx)
		m.mu.Lock()
		if err != nil {
			return err
		}
	}
	unknown := errors.Is(m.fail, tx.ErrOutcomeUnknown)
	m.stale = false
	if m.fail != nil && !m.lost && !unknown {
		return m.fail
	}
	if m.twice {
		if err := f(m.begin()); err != nil {
			return err
		}
	}
	t := m.begin()
	if err := f(t); err != nil {
		return err
	}
	m.stale = unknown
	if m.fail != nil && !m.lost {
		return m.fail
	}
	m.rows, m.stones, m.epoch = t.rows, t.stones, t.epoch
	m.writes++
	if m.lost {
		return m.fail
	}
	for _, f := range t.after {
		f()
	}
	return nil
}

func (m *memory) Read(_ context.Context, f func(tx.Tx) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return f(m.begin())
}

func (m *memory) set(fail error, lost bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail, m.lost = fail, lost
}

func (m *memory) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.writes
}

func (m *memory) row(ns, id string) (Row, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.rows[key{ns, id}]
	return r, ok
}

func (*memory) PutInstance(t tx.Tx, r *Row) error {
	c := *r
	c.Declaration = slices.Clone(r.Declaration)
	t.(*memoryTx).rows[key{r.Namespace, r.ID}] = c
	return nil
}

func (*memory) DeleteInstance(t tx.Tx, ns, id string) error {
	delete(t.(*memoryTx).rows, key{ns, id})
	return nil
}

func (*memory) Instances(t tx.Tx) ([]*Row, error) {
	var out []*Row
	for _, r := range t.(*memoryTx).rows {
		out = append(out, &r)
	}
	slices.SortFunc(out, func(a, b *Row) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

func (*memory) PutTombstone(t tx.Tx, s catalog.Tombstone) error {
	t.(*memoryTx).stones[key{s.Namespace, s.ID}] = s
	return nil
}

func (*memory) Tombstones(t tx.Tx, since time.Time) ([]catalog.Tombstone, error) {
	var out []catalog.Tombstone
	for _, s := range t.(*memoryTx).stones {
		if !s.At.Before(since) {
			out = append(out, s)
		}
	}
	slices.SortFunc(out, func(a, b catalog.Tombstone) int {
		return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.ID, b.ID))
	})
	return out, nil
}

func (*memory) DeleteTombstonesBefore(t tx.Tx, before time.Time) (int, error) {
	m := t.(*memoryTx).stones
	n := len(m)
	maps.DeleteFunc(m, func(_ key, s catalog.Tombstone) bool { return s.At.Before(before) })
	return n - len(m), nil
}

func (*memory) NextEpoch(t tx.Tx) (uint64, error) {
	m := t.(*memoryTx)
	m.epoch++
	return m.epoch, nil
}

var errDisk = errors.New("the disk fell out")

// bench is a registry over a memory, with a clock to move.
type bench struct {
	*Registry
	t     fataler
	store *memory
	clock *clock.Manual
	cfg   Config
}

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

// fataler is what a testing.TB and a rapid.T share.
type fataler interface {
	Helper()
	Fatal(args ...any)
}

func newBench(t fataler, change ...func(*Config)) *bench {
	b := &bench{t: t, store: newMemory(), clock: clock.NewManual(noon)}
	b.cfg = Config{DB: b.store, Storage: b.store, Clock: b.clock, Zone: "z1"}
	for _, f := range change {
		f(&b.cfg)
	}
	b.open()
	return b
}

// open opens the registry again, as a restarted runtime does.
func (b *bench) open() {
	b.t.Helper()
	if b.Registry != nil {
		b.stop()
	}
	r, err := Open(context.Background(), b.cfg)
	if err != nil {
		b.t.Fatal(err)
	}
	b.Registry = r
}

func (b *bench) stop() {
	b.t.Helper()
	if err := b.Stop(context.Background()); err != nil {
		b.t.Fatal(err)
	}
}

func owner(id, service string) Owner {
	return Owner{Namespace: "default", Instance: id, Service: service, KeyID: "key_1", Door: "link"}
}

func (b *bench) register(id, service string, change ...func(*catalog.Declaration)) catalog.Revision {
	b.t.Helper()
	d := &catalog.Declaration{
		Service: service,
		Methods: []catalog.Method{{Name: "shop.v1.Payments/Charge", Kind: catalog.Unary}, {Name: "charge"}},
	}
	for _, f := range change {
		f(d)
	}
	rev, _, err := b.Register(context.Background(), owner(id, service), d)
	if err != nil {
		b.t.Fatal(err)
	}
	return rev
}

// pass moves the clock and ends what has run out.
func (b *bench) pass(d time.Duration) {
	b.clock.Advance(d)
	b.expire(context.Background(), b.clock.Now())
}

// ids lists instances by id.
func ids(list []*catalog.Instance) []string {
	out := []string{}
	for _, i := range list {
		out = append(out, i.ID)
	}
	return out
}
