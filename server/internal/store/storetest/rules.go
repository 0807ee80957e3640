package storetest

import (
	"errors"
	"testing"
	"time"

	"telford.dev/telford/server/internal/rules"
	"telford.dev/telford/server/internal/tx"
)

func testRules(t *testing.T, open Open) {
	s := open(t)
	row := func(namespace, kind, id, target string) *rules.Row {
		return &rules.Row{
			Namespace: namespace, Kind: kind, ID: id, Target: target, Spec: []byte(`{"peer":"ω*"}`), Revision: 1, Updated: day, Author: "anna",
		}
	}
	put := func(r *rules.Row) error {
		return s.Write(t.Context(), func(t2 tx.Tx) error { return s.PutRule(t2, r) })
	}
	remove := func(r *rules.Row) error {
		return s.Write(t.Context(), func(t2 tx.Tx) error { return s.DeleteRule(t2, r.Namespace, r.Kind, r.ID) })
	}
	list := func(want ...*rules.Row) {
		t.Helper()
		read(t, s, func(t2 tx.Tx) error {
			got, err := s.Rules(t2)
			equal(t, "rules", got, want)
			return err
		})
	}
	list()
	a, b := row("default", "limit", "lim_a", "orders"), row("default", "limit", "lim_b", "payments")
	sameTarget, other := row("default", "policy", "lim_a", "orders"), row("Other", "limit", "lim_a", "orders")
	for _, r := range []*rules.Row{b, a, sameTarget, other} {
		if err := put(r); err != nil {
			t.Fatal(err)
		}
	}
	list(other, a, b, sameTarget)
	is(t, "an id twice", put(row("default", "limit", "lim_a", "third")), tx.ErrExists)
	is(t, "a target twice", put(row("default", "limit", "lim_c", "orders")), tx.ErrExists)

	second := row("default", "limit", "lim_a", "not kept")
	second.Spec, second.Revision, second.Updated, second.Author = []byte{}, 2, day.Add(time.Hour), "bob"
	if err := put(second); err != nil {
		t.Fatal(err)
	}
	second.Target = "orders"
	list(other, second, b, sameTarget)
	is(t, "the same again", put(second), tx.ErrStale)
	ahead := *second
	ahead.Revision = 9
	is(t, "a revision ahead", put(&ahead), tx.ErrStale)
	absent := *second
	absent.ID = "lim_c"
	is(t, "a replacement of nothing", put(&absent), tx.ErrNotFound)

	if err := remove(b); err != nil {
		t.Error(err)
	}
	is(t, "removed again", remove(b), tx.ErrNotFound)
	list(other, second, sameTarget)
	for _, want := range []int{2, 0} {
		write(t, s, func(t2 tx.Tx) error {
			n, err := s.DeleteRules(t2, "default")
			equal(t, "deleted", n, want)
			return err
		})
	}
	list(other)
}

func testShadow(t *testing.T, open Open) {
	s := open(t)
	d := func(namespace, target string, count int64, first, last time.Duration) rules.ShadowDenial {
		return rules.ShadowDenial{
			Namespace: namespace, Service: "payments", Action: "rpc.handle", Caller: "orders", Callee: "payments", Target: target,
			Count: count, First: day.Add(first), Last: day.Add(last),
		}
	}
	list := func(namespace string, want ...rules.ShadowDenial) {
		t.Helper()
		read(t, s, func(t2 tx.Tx) error {
			got, err := s.ShadowDenials(t2, namespace)
			equal(t, "shadow denials", got, want)
			return err
		})
	}
	write(t, s, func(t2 tx.Tx) error {
		return errors.Join(s.AddShadow(t2, nil), s.AddShadow(t2, []rules.ShadowDenial{
			d("default", "refund", 1, 0, 0), d("default", "Charge", 2, 0, time.Minute), d("other", "refund", 3, 0, 0),
		}))
	})
	list("default", d("default", "Charge", 2, 0, time.Minute), d("default", "refund", 1, 0, 0))
	write(t, s, func(t2 tx.Tx) error {
		return s.AddShadow(t2, []rules.ShadowDenial{d("default", "Charge", 5, time.Second, time.Second), d("default", "refund", 1, -time.Hour, time.Hour)})
	})
	list("", d("default", "Charge", 7, 0, time.Minute), d("default", "refund", 2, -time.Hour, time.Hour), d("other", "refund", 3, 0, 0))
	for _, want := range []int{2, 0} {
		write(t, s, func(t2 tx.Tx) error {
			n, err := s.ClearShadow(t2, "default")
			equal(t, "cleared", n, want)
			return err
		})
	}
	list("default")
	list("", d("other", "refund", 3, 0, 0))
}
