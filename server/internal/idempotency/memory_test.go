package idempotency

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"sync"
	"time"

	"telford.dev/telford/server/internal/tx"
)

// memory is a store in maps. fail, when set, is asked before each write, and again after
// it, and its error is that of the write.
type memory struct {
	mu     sync.Mutex
	rows   map[ID]Record
	owners map[string]time.Time
	fail   func(after bool) error
	writes int
}

type memoryTx struct{}

func (memoryTx) AfterCommit(f func()) { f() } // nothing fails behind it here

func newMemory() *memory { return &memory{rows: map[ID]Record{}, owners: map[string]time.Time{}} }

func (m *memory) Write(ctx context.Context, f func(tx.Tx) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	if m.fail != nil {
		if err := m.fail(false); err != nil {
			return err
		}
	}
	m.writes++
	if err := f(memoryTx{}); err != nil {
		return err
	}
	if m.fail != nil {
		return m.fail(true)
	}
	return nil
}

func (m *memory) Read(ctx context.Context, f func(tx.Tx) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	return f(memoryTx{})
}

func (m *memory) setFail(f func(after bool) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = f
}

// get returns the record of an ID as it is now.
func (m *memory) get(i ID) (Record, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r, ok := m.rows[i]
	return r, ok
}

// sizes returns how many records and leases there are.
func (m *memory) sizes() (records, owners int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.rows), len(m.owners)
}

// alive keeps a lease of a process.
func (m *memory) alive(owner string, d time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.owners[owner] = time.Now().Add(d)
}

func (m *memory) put(r *Record) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.rows[r.ID] = *r
}

func (m *memory) IdempotencyRecord(_ tx.Tx, i *ID) (*Record, error) {
	r, ok := m.rows[*i]
	if !ok {
		return nil, tx.ErrNotFound
	}
	return &r, nil
}

func (m *memory) InsertIdempotencyRecord(_ tx.Tx, r *Record) error {
	if _, ok := m.rows[r.ID]; ok {
		return tx.ErrExists
	}
	c := *r
	c.Revision = 1
	m.rows[r.ID] = c
	return nil
}

func (m *memory) UpdateIdempotencyRecord(_ tx.Tx, r *Record, fence int64) error {
	old, ok := m.rows[r.ID]
	if !ok || old.Fence != fence {
		return tx.ErrStale
	}
	c := *r
	c.Revision = old.Revision + 1
	m.rows[r.ID] = c
	return nil
}

func (m *memory) IdempotencyRecords(_ tx.Tx, f Filter) ([]*Record, error) {
	var all []*Record
	for _, r := range m.rows {
		if (f.Namespace == "" || r.Namespace == f.Namespace) && (f.Key == "" || r.Key == f.Key) && (f.BusinessKey == "" || r.BusinessKey == f.BusinessKey) {
			r.Answer = nil
			all = append(all, &r)
		}
	}
	slices.SortFunc(all, func(a, b *Record) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Caller, b.Caller), cmp.Compare(a.Callee, b.Callee),
			cmp.Compare(a.Method, b.Method), cmp.Compare(a.Key, b.Key))
	})
	return all, nil
}

func (m *memory) CountIdempotencyRecords(tx.Tx) (int, error) { return len(m.rows), nil }

func (m *memory) DeleteIdempotencyRecords(_ tx.Tx, expired time.Time, most int) (int, error) {
	n := 0
	for i, r := range m.rows {
		if n < most && !r.Expires.After(expired) {
			delete(m.rows, i)
			n++
		}
	}
	return n, nil
}

func (m *memory) DeleteNamespaceIdempotencyRecords(_ tx.Tx, namespace string) (int, error) {
	n := len(m.rows)
	maps.DeleteFunc(m.rows, func(i ID, _ Record) bool { return i.Namespace == namespace })
	return n - len(m.rows), nil
}

func (m *memory) PutIdempotencyOwner(_ tx.Tx, owner string, until time.Time) error {
	m.owners[owner] = until
	return nil
}

func (m *memory) IdempotencyOwner(_ tx.Tx, owner string) (time.Time, error) {
	return m.owners[owner], nil
}

func (m *memory) DeleteIdempotencyOwner(_ tx.Tx, owner string) error {
	delete(m.owners, owner)
	return nil
}

func (m *memory) DeleteIdempotencyOwners(_ tx.Tx, before time.Time) error {
	for owner, until := range m.owners {
		if !until.After(before) {
			delete(m.owners, owner)
		}
	}
	return nil
}
