package storetest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"pgregory.net/rapid"

	"telford.dev/telford/server/internal/config"
	"telford.dev/telford/server/internal/tx"
)

// configModel is the part of the model that means the configuration.
type configModel struct {
	configHeads map[string]config.Head
	values      map[string]config.Value
	history     map[string]config.Row
}

func newConfigModel() configModel {
	return configModel{map[string]config.Head{}, map[string]config.Value{}, map[string]config.Row{}}
}

func (m *configModel) clone() configModel {
	return configModel{maps.Clone(m.configHeads), maps.Clone(m.values), maps.Clone(m.history)}
}

func (m *configModel) ConfigHead(_ tx.Tx, namespace string) (config.Head, error) {
	return m.configHeads[namespace], nil
}

func (m *configModel) LockConfig(_ tx.Tx, namespace string) (config.Head, error) {
	h := m.configHeads[namespace]
	m.configHeads[namespace] = h
	return h, nil
}

func (m *configModel) PutConfigHead(_ tx.Tx, namespace string, h config.Head) error {
	if _, ok := m.configHeads[namespace]; ok {
		m.configHeads[namespace] = h
	}
	return nil
}

func (m *configModel) ConfigValue(_ tx.Tx, namespace, id string) (*config.Value, error) {
	v, ok := m.values[namespace+"\x00"+id]
	if !ok {
		return nil, tx.ErrNotFound
	}
	return &v, nil
}

func (m *configModel) ConfigValues(_ tx.Tx, r *config.Range, from, until string) (all []*config.Value, next string, err error) {
	bytes := 0
	for _, v := range sorted(m.values) {
		if v.Namespace != r.Namespace || v.ID < from || v.ID >= until {
			continue
		}
		if bytes += len(v.Value); len(all) == r.Limit || len(all) > 0 && bytes > r.MaxBytes {
			return all, v.ID, nil
		}
		all = append(all, v)
	}
	return all, "", nil
}

func (m *configModel) PutConfigValue(_ tx.Tx, v *config.Value) error {
	m.values[v.Namespace+"\x00"+v.ID] = *v
	return nil
}

func (m *configModel) DeleteConfigValue(_ tx.Tx, namespace, id string) error {
	k := namespace + "\x00" + id
	if _, ok := m.values[k]; !ok {
		return tx.ErrNotFound
	}
	delete(m.values, k)
	return nil
}

func revisionKey(namespace string, revision int64) string {
	return fmt.Sprintf("%s\x00%020d", namespace, revision)
}

func (m *configModel) AddConfigRevision(_ tx.Tx, row *config.Row) error {
	k := revisionKey(row.Namespace, row.Revision)
	if _, ok := m.history[k]; ok {
		return tx.ErrExists
	}
	m.history[k] = *row
	return nil
}

func (m *configModel) ConfigRevision(_ tx.Tx, namespace, id string, revision int64) (*config.Row, error) {
	row, ok := m.history[revisionKey(namespace, revision)]
	if !ok || row.ID != id {
		return nil, tx.ErrNotFound
	}
	return &row, nil
}

// rows returns the revisions of a namespace for which f holds, the oldest first.
func (m *configModel) rows(namespace string, f func(*config.Row) bool) []*config.Row {
	return slices.DeleteFunc(sorted(m.history), func(r *config.Row) bool { return r.Namespace != namespace || !f(r) })
}

func cutRows(r *config.Range, all []*config.Row) ([]*config.Row, int64, error) {
	bytes := 0
	for i, row := range all {
		if bytes += len(row.Value.Value); i == r.Limit || i > 0 && bytes > r.MaxBytes {
			return all[:i], row.Revision, nil
		}
	}
	if len(all) == 0 {
		return nil, 0, nil
	}
	return all, 0, nil
}

func (m *configModel) LastConfigRevision(_ tx.Tx, namespace, id string) (*config.Row, error) {
	all := m.rows(namespace, func(r *config.Row) bool { return r.ID == id })
	if len(all) == 0 {
		return nil, tx.ErrNotFound
	}
	return all[len(all)-1], nil
}

func (m *configModel) ConfigHistory(_ tx.Tx, r *config.Range, id string, before int64) ([]*config.Row, int64, error) {
	all := m.rows(r.Namespace, func(row *config.Row) bool { return row.ID == id && row.Revision < before })
	slices.Reverse(all)
	return cutRows(r, all)
}

func (m *configModel) ConfigChanges(_ tx.Tx, r *config.Range, from, until string, after, last int64) ([]*config.Row, int64, error) {
	return cutRows(r, m.rows(r.Namespace, func(row *config.Row) bool {
		return row.ID >= from && row.ID < until && row.Revision > after && row.Revision <= last
	}))
}

func (m *configModel) TrimConfigHistory(_ tx.Tx, namespace, id string, n, total, last int64) (highest int64, err error) {
	if n <= 0 && total <= 0 {
		return 0, nil
	}
	all := m.rows(namespace, func(r *config.Row) bool { return r.ID == id && r.Revision <= last })
	for _, row := range all {
		if row.N <= n || row.Total <= total {
			highest = max(highest, row.Revision)
		}
	}
	for _, row := range all {
		if row.Revision <= highest {
			delete(m.history, revisionKey(namespace, row.Revision))
		}
	}
	return highest, nil
}

