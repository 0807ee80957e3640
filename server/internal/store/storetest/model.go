package storetest

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/rules"
	"telford.dev/telford/server/internal/tx"
)

// model is what a store means, in maps: the least that can be right. One goroutine at
// a time uses it.
type model struct {
	keys        map[string]identity.Key
	revocations map[string]identity.Revocation
	namespaces  map[string]identity.Namespace
	meta        map[string]string
	instances   map[string]registry.Row
	tombstones  map[string]catalog.Tombstone
	epoch       uint64
	rules       map[string]rules.Row
	shadow      map[string]rules.ShadowDenial
	keyedModel
	feedModel
	configModel
	restModel
}

var _ Store = (*model)(nil)

type modelTx struct{ after []func() }

func (t *modelTx) AfterCommit(f func()) { t.after = append(t.after, f) }

func newModel() *model {
	return &model{
		keys: map[string]identity.Key{}, revocations: map[string]identity.Revocation{},
		namespaces: map[string]identity.Namespace{}, meta: map[string]string{},
		instances: map[string]registry.Row{}, tombstones: map[string]catalog.Tombstone{},
		rules: map[string]rules.Row{}, shadow: map[string]rules.ShadowDenial{},
		keyedModel: newKeyedModel(), feedModel: newFeedModel(), configModel: newConfigModel(), restModel: newRESTModel(),
	}
}

func (m *model) clone() *model {
	return &model{
		maps.Clone(m.keys), maps.Clone(m.revocations), maps.Clone(m.namespaces), maps.Clone(m.meta),
		maps.Clone(m.instances), maps.Clone(m.tombstones), m.epoch,
		maps.Clone(m.rules), maps.Clone(m.shadow),
		m.keyedModel.clone(), m.feedModel.clone(), m.configModel.clone(), m.restModel.clone(),
	}
}

func (m *model) Write(_ context.Context, f func(tx.Tx) error) error {
	before := m.clone()
	t := &modelTx{}
	if err := f(t); err != nil {
		*m = *before
		return err
	}
	for _, after := range t.after {
		after()
	}
	return nil
}

func (m *model) Read(_ context.Context, f func(tx.Tx) error) error { return f(&modelTx{}) }

func (m *model) Close() error { return nil }

func (m *model) InsertKey(_ tx.Tx, k *identity.Key) error {
	if _, ok := m.keys[k.ID]; ok {
		return tx.ErrExists
	}
	c := *k
	c.Revision = 1
	m.keys[k.ID] = c
	return nil
}

func (m *model) Key(_ tx.Tx, id string) (*identity.Key, error) {
	k, ok := m.keys[id]
	if !ok {
		return nil, tx.ErrNotFound
	}
	return &k, nil
}

func (m *model) Keys(_ tx.Tx, f identity.KeyFilter) ([]*identity.Key, error) {
	var all []*identity.Key
	for _, k := range sorted(m.keys) {
		if (f.Namespace == "" || f.Namespace == k.Namespace) && (f.Service == "" || f.Service == k.Service) {
			all = append(all, k)
		}
	}
	return all, nil
}

func (m *model) UpdateKey(_ tx.Tx, k *identity.Key) error {
	old, ok := m.keys[k.ID]
	switch {
	case !ok:
		return tx.ErrNotFound
	case old.Revision != k.Revision:
		return tx.ErrStale
	}
	c := *k
	c.Created, c.Revision = old.Created, old.Revision+1
	m.keys[k.ID] = c
	return nil
}

func (m *model) InsertRevocation(_ tx.Tx, r *identity.Revocation) error {
	m.revocations[r.Kind+"\x00"+r.ID] = *r
	return nil
}

func (m *model) Revocations(tx.Tx) ([]*identity.Revocation, error) { return sorted(m.revocations), nil }

func (m *model) DeleteRevocationsBefore(_ tx.Tx, before time.Time) error {
	maps.DeleteFunc(m.revocations, func(_ string, r identity.Revocation) bool { return r.NotAfter.Before(before) })
	return nil
}

