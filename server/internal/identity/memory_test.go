package identity_test

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/tx"
)

// memory is a store that keeps nothing: the contract of identity.Storage in as few
// lines as will do, for tests of what is above it.
type memory struct {
	mu    sync.Mutex
	state state
	fail  error // what the next writes answer
	reads int
}

type state struct {
	keys        map[string]identity.Key
	revocations map[[2]string]identity.Revocation
	namespaces  map[string]identity.Namespace
	meta        map[string][]byte
}

type memoryTx struct {
	state *state
	after []func()
}

func (t *memoryTx) AfterCommit(f func()) { t.after = append(t.after, f) }

func newMemory() *memory {
	return &memory{state: state{
		keys: map[string]identity.Key{}, revocations: map[[2]string]identity.Revocation{},
		namespaces: map[string]identity.Namespace{}, meta: map[string][]byte{},
	}}
}

func (m *memory) Write(ctx context.Context, f func(tx.Tx) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail != nil {
		return m.fail
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	var t *memoryTx
	for range 2 { // as a store may
		t = &memoryTx{state: &state{
			maps.Clone(m.state.keys), maps.Clone(m.state.revocations), maps.Clone(m.state.namespaces), maps.Clone(m.state.meta),
		}}
		if err := f(t); err != nil {
			return err
		}
	}
	m.state = *t.state
	for _, f := range t.after {
		f()
	}
	return nil
}

func (m *memory) Read(_ context.Context, f func(tx.Tx) error) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	return f(&memoryTx{state: &m.state})
}

func of(t tx.Tx) *state { return t.(*memoryTx).state }

func (m *memory) InsertKey(t tx.Tx, k *identity.Key) error {
	if _, ok := of(t).keys[k.ID]; ok {
		return fmt.Errorf("key %s: %w", k.ID, tx.ErrExists)
	}
	row := *k
	row.Revision = 1
	of(t).keys[k.ID] = row
	return nil
}

func (m *memory) Key(t tx.Tx, id string) (*identity.Key, error) {
	row, ok := of(t).keys[id]
	if !ok {
		return nil, fmt.Errorf("key %s: %w", id, tx.ErrNotFound)
	}
	return &row, nil
}

func (m *memory) Keys(t tx.Tx, f identity.KeyFilter) ([]*identity.Key, error) {
	var rows []*identity.Key
	for _, row := range of(t).keys {
		if (f.Namespace == "" || f.Namespace == row.Namespace) && (f.Service == "" || f.Service == row.Service) {
			rows = append(rows, &row)
		}
	}
	slices.SortFunc(rows, func(a, b *identity.Key) int { return cmp.Compare(a.ID, b.ID) })
	return rows, nil
}

func (m *memory) UpdateKey(t tx.Tx, k *identity.Key) error {
	old, err := m.Key(t, k.ID)
	if err != nil {
		return err
	}
	if old.Revision != k.Revision {
		return fmt.Errorf("key %s: %w", k.ID, tx.ErrStale)
	}
	row := *k
	row.Revision++
	row.Created = old.Created
	of(t).keys[k.ID] = row
	return nil
}

func (m *memory) InsertRevocation(t tx.Tx, r *identity.Revocation) error {
	of(t).revocations[[2]string{r.Kind, r.ID}] = *r
	return nil
}

func (m *memory) Revocations(t tx.Tx) ([]*identity.Revocation, error) {
	var rows []*identity.Revocation
	for _, row := range of(t).revocations {
		rows = append(rows, &row)
	}
	slices.SortFunc(rows, func(a, b *identity.Revocation) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.ID, b.ID))
	})
	return rows, nil
}

func (m *memory) DeleteRevocationsBefore(t tx.Tx, before time.Time) error {
	maps.DeleteFunc(of(t).revocations, func(_ [2]string, r identity.Revocation) bool { return r.NotAfter.Before(before) })
	return nil
}

func (m *memory) InsertNamespace(t tx.Tx, n *identity.Namespace) error {
	for _, old := range of(t).namespaces {
		if old.Name == n.Name || (n.Account != 0 && old.Account == n.Account) {
			return fmt.Errorf("namespace %s: %w", n.Name, tx.ErrExists)
		}
	}
	of(t).namespaces[n.Name] = *n
	return nil
}

func (m *memory) Namespaces(t tx.Tx) ([]*identity.Namespace, error) {
	var rows []*identity.Namespace
	for _, row := range of(t).namespaces {
		rows = append(rows, &row)
	}
	slices.SortFunc(rows, func(a, b *identity.Namespace) int { return cmp.Compare(a.Name, b.Name) })
	return rows, nil
}

func (m *memory) SetAccount(t tx.Tx, name string, account int64, _ time.Time, _ string) error {
	row, ok := of(t).namespaces[name]
	if !ok {
		return fmt.Errorf("namespace %s: %w", name, tx.ErrNotFound)
	}
	for _, old := range of(t).namespaces {
		if account != 0 && old.Account == account && old.Name != name {
			return fmt.Errorf("account %d: %w", account, tx.ErrExists)
		}
	}
	row.Account = account
	of(t).namespaces[name] = row
	return nil
}

func (m *memory) HoldNamespace(t tx.Tx, name string) error {
	if _, ok := of(t).namespaces[name]; !ok {
		return fmt.Errorf("namespace %s: %w", name, tx.ErrNotFound)
	}
	return nil
}

func (m *memory) DeleteNamespace(t tx.Tx, name string) error {
	if err := m.HoldNamespace(t, name); err != nil {
		return err
	}
	delete(of(t).namespaces, name)
	return nil
}

func (m *memory) Meta(t tx.Tx, name string) ([]byte, error) {
	value, ok := of(t).meta[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, tx.ErrNotFound)
	}
	return bytes.Clone(value), nil
}

func (m *memory) InsertMeta(t tx.Tx, name string, value []byte) error {
	if _, ok := of(t).meta[name]; ok {
		return fmt.Errorf("%s: %w", name, tx.ErrExists)
	}
	return m.PutMeta(t, name, value)
}

func (m *memory) PutMeta(t tx.Tx, name string, value []byte) error {
	of(t).meta[name] = bytes.Clone(value)
	return nil
}

func (m *memory) SwapMeta(t tx.Tx, name string, old, value []byte) error {
	if now, ok := of(t).meta[name]; !ok || !bytes.Equal(now, old) {
		return fmt.Errorf("%s: %w", name, tx.ErrStale)
	}
	return m.PutMeta(t, name, value)
}

func (m *memory) DeleteMeta(t tx.Tx, name string) error {
	delete(of(t).meta, name)
	return nil
}
