package storetest

import (
	"errors"
	"sync"
	"testing"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/tx"
)

func instance(namespace, id string, change ...func(*registry.Row)) *registry.Row {
	r := &registry.Row{
		Namespace: namespace, ID: id, Service: "payments", KeyID: "key_a", Door: "link",
		Declaration: []byte(`{"service":"payments","tags":["☂"]}`), Registered: day, Updated: day, Revision: 1, Author: id,
	}
	for _, f := range change {
		f(r)
	}
	return r
}

func testInstances(t *testing.T, open Open) {
	s := open(t)
	list := func(want ...*registry.Row) {
		t.Helper()
		read(t, s, func(t2 tx.Tx) error {
			got, err := s.Instances(t2)
			equal(t, "instances", got, want)
			return err
		})
	}
	list()
	// As bytes compare: upper case before lower case, "-" before letters.
	z, a, dash, other := instance("default", "in_Z"), instance("default", "in_a"), instance("default", "in-a"), instance("Other", "in_a")
	for _, r := range []*registry.Row{a, other, dash, z} {
		write(t, s, func(t2 tx.Tx) error { return s.PutInstance(t2, r) })
	}
	list(other, dash, z, a)
	a2 := instance("default", "in_a", func(r *registry.Row) {
		r.Service, r.KeyID, r.Door, r.Declaration, r.Draining = "orders", "", "ipc", []byte("{}"), true
		r.Registered, r.Updated, r.Revision, r.Author = day.Add(time.Second), day.Add(time.Minute), 9, "operator"
	})
	for range 2 {
		write(t, s, func(t2 tx.Tx) error { return s.PutInstance(t2, a2) })
		list(other, dash, z, a2)
	}
	for range 2 {
		write(t, s, func(t2 tx.Tx) error {
			return errors.Join(s.DeleteInstance(t2, "default", "in_Z"), s.DeleteInstance(t2, "default", "in-b"))
		})
		list(other, dash, a2)
	}
}

func testTombstones(t *testing.T, open Open) {
	s := open(t)
	stone := func(namespace, id string, d time.Duration) catalog.Tombstone {
		return catalog.Tombstone{Namespace: namespace, ID: id, Service: "payments", Reason: catalog.Expired, At: day.Add(d)}
	}
	list := func(since time.Time, want ...catalog.Tombstone) {
		t.Helper()
		read(t, s, func(t2 tx.Tx) error {
			got, err := s.Tombstones(t2, since)
			equal(t, "tombstones", got, want)
			return err
		})
	}
	late, early, same, other := stone("b", "in_1", time.Minute), stone("b", "in_2", 0), stone("b", "in_0", time.Minute), stone("a", "in_9", time.Minute)
	for _, x := range []catalog.Tombstone{late, early, same, other} {
		write(t, s, func(t2 tx.Tx) error { return s.PutTombstone(t2, x) })
	}
	list(time.Time{}, early, other, same, late)
	list(day.Add(time.Minute), other, same, late)
	list(day.Add(time.Minute + time.Microsecond))
	early.Reason, early.At, early.Service = catalog.Operator, day.Add(time.Hour), "orders"
	write(t, s, func(t2 tx.Tx) error { return s.PutTombstone(t2, early) })
	list(time.Time{}, other, same, late, early)
	for _, want := range []int{3, 0} {
		write(t, s, func(t2 tx.Tx) error {
			n, err := s.DeleteTombstonesBefore(t2, day.Add(time.Hour))
			equal(t, "deleted", n, want)
			return err
		})
	}
	list(time.Time{}, early)
}

func testEpochs(t *testing.T, open Open) {
	s := open(t)
	next := func(fail error) (n uint64) {
		err := s.Write(t.Context(), func(t2 tx.Tx) (err error) {
			n, err = s.NextEpoch(t2)
			return errors.Join(err, fail)
		})
		if !errors.Is(err, fail) {
			t.Error(err)
		}
		return n
	}
	equal(t, "the first epoch", next(nil), uint64(1))
	_ = next(errors.New("rolled back"))
	var mu sync.Mutex
	seen := map[uint64]bool{1: true}
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 4 {
				n := next(nil)
				mu.Lock()
				if seen[n] {
					t.Errorf("epoch %d was given twice", n)
				}
				seen[n] = true
				mu.Unlock()
			}
		})
	}
	all.Wait()
	equal(t, "epochs", len(seen), 33)
}