func (m *model) InsertNamespace(_ tx.Tx, n *identity.Namespace) error {
	for _, other := range m.namespaces {
		if other.Name == n.Name || n.Account != 0 && other.Account == n.Account {
			return tx.ErrExists
		}
	}
	m.namespaces[n.Name] = *n
	return nil
}

func (m *model) Namespaces(tx.Tx) ([]*identity.Namespace, error) { return sorted(m.namespaces), nil }

func (m *model) SetAccount(_ tx.Tx, name string, account int64, _ time.Time, _ string) error {
	n, ok := m.namespaces[name]
	if !ok {
		return tx.ErrNotFound
	}
	for _, other := range m.namespaces {
		if account != 0 && other.Account == account && other.Name != name {
			return tx.ErrExists
		}
	}
	n.Account = account
	m.namespaces[name] = n
	return nil
}

func (m *model) HoldNamespace(_ tx.Tx, name string) error {
	if _, ok := m.namespaces[name]; !ok {
		return tx.ErrNotFound
	}
	return nil
}

func (m *model) DeleteNamespace(_ tx.Tx, name string) error {
	if _, ok := m.namespaces[name]; !ok {
		return tx.ErrNotFound
	}
	delete(m.namespaces, name)
	return nil
}

func (m *model) Meta(_ tx.Tx, name string) ([]byte, error) {
	v, ok := m.meta[name]
	if !ok {
		return nil, tx.ErrNotFound
	}
	return []byte(v), nil
}

func (m *model) InsertMeta(_ tx.Tx, name string, value []byte) error {
	if _, ok := m.meta[name]; ok {
		return tx.ErrExists
	}
	m.meta[name] = string(value)
	return nil
}

func (m *model) SwapMeta(_ tx.Tx, name string, old, value []byte) error {
	if now, ok := m.meta[name]; !ok || now != string(old) {
		return tx.ErrStale
	}
	m.meta[name] = string(value)
	return nil
}

func (m *model) DeleteMeta(_ tx.Tx, name string) error {
	delete(m.meta, name)
	return nil
}

func (m *model) PutMeta(_ tx.Tx, name string, value []byte) error {
	m.meta[name] = string(value)
	return nil
}

func (m *model) PutInstance(_ tx.Tx, r *registry.Row) error {
	m.instances[r.Namespace+"\x00"+r.ID] = *r
	return nil
}

func (m *model) DeleteInstance(_ tx.Tx, namespace, id string) error {
	delete(m.instances, namespace+"\x00"+id)
	return nil
}

func (m *model) Instances(tx.Tx) ([]*registry.Row, error) { return sorted(m.instances), nil }

func (m *model) PutTombstone(_ tx.Tx, s catalog.Tombstone) error {
	m.tombstones[s.Namespace+"\x00"+s.ID] = s
	return nil
}

func (m *model) Tombstones(_ tx.Tx, since time.Time) ([]catalog.Tombstone, error) {
	var all []catalog.Tombstone
	for _, s := range m.tombstones {
		if !s.At.Before(since) {
			all = append(all, s)
		}
	}
	slices.SortFunc(all, func(a, b catalog.Tombstone) int {
		return cmp.Or(a.At.Compare(b.At), strings.Compare(a.Namespace, b.Namespace), strings.Compare(a.ID, b.ID))
	})
	return all, nil
}

func (m *model) DeleteTombstonesBefore(_ tx.Tx, before time.Time) (int, error) {
	n := len(m.tombstones)
	maps.DeleteFunc(m.tombstones, func(_ string, s catalog.Tombstone) bool { return s.At.Before(before) })
	return n - len(m.tombstones), nil
}

func (m *model) NextEpoch(tx.Tx) (uint64, error) {
	m.epoch++
	return m.epoch, nil
}

// sorted returns copies of the values in the order of their keys.
func sorted[T any](values map[string]T) []*T {
	var all []*T
	for _, k := range slices.Sorted(maps.Keys(values)) {
		v := values[k]
		all = append(all, &v)
	}
	return all
}
