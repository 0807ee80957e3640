package storetest

import (
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/tx"
)

var day = time.Date(2026, 3, 29, 1, 30, 0, 123456000, time.UTC)

func key(id string, change ...func(*identity.Key)) *identity.Key {
	k := &identity.Key{
		ID: id, Namespace: "default", Service: "payments", Kind: identity.KindService, Name: "Zahlungen ✓",
		SecretMAC: []byte{0, 1, 0xff}, Created: day, Expires: day.Add(time.Hour), Revision: 1, Updated: day, Author: "anna",
	}
	for _, f := range change {
		f(k)
	}
	return k
}

func equal(t testing.TB, what string, got, want any) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("%s (-want +got):\n%s", what, d)
	}
}

func is(t testing.TB, what string, err, target error) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Errorf("%s: got error %v, want %v", what, err, target)
	}
}

func testKeys(t *testing.T, open Open) {
	s := open(t)
	b := key("key_b", func(k *identity.Key) { k.Revision = 77 }) // ignored
	a := key("key_a", func(k *identity.Key) { k.Namespace, k.Kind, k.Expires = "other", identity.KindAPI, time.Time{} })
	write(t, s, func(t2 tx.Tx) error { return errors.Join(s.InsertKey(t2, b), s.InsertKey(t2, a)) })
	b.Revision = 1

	is(t, "a second key of one id", s.Write(t.Context(), func(t2 tx.Tx) error {
		return s.InsertKey(t2, key("key_b", func(k *identity.Key) { k.Namespace = "third" }))
	}), tx.ErrExists)

	read(t, s, func(t2 tx.Tx) error {
		got, err := s.Key(t2, "key_a")
		equal(t, "one key", got, a)
		if err != nil {
			return err
		}
		if _, err = s.Key(t2, "key_c"); !errors.Is(err, tx.ErrNotFound) {
			t.Errorf("a key that is not there: %v", err)
		}
		for _, c := range []struct {
			filter identity.KeyFilter
			want   []*identity.Key
		}{
			{identity.KeyFilter{}, []*identity.Key{a, b}},
			{identity.KeyFilter{Namespace: "other"}, []*identity.Key{a}},
			{identity.KeyFilter{Namespace: "default", Service: "payments"}, []*identity.Key{b}},
			{identity.KeyFilter{Service: "orders"}, nil},
		} {
			got, err := s.Keys(t2, c.filter)
			if err != nil {
				return err
			}
			equal(t, "keys", got, c.want)
		}
		return nil
	})

	changed := key("key_b", func(k *identity.Key) {
		k.Name, k.Revoked, k.SecretMAC, k.Author, k.Updated = "", day.Add(time.Minute), []byte{}, "bob", day.Add(time.Hour)
		k.Created = day.Add(-time.Hour) // not replaced
	})
	write(t, s, func(t2 tx.Tx) error { return s.UpdateKey(t2, changed) })
	is(t, "the same update again", s.Write(t.Context(), func(t2 tx.Tx) error { return s.UpdateKey(t2, changed) }), tx.ErrStale)
	is(t, "an update of nothing", s.Write(t.Context(), func(t2 tx.Tx) error { return s.UpdateKey(t2, key("key_c")) }), tx.ErrNotFound)
	equal(t, "the caller's key", changed.Revision, int64(1))
	changed.Revision, changed.Created = 2, day
	read(t, s, func(t2 tx.Tx) error {
		got, err := s.Key(t2, "key_b")
		equal(t, "the updated key", got, changed)
		return err
	})
}

