package storetest

import (
	"errors"
	"strconv"
	"sync"
	"testing"
	"time"

	"telford.dev/telford/server/internal/idempotency"
	"telford.dev/telford/server/internal/tx"
)

// claimed returns the record of a claim.
func claimed(key string, fence int64, change ...func(*idempotency.Record)) *idempotency.Record {
	r := &idempotency.Record{
		ID:          idempotency.ID{Namespace: "default", Caller: "shop", Callee: "payments", Method: "shop.v1.Payments/Pay", Key: key},
		BusinessKey: "order ☂", RequestID: "req", Trace: "0af7651916cd43dd8448eb211c80319c", BodyHash: []byte{0, 1, 255},
		State: idempotency.Running, Once: true, Fence: fence, Owner: "proc_a", Instance: "in_a", Attempt: 1,
		Claimed: day, Deadline: day.Add(time.Minute), Expires: day.Add(time.Hour), Answer: []byte{}, Revision: 1, Updated: day,
	}
	for _, f := range change {
		f(r)
	}
	return r
}

func testKeyed(t *testing.T, open Open) {
	s := open(t)
	r := claimed("k", 7)
	stored := func(want *idempotency.Record) {
		t.Helper()
		read(t, s, func(t2 tx.Tx) error {
			got, err := s.IdempotencyRecord(t2, &r.ID)
			equal(t, "the record", got, want)
			return err
		})
	}
	is(t, "a record that is not there", s.Read(t.Context(), func(t2 tx.Tx) error {
		_, err := s.IdempotencyRecord(t2, &r.ID)
		return err
	}), tx.ErrNotFound)
	write(t, s, func(t2 tx.Tx) error { return s.InsertIdempotencyRecord(t2, r) })
	stored(r)
	is(t, "the same again", s.Write(t.Context(), func(t2 tx.Tx) error { return s.InsertIdempotencyRecord(t2, r) }), tx.ErrExists)
	for i, change := range []func(*idempotency.Record){
		func(r *idempotency.Record) { r.Namespace = "other" }, func(r *idempotency.Record) { r.Caller = "other" },
		func(r *idempotency.Record) { r.Callee = "other" }, func(r *idempotency.Record) { r.Method = "other" },
		func(r *idempotency.Record) { r.Key = "other" },
	} {
		write(t, s, func(t2 tx.Tx) error { return s.InsertIdempotencyRecord(t2, claimed("k", int64(i), change)) })
	}

	answered := claimed("k", 8, func(r *idempotency.Record) {
		r.State, r.Once, r.Answered, r.Code, r.Size, r.Answer, r.Owner = idempotency.Answered, false, day.Add(time.Second), "handler", 1<<40, []byte{0, 200}, "proc_b"
	})
	update := func(r *idempotency.Record, fence int64) error {
		return s.Write(t.Context(), func(t2 tx.Tx) error { return s.UpdateIdempotencyRecord(t2, r, fence) })
	}
	is(t, "an older fence", update(answered, 6), tx.ErrStale)
	is(t, "a record that is not there", update(claimed("nothing", 1), 1), tx.ErrStale)
	stored(r)
	is(t, "the fence", update(answered, 7), nil)
	answered.Revision = 2
	stored(answered)
	is(t, "a fence that has gone", update(r, 7), tx.ErrStale)

	read(t, s, func(t2 tx.Tx) error {
		n, err := s.CountIdempotencyRecords(t2)
		equal(t, "records", n, 6)
		all, err2 := s.IdempotencyRecords(t2, idempotency.Filter{Key: "k"})
		var names []string
		for _, r := range all {
			names = append(names, r.Namespace+" "+r.Caller+" "+r.Callee+" "+r.Method)
			if len(r.Answer) != 0 {
				t.Error("a list brings the answers")
			}
		}
		const method = "shop.v1.Payments/Pay"
		equal(t, "the records of a key", names, []string{
			"default other payments " + method, "default shop other " + method, "default shop payments other",
			"default shop payments " + method, "other shop payments " + method,
		})
		of, err3 := s.IdempotencyRecords(t2, idempotency.Filter{Namespace: "default", BusinessKey: "order ☂"})
		equal(t, "the records of a business key", len(of), 5)
		return errors.Join(err, err2, err3)
	})
}

