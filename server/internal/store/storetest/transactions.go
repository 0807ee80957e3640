package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/tx"
)

// ids are the instances that the store has, in order.
func ids(t testing.TB, s Store) (all []string) {
	t.Helper()
	read(t, s, func(t2 tx.Tx) error {
		rows, err := s.Instances(t2)
		for _, r := range rows {
			all = append(all, r.ID)
		}
		return err
	})
	return all
}

func testValues(t *testing.T, open Open) {
	s := open(t)
	for _, id := range []string{"a\x00b", "\xff\xfe", string([]byte{'a', 0xc3})} {
		err := s.Write(t.Context(), func(t2 tx.Tx) error { return s.DeleteInstance(t2, "default", id) })
		is(t, fmt.Sprintf("text %q", id), err, tx.ErrInvalid)
	}
	// A refused value does not spoil its transaction.
	write(t, s, func(t2 tx.Tx) error {
		_ = s.DeleteInstance(t2, "default", "\xff")
		return s.PutInstance(t2, instance("default", "in_1"))
	})
	huge := instance("default", "in_2", func(r *registry.Row) {
		r.Declaration = make([]byte, 5<<20)
		r.Registered, r.Updated = time.Unix(0, 1000).UTC(), time.Date(2261, 1, 1, 0, 0, 0, 999999000, time.UTC)
		r.Revision = 1<<63 - 1
	})
	write(t, s, func(t2 tx.Tx) error { return s.PutInstance(t2, huge) })
	read(t, s, func(t2 tx.Tx) error {
		rows, err := s.Instances(t2)
		if err != nil {
			return err
		}
		if !bytes.Equal(rows[1].Declaration, huge.Declaration) {
			t.Error("5 MiB came back changed")
		}
		rows[1].Declaration, huge.Declaration = nil, nil
		equal(t, "a big row", rows[1], huge)
		return nil
	})
}

func testRollback(t *testing.T, open Open) {
	s := open(t)
	mine := errors.New("mine")
	ran := false
	err := s.Write(t.Context(), func(t2 tx.Tx) error {
		t2.AfterCommit(func() { ran = true })
		if err := s.PutInstance(t2, instance("default", "in_1")); err != nil {
			return err
		}
		rows, err := s.Instances(t2) // a transaction sees what it wrote
		if len(rows) != 1 {
			t.Errorf("%d rows in the transaction, want 1", len(rows))
		}
		return errors.Join(err, mine)
	})
	is(t, "the function's error", err, mine)
	if ran {
		t.Error("AfterCommit ran after a rollback")
	}
	// The error of a method may be handled: the transaction goes on.
	write(t, s, func(t2 tx.Tx) error {
		for range 2 {
			if err := s.InsertMeta(t2, "m", nil); err != nil && !errors.Is(err, tx.ErrExists) {
				return err
			}
		}
		return s.PutInstance(t2, instance("default", "in_2"))
	})
	equal(t, "instances", ids(t, s), []string{"in_2"})
	func() {
		defer func() {
			if recover() == nil {
				t.Error("a panic was swallowed")
			}
		}()
		_ = s.Write(t.Context(), func(t2 tx.Tx) error {
			_ = s.PutInstance(t2, instance("default", "in_3"))
			panic("in a transaction")
		})
	}()
	equal(t, "instances", ids(t, s), []string{"in_2"})
}

func testAfterCommit(t *testing.T, open Open) {
	s := open(t)
	// Each transaction adds one to a number in the store and, after the commit, sets a
	// number in memory: in commit order it only ever grows, and by one.
	memory, last := uint64(0), uint64(0)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 6 {
				var mine uint64
				err := s.Write(t.Context(), func(t2 tx.Tx) error {
					n, err := s.NextEpoch(t2)
					mine = n
					t2.AfterCommit(func() { last = memory }) // unprotected: they run one after another
					t2.AfterCommit(func() {
						if memory = n; last+1 != n {
							t.Errorf("after %d came %d", last, n)
						}
					})
					return err
				})
				if err != nil {
					t.Error(err)
				}
				_ = mine
			}
		})
	}
	all.Wait()
	equal(t, "the last number", memory, uint64(48))
}