func (m *configModel) ConfigNamespaces(tx.Tx) ([]string, error) {
	return slices.Sorted(maps.Keys(m.configHeads)), nil
}

func (m *configModel) ForgetConfig(_ tx.Tx, namespace string, before time.Time, most int) (n int, highest int64, err error) {
	old := m.rows(namespace, func(r *config.Row) bool {
		return r.At.Before(before) && m.values[namespace+"\x00"+r.ID].Revision != r.Revision
	})
	slices.SortStableFunc(old, func(a, b *config.Row) int { return cmp.Or(a.At.Compare(b.At), cmp.Compare(a.Revision, b.Revision)) })
	for _, row := range old[:min(most, len(old))] {
		delete(m.history, revisionKey(namespace, row.Revision))
		n, highest = n+1, max(highest, row.Revision)
	}
	return n, highest, nil
}

func (m *configModel) DeleteConfig(_ tx.Tx, namespace string) error {
	delete(m.configHeads, namespace)
	maps.DeleteFunc(m.values, func(_ string, v config.Value) bool { return v.Namespace == namespace })
	maps.DeleteFunc(m.history, func(_ string, r config.Row) bool { return r.Namespace == namespace })
	return nil
}

// configOperations are those of the configuration.
func configOperations(t *rapid.T) []operation {
	namespace := somewhere.Draw(t, "config namespace")
	ids := rapid.SampledFrom([]string{"", "/a", "/a/b", "A", "a", "b"})
	id, from, until := ids.Draw(t, "config id"), ids.Draw(t, "from id"), ids.Draw(t, "until id")
	n, low, high := rapid.Int64Range(1, 6).Draw(t, "revision"), rapid.Int64Range(-1, 4).Draw(t, "low revision"), rapid.Int64Range(0, 8).Draw(t, "high revision")
	at := someTime.Draw(t, "config at")
	r := config.Range{Namespace: namespace, Limit: rapid.IntRange(1, 3).Draw(t, "config limit"), MaxBytes: rapid.IntRange(1, 6).Draw(t, "config bytes")}
	row := config.Row{N: rapid.Int64Range(1, 4).Draw(t, "n"), Total: rapid.Int64Range(0, 9).Draw(t, "total")}
	row.Value = config.Value{Namespace: namespace, ID: id, Value: string(someBytes.Draw(t, "config value")), JSON: n == 2, Revision: n, Author: from, At: at}
	row.Removed, row.Restored = n == 3, low
	h := config.Head{Revision: n, At: at, Forgotten: low, Count: high, Bytes: n * high}
	type page struct {
		All  any
		Next any
	}
	all := []operation{
		{"ConfigHead", func(s Store, t tx.Tx) (any, error) { return s.ConfigHead(t, namespace) }},
		{"LockConfig", func(s Store, t tx.Tx) (any, error) { return s.LockConfig(t, namespace) }},
		{"PutConfigHead", func(s Store, t tx.Tx) (any, error) { return nil, s.PutConfigHead(t, namespace, h) }},
		{"ConfigValue", func(s Store, t tx.Tx) (any, error) { return pointer(s.ConfigValue(t, namespace, id)) }},
		{"ConfigValues", func(s Store, t tx.Tx) (any, error) {
			all, next, err := s.ConfigValues(t, &r, from, until)
			return page{all, next}, err
		}},
		{"PutConfigValue", func(s Store, t tx.Tx) (any, error) { return nil, s.PutConfigValue(t, &row.Value) }},
		{"DeleteConfigValue", func(s Store, t tx.Tx) (any, error) { return nil, s.DeleteConfigValue(t, namespace, id) }},
		{"AddConfigRevision", func(s Store, t tx.Tx) (any, error) { return nil, s.AddConfigRevision(t, &row) }},
		{"ConfigRevision", func(s Store, t tx.Tx) (any, error) { return pointer(s.ConfigRevision(t, namespace, id, n)) }},
		{"LastConfigRevision", func(s Store, t tx.Tx) (any, error) { return pointer(s.LastConfigRevision(t, namespace, id)) }},
		{"ConfigHistory", func(s Store, t tx.Tx) (any, error) {
			all, next, err := s.ConfigHistory(t, &r, id, high)
			return page{all, next}, err
		}},
		{"ConfigChanges", func(s Store, t tx.Tx) (any, error) {
			all, next, err := s.ConfigChanges(t, &r, from, until, low, high)
			return page{all, next}, err
		}},
		{"TrimConfigHistory", func(s Store, t tx.Tx) (any, error) {
			return s.TrimConfigHistory(t, namespace, id, low, high, n)
		}},
		{"ConfigNamespaces", func(s Store, t tx.Tx) (any, error) { return s.ConfigNamespaces(t) }},
		{"ForgetConfig", func(s Store, t tx.Tx) (any, error) {
			n, highest, err := s.ForgetConfig(t, namespace, at, int(high))
			return page{n, highest}, err
		}},
		{"DeleteConfig", func(s Store, t tx.Tx) (any, error) { return nil, s.DeleteConfig(t, namespace) }},
	}
	for i := range all {
		all[i].name += fmt.Sprintf("[%q %q %q %q %d %d %d %v %+v %+v]", namespace, id, from, until, n, low, high, at, r, row)
	}
	return all
}
