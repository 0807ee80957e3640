package storetest

import (
	"maps"
	"strings"

	"telford.dev/telford/server/internal/rules"
	"telford.dev/telford/server/internal/tx"
)

func (m *model) PutRule(_ tx.Tx, row *rules.Row) error {
	k := row.Namespace + "\x00" + row.Kind + "\x00" + row.ID
	old, ok := m.rules[k]
	if row.Revision == 1 {
		for _, other := range m.rules {
			if other.Namespace == row.Namespace && other.Kind == row.Kind && other.Target == row.Target {
				return tx.ErrExists
			}
		}
		if ok {
			return tx.ErrExists
		}
		m.rules[k] = *row
		return nil
	}
	switch {
	case !ok:
		return tx.ErrNotFound
	case old.Revision != row.Revision-1:
		return tx.ErrStale
	}
	c := *row
	c.Target = old.Target
	m.rules[k] = c
	return nil
}

func (m *model) DeleteRule(_ tx.Tx, namespace, kind, id string) error {
	k := namespace + "\x00" + kind + "\x00" + id
	if _, ok := m.rules[k]; !ok {
		return tx.ErrNotFound
	}
	delete(m.rules, k)
	return nil
}

func (m *model) DeleteRules(_ tx.Tx, namespace string) (int, error) {
	n := len(m.rules)
	maps.DeleteFunc(m.rules, func(_ string, r rules.Row) bool { return r.Namespace == namespace })
	return n - len(m.rules), nil
}

func (m *model) Rules(tx.Tx) ([]*rules.Row, error) { return sorted(m.rules), nil }

func (m *model) AddShadow(_ tx.Tx, denials []rules.ShadowDenial) error {
	for _, d := range denials {
		k := strings.Join([]string{d.Namespace, d.Service, d.Action, d.Caller, d.Callee, d.Target}, "\x00")
		if old, ok := m.shadow[k]; ok {
			d.Count += old.Count
			if old.First.Before(d.First) {
				d.First = old.First
			}
			if old.Last.After(d.Last) {
				d.Last = old.Last
			}
		}
		m.shadow[k] = d
	}
	return nil
}

func (m *model) ShadowDenials(_ tx.Tx, namespace string) ([]rules.ShadowDenial, error) {
	var all []rules.ShadowDenial
	for _, d := range sorted(m.shadow) {
		if namespace == "" || d.Namespace == namespace {
			all = append(all, *d)
		}
	}
	return all, nil
}

func (m *model) ClearShadow(_ tx.Tx, namespace string) (int, error) {
	n := len(m.shadow)
	maps.DeleteFunc(m.shadow, func(_ string, d rules.ShadowDenial) bool { return d.Namespace == namespace })
	return n - len(m.shadow), nil
}