func testRevocations(t *testing.T, open Open) {
	s := open(t)
	r := func(kind, id string, d time.Duration) *identity.Revocation {
		return &identity.Revocation{Kind: kind, ID: id, At: day, NotAfter: day.Add(d), Author: "anna", Reason: "lost laptop"}
	}
	first, second, third := r("instance", "default/in_1", time.Hour), r("key", "key_a", 2*time.Hour), r("key", "key_b", time.Hour)
	write(t, s, func(t2 tx.Tx) error {
		return errors.Join(s.InsertRevocation(t2, third), s.InsertRevocation(t2, second), s.InsertRevocation(t2, first))
	})
	again := r("key", "key_b", 3*time.Hour)
	again.Reason = "again"
	for range 2 {
		write(t, s, func(t2 tx.Tx) error { return s.InsertRevocation(t2, again) })
	}
	list := func(want ...*identity.Revocation) {
		t.Helper()
		read(t, s, func(t2 tx.Tx) error {
			got, err := s.Revocations(t2)
			equal(t, "revocations", got, want)
			return err
		})
	}
	list(first, second, again)
	for range 2 {
		write(t, s, func(t2 tx.Tx) error { return s.DeleteRevocationsBefore(t2, day.Add(2*time.Hour)) })
		list(second, again) // the moment itself is not before
	}
}

func testNamespaces(t *testing.T, open Open) {
	s := open(t)
	n := func(name string, account int64) *identity.Namespace {
		return &identity.Namespace{Name: name, Account: account, Created: day}
	}
	insert := func(name string, account int64) error {
		return s.Write(t.Context(), func(t2 tx.Tx) error { return s.InsertNamespace(t2, n(name, account)) })
	}
	for _, err := range []error{insert("b", 0), insert("default", 1000), insert("a", 0)} {
		if err != nil {
			t.Error(err)
		}
	}
	is(t, "a name twice", insert("a", 7), tx.ErrExists)
	is(t, "an account twice", insert("c", 1000), tx.ErrExists)
	read(t, s, func(t2 tx.Tx) error {
		got, err := s.Namespaces(t2)
		equal(t, "namespaces", got, []*identity.Namespace{n("a", 0), n("b", 0), n("default", 1000)})
		return err
	})

	account := func(name string, account int64) error {
		return s.Write(t.Context(), func(t2 tx.Tx) error { return s.SetAccount(t2, name, account, day, "anna") })
	}
	hold := func(name string) error {
		return s.Write(t.Context(), func(t2 tx.Tx) error { return s.HoldNamespace(t2, name) })
	}
	remove := func(name string) error {
		return s.Write(t.Context(), func(t2 tx.Tx) error { return s.DeleteNamespace(t2, name) })
	}
	for _, err := range []error{account("a", 7), account("a", 7), account("default", 0), account("b", 1000), hold("a"), remove("a")} {
		if err != nil {
			t.Error(err)
		}
	}
	is(t, "the account of another", account("default", 1000), tx.ErrExists)
	is(t, "the account of nothing", account("a", 8), tx.ErrNotFound)
	is(t, "nothing held", hold("a"), tx.ErrNotFound)
	is(t, "nothing removed", remove("a"), tx.ErrNotFound)
	read(t, s, func(t2 tx.Tx) error {
		got, err := s.Namespaces(t2)
		equal(t, "namespaces", got, []*identity.Namespace{n("b", 1000), n("default", 0)})
		return err
	})
	testHold(t, s)
}

// testHold: who holds a namespace and who deletes it do not miss each other. Either the
// key that is added under the hold is seen by the deletion, or there is nothing to hold.
func testHold(t *testing.T, s Store) {
	taken := errors.New("it has a key")
	for i := range 20 {
		name := fmt.Sprintf("n%d", i)
		write(t, s, func(t2 tx.Tx) error {
			return s.InsertNamespace(t2, &identity.Namespace{Name: name, Created: day})
		})
		var held, removed error
		var both sync.WaitGroup
		both.Go(func() {
			held = s.Write(t.Context(), func(t2 tx.Tx) error {
				if err := s.HoldNamespace(t2, name); err != nil {
					return err
				}
				return s.InsertKey(t2, key("key_"+name, func(k *identity.Key) { k.Namespace = name }))
			})
		})
		both.Go(func() {
			removed = s.Write(t.Context(), func(t2 tx.Tx) error {
				if err := s.DeleteNamespace(t2, name); err != nil {
					return err
				}
				keys, err := s.Keys(t2, identity.KeyFilter{Namespace: name})
				if err == nil && len(keys) > 0 {
					err = taken
				}
				return err
			})
		})
		both.Wait()
		switch {
		case held == nil && errors.Is(removed, taken):
		case errors.Is(held, tx.ErrNotFound) && removed == nil:
		default:
			t.Fatalf("held: %v, removed: %v; want one of both", held, removed)
		}
	}
}