func testSnapshot(t *testing.T, open Open) {
	s := open(t)
	read(t, s, func(t2 tx.Tx) error {
		before, err := s.Instances(t2)
		if err != nil {
			return err
		}
		write(t, s, func(t3 tx.Tx) error { return s.PutInstance(t3, instance("default", "in_1")) })
		after, err := s.Instances(t2)
		equal(t, "the snapshot", after, before)
		return err
	})
	equal(t, "a later snapshot", ids(t, s), []string{"in_1"})
}

func testReadOnly(t *testing.T, open Open) {
	s := open(t)
	is(t, "a write in a read", s.Read(t.Context(), func(t2 tx.Tx) error {
		return s.PutInstance(t2, instance("default", "in_1"))
	}), tx.ErrReadOnly)
	mine := errors.New("mine")
	is(t, "the function's error", s.Read(t.Context(), func(tx.Tx) error { return mine }), mine)
	equal(t, "instances", ids(t, s), []string(nil))
}

func testContext(t *testing.T, open Open) {
	s := open(t)
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	put := func(id string) func(tx.Tx) error {
		return func(t2 tx.Tx) error { return s.PutInstance(t2, instance("default", id)) }
	}
	is(t, "a write of a caller that is gone", s.Write(gone, put("in_1")), context.Canceled)
	is(t, "a read of a caller that is gone", s.Read(gone, func(tx.Tx) error { return nil }), context.Canceled)
	late, cancel := context.WithTimeout(t.Context(), 0)
	defer cancel()
	is(t, "a write that is late", s.Write(late, put("in_1")), context.DeadlineExceeded)
	// Whoever leaves after the last statement gets the outcome all the same.
	leaving, cancel := context.WithCancel(t.Context())
	if err := s.Write(leaving, func(t2 tx.Tx) error {
		defer cancel()
		return put("in_2")(t2)
	}); err != nil {
		t.Errorf("a commit whose caller has left: %v", err)
	}
	equal(t, "instances", ids(t, s), []string{"in_2"})
}

func testClosed(t *testing.T, open Open) {
	s := open(t)
	var all sync.WaitGroup
	begun, end := make(chan struct{}), make(chan struct{})
	all.Go(func() {
		err := s.Write(context.Background(), func(t2 tx.Tx) error {
			close(begun)
			<-end
			return s.PutInstance(t2, instance("default", "in_1"))
		})
		if err != nil {
			t.Errorf("a write that ran when the store was closed: %v", err)
		}
	})
	<-begun
	for range 2 {
		all.Go(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	close(end)
	all.Wait()
	is(t, "a write", s.Write(t.Context(), func(tx.Tx) error { return nil }), tx.ErrClosed)
	is(t, "a read", s.Read(t.Context(), func(tx.Tx) error { return nil }), tx.ErrClosed)
	if err := s.Close(); err != nil {
		t.Errorf("closing again: %v", err)
	}
}

func testConcurrent(t *testing.T, open Open) {
	s := open(t)
	const writers, each = 16, 6
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each {
				id := fmt.Sprintf("in_%02d_%02d", w, i)
				err := s.Write(t.Context(), func(t2 tx.Tx) error {
					if err := s.PutInstance(t2, instance("default", id)); err != nil {
						return err
					}
					if i%3 == 2 { // every third is taken back
						return tx.ErrStale
					}
					return nil
				})
				if (err != nil) != (i%3 == 2) {
					t.Errorf("write %s: %v", id, err)
				}
				if err := s.Read(t.Context(), func(t2 tx.Tx) error { _, err := s.Instances(t2); return err }); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	equal(t, "instances", len(ids(t, s)), writers*each*2/3)
}

func testOver(t *testing.T, open Open) {
	s := open(t)
	var leaked tx.Tx
	write(t, s, func(t2 tx.Tx) error { leaked = t2; return nil })
	if err := s.PutInstance(leaked, instance("default", "in_1")); err == nil {
		t.Error("a transaction was used after its end")
	}
	if err := s.PutInstance(foreign{}, instance("default", "in_1")); err == nil {
		t.Error("a transaction of something else was taken")
	}
}

// foreign is a transaction that no store has made.
type foreign struct{}

func (foreign) AfterCommit(func()) {}
