package rules_test

import (
	"cmp"
	"context"
	"maps"
	"slices"
	"strings"
	"sync"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/rules"
	"telford.dev/telford/server/internal/tx"
)

// memory is a store that keeps nothing: the contract of rules.Storage in as few lines as
// will do. Nodes that share one see each other's writes when they read.
type memory struct {
	mu     sync.Mutex
	state  state
	fail   error  // what the next writes answer, after they were done or not
	lost   bool   // the failing write was done nevertheless
	before func() // called before the next write, once
	writes int
	spaces map[string]bool // nil: all exist
}

type state struct {
	rules  map[string]rules.Row
	shadow map[string]rules.ShadowDenial
}

func (s state) clone() state { return state{maps.Clone(s.rules), maps.Clone(s.shadow)} }

type memoryTx struct {
	state *state
	after []func()
}

func (t *memoryTx) AfterCommit(f func()) { t.after = append(t.after, f) }

func newMemory() *memory {
	return &memory{state: state{map[string]rules.Row{}, map[string]rules.ShadowDenial{}}}
}

func of(t tx.Tx) *state { return t.(*memoryTx).state }

func (m *memory) Write(ctx context.Context, f func(tx.Tx) error) error {
	m.mu.Lock()
	before := m.before
	m.before = nil
	m.mu.Unlock()
	if before != nil {
		before()
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := ctx.Err(); err != nil {
		return err
	}
	m.writes++
	var t *memoryTx
	for range 2 { // as a store may
		next := m.state.clone()
		t = &memoryTx{state: &next}
		if err := f(t); err != nil {
			return err
		}
	}
	if m.fail != nil {
		if m.lost {
			m.state = *t.state
		}
		return m.fail
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
	s := m.state.clone()
	return f(&memoryTx{state: &s})
}

func (m *memory) written() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.writes
}

func (m *memory) failing(err error, lost bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail, m.lost = err, lost
}

// HoldTx implements rules.Namespaces.
func (m *memory) HoldTx(_ tx.Tx, namespace string) error {
	if m.spaces == nil || m.spaces[namespace] {
		return nil
	}
	return errs.New(errs.NotFound, "namespace %q does not exist", namespace)
}

func ruleKey(r *rules.Row) string { return strings.Join([]string{r.Namespace, r.Kind, r.ID}, "\x00") }

func (m *memory) PutRule(t tx.Tx, row *rules.Row) error {
	all := of(t).rules
	old, ok := all[ruleKey(row)]
	if row.Revision == 1 {
		for _, other := range all {
			if other.Namespace == row.Namespace && other.Kind == row.Kind && (other.ID == row.ID || other.Target == row.Target) {
				return tx.ErrExists
			}
		}
		all[ruleKey(row)] = *row
		return nil
	}
	switch {
	case !ok:
		return tx.ErrNotFound
	case old.Revision != row.Revision-1:
		return tx.ErrStale
	}
	all[ruleKey(row)] = *row
	return nil
}

func (m *memory) DeleteRule(t tx.Tx, namespace, kind, id string) error {
	k := ruleKey(&rules.Row{Namespace: namespace, Kind: kind, ID: id})
	if _, ok := of(t).rules[k]; !ok {
		return tx.ErrNotFound
	}
	delete(of(t).rules, k)
	return nil
}

func (m *memory) DeleteRules(t tx.Tx, namespace string) (int, error) {
	n := len(of(t).rules)
	maps.DeleteFunc(of(t).rules, func(_ string, r rules.Row) bool { return r.Namespace == namespace })
	return n - len(of(t).rules), nil
}

func (m *memory) Rules(t tx.Tx) ([]*rules.Row, error) {
	var all []*rules.Row
	for _, k := range slices.Sorted(maps.Keys(of(t).rules)) {
		row := of(t).rules[k]
		all = append(all, &row)
	}
	return all, nil
}

func shadowKey(d *rules.ShadowDenial) string {
	return strings.Join([]string{d.Namespace, d.Service, d.Action, d.Caller, d.Callee, d.Target}, "\x00")
}

func (m *memory) AddShadow(t tx.Tx, denials []rules.ShadowDenial) error {
	for _, d := range denials {
		if old, ok := of(t).shadow[shadowKey(&d)]; ok {
			d.Count += old.Count
			d.First = old.First
		}
		of(t).shadow[shadowKey(&d)] = d
	}
	return nil
}

func (m *memory) ShadowDenials(t tx.Tx, namespace string) ([]rules.ShadowDenial, error) {
	var all []rules.ShadowDenial
	for _, d := range of(t).shadow {
		if namespace == "" || d.Namespace == namespace {
			all = append(all, d)
		}
	}
	slices.SortFunc(all, func(a, b rules.ShadowDenial) int { return cmp.Compare(shadowKey(&a), shadowKey(&b)) })
	return all, nil
}

func (m *memory) ClearShadow(t tx.Tx, namespace string) (int, error) {
	n := len(of(t).shadow)
	maps.DeleteFunc(of(t).shadow, func(_ string, d rules.ShadowDenial) bool { return d.Namespace == namespace })
	return n - len(of(t).shadow), nil
}