func testMeta(t *testing.T, open Open) {
	s := open(t)
	get := func(name string) (value []byte, err error) {
		err = s.Read(t.Context(), func(t2 tx.Tx) error {
			value, err = s.Meta(t2, name)
			return err
		})
		return value, err
	}
	_, err := get("root")
	is(t, "no value yet", err, tx.ErrNotFound)
	write(t, s, func(t2 tx.Tx) error { return s.InsertMeta(t2, "root", []byte("1")) })
	is(t, "a second first value", s.Write(t.Context(), func(t2 tx.Tx) error { return s.InsertMeta(t2, "root", []byte("2")) }), tx.ErrExists)
	for _, value := range [][]byte{[]byte("1"), []byte("3"), {}, {0, 0xff}} {
		write(t, s, func(t2 tx.Tx) error { return errors.Join(s.PutMeta(t2, "root", value), s.PutMeta(t2, "other", value)) })
		for _, name := range []string{"root", "other"} {
			got, err := get(name)
			if err != nil {
				t.Error(err)
			}
			equal(t, name, got, value)
		}
	}
	write(t, s, func(t2 tx.Tx) error { return s.PutMeta(t2, "empty", nil) })
	got, err := get("empty")
	if err != nil || got == nil || len(got) != 0 {
		t.Errorf("a nil value came back as %#v, %v, want an empty slice", got, err)
	}
}

func testSwapMeta(t *testing.T, open Open) {
	s := open(t)
	swap := func(name, old, value string) error {
		return s.Write(t.Context(), func(t2 tx.Tx) error { return s.SwapMeta(t2, name, []byte(old), []byte(value)) })
	}
	remove := func(name string) {
		t.Helper()
		write(t, s, func(t2 tx.Tx) error { return s.DeleteMeta(t2, name) })
	}
	is(t, "a swap of nothing", swap("state", "", "1"), tx.ErrStale)
	write(t, s, func(t2 tx.Tx) error {
		return errors.Join(s.InsertMeta(t2, "state", []byte("1")), s.InsertMeta(t2, "other", []byte("1")))
	})
	is(t, "a swap of another value", swap("state", "2", "3"), tx.ErrStale)
	is(t, "a swap", swap("state", "1", "2"), nil)
	is(t, "the same swap again", swap("state", "1", "2"), tx.ErrStale)
	read(t, s, func(t2 tx.Tx) error {
		state, err := s.Meta(t2, "state")
		equal(t, "the swapped value", string(state), "2")
		other, err2 := s.Meta(t2, "other")
		equal(t, "another value", string(other), "1")
		return errors.Join(err, err2)
	})

	// Of many at once one succeeds.
	const many = 8
	results := make(chan error, many)
	for i := range many {
		go func() { results <- swap("state", "2", "by "+string(rune('a'+i))) }()
	}
	won := 0
	for range many {
		switch err := <-results; {
		case err == nil:
			won++
		case !errors.Is(err, tx.ErrStale):
			t.Errorf("a swap among many: %v", err)
		}
	}
	equal(t, "swaps that succeeded", won, 1)

	for range 2 {
		remove("state")
	}
	is(t, "a swap of what was deleted", swap("state", "2", "3"), tx.ErrStale)
	read(t, s, func(t2 tx.Tx) error {
		if _, err := s.Meta(t2, "state"); !errors.Is(err, tx.ErrNotFound) {
			t.Errorf("a deleted value: %v", err)
		}
		_, err := s.Meta(t2, "other")
		return err
	})
}