// testKeyedExpiry: what expired first goes first, and no more than asked for.
func testKeyedExpiry(t *testing.T, open Open) {
	s := open(t)
	for i := range 7 {
		write(t, s, func(t2 tx.Tx) error {
			return s.InsertIdempotencyRecord(t2, claimed(strconv.Itoa(6-i), 1, func(r *idempotency.Record) { r.Expires = day.Add(time.Duration(6-i) * time.Second) }))
		})
	}
	remove := func(expired time.Time, most, want int, left ...string) {
		t.Helper()
		var n int
		write(t, s, func(t2 tx.Tx) (err error) {
			n, err = s.DeleteIdempotencyRecords(t2, expired, most)
			return err
		})
		equal(t, "deleted", n, want)
		read(t, s, func(t2 tx.Tx) error {
			all, err := s.IdempotencyRecords(t2, idempotency.Filter{BusinessKey: "order ☂"})
			var keys []string
			for _, r := range all {
				keys = append(keys, r.Key)
			}
			equal(t, "left", keys, left)
			return err
		})
	}
	remove(day.Add(-time.Second), 10, 0, "0", "1", "2", "3", "4", "5", "6")
	remove(day.Add(3*time.Second), 3, 3, "3", "4", "5", "6")
	remove(day.Add(3*time.Second), 3, 1, "4", "5", "6")
	remove(day.Add(time.Hour), 10, 3)

	owner := func(id string) (until time.Time) {
		read(t, s, func(t2 tx.Tx) (err error) {
			until, err = s.IdempotencyOwner(t2, id)
			return err
		})
		return until
	}
	equal(t, "an unknown process", owner("proc_a"), time.Time{})
	for i, id := range []string{"proc_a", "proc_b", "proc_a"} {
		write(t, s, func(t2 tx.Tx) error { return s.PutIdempotencyOwner(t2, id, day.Add(time.Duration(i)*time.Second)) })
	}
	equal(t, "a lease", owner("proc_a"), day.Add(2*time.Second))
	write(t, s, func(t2 tx.Tx) error { return s.DeleteIdempotencyOwners(t2, day.Add(time.Second)) })
	equal(t, "a lease that ended", owner("proc_b"), time.Time{})
	equal(t, "a lease that has not ended", owner("proc_a"), day.Add(2*time.Second))
	for range 2 {
		write(t, s, func(t2 tx.Tx) error { return s.DeleteIdempotencyOwner(t2, "proc_a") })
	}
	equal(t, "a lease that was given back", owner("proc_a"), time.Time{})
}

// testKeyedRace: of many that claim a key at once, one does, and of many that replace a
// record, one does, whatever they saw before.
func testKeyedRace(t *testing.T, open Open) {
	s := open(t)
	race := func(what string, lost error, f func(t2 tx.Tx, i int) error) {
		t.Helper()
		const many = 8
		results := make([]error, many)
		var all sync.WaitGroup
		for i := range many {
			all.Go(func() {
				results[i] = s.Write(t.Context(), func(t2 tx.Tx) error { return f(t2, i) })
			})
		}
		all.Wait()
		won := 0
		for _, err := range results {
			switch {
			case err == nil:
				won++
			case !errors.Is(err, lost):
				t.Errorf("%s: %v", what, err)
			}
		}
		if won != 1 {
			t.Errorf("%s: %d succeeded", what, won)
		}
	}
	for round := range 10 {
		key := strconv.Itoa(round)
		race("insert", tx.ErrExists, func(t2 tx.Tx, _ int) error { return s.InsertIdempotencyRecord(t2, claimed(key, 1)) })
		race("replace", tx.ErrStale, func(t2 tx.Tx, i int) error {
			if _, err := s.IdempotencyRecord(t2, &claimed(key, 1).ID); err != nil {
				return err
			}
			return s.UpdateIdempotencyRecord(t2, claimed(key, int64(2+i)), 1)
		})
	}
}
