package sqlite

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"testing"

	"zombiezen.com/go/sqlite"

	"telford.dev/telford/server/internal/store/engine"
	"telford.dev/telford/server/internal/tx"
)

func TestAFullDatabase(t *testing.T) {
	t.Parallel()
	db := open(t, unhurried)
	write(t, db, "INSERT INTO t (k, v) VALUES ($1, $2)", "kept", []byte("v"))
	limit := func(pages int) {
		t.Helper()
		err := db.Write(t.Context(), func(t tx.Tx) error {
			_, err := t.(*txn).conn.pragma(fmt.Sprintf("max_page_count=%d", pages))
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	limit(64)
	big := string(make([]byte, 1<<20))
	errs := group(t, db, insert("a", "small"), insert("big", big), insert("b", "small"))
	if !errors.Is(errs[1], tx.ErrFull) {
		t.Errorf("a write that does not fit: %v, want %v", errs[1], tx.ErrFull)
	}
	stored := []string{"kept"}
	for i, k := range []string{"a", "big", "b"} {
		switch {
		case errs[i] == nil:
			stored = append(stored[:len(stored):len(stored)], k)
		case !errors.Is(errs[i], tx.ErrFull):
			t.Errorf("write %s: %v", k, errs[i])
		}
	}
	got := keys(t, db)
	if len(got) != len(stored) {
		t.Errorf("stored %v, acknowledged %v", got, stored)
	}
	write(t, db, "DELETE FROM t WHERE k = $1", "kept") // deleting works when full
	limit(1 << 20)
	if err := db.Write(t.Context(), insert("big", big)); err != nil {
		t.Errorf("with space again: %v", err)
	}
}

// ioError is what the driver returns when the disk fails.
func ioError(c *conn, code sqlite.ResultCode) error { return c.fail(code.ToError()) }

func TestACommitOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	for name, took := range map[string]bool{"took effect": true, "did not": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var fail, unloadable atomic.Bool
			db := open(t, func(c *Config) {
				unhurried(c)
				c.commit = func(c *conn) error {
					if !fail.Swap(false) {
						_, err := c.exec("COMMIT", nil)
						return err
					}
					if took {
						if _, err := c.exec("COMMIT", nil); err != nil {
							return err
						}
					}
					return ioError(c, sqlite.ResultIOErrFsync)
				}
			})
			var seen []string
			loads := 0
			cancel := db.OnReopen(func(context.Context) error {
				loads++
				if unloadable.Load() {
					return errors.New("not now")
				}
				seen = keys(t, db)
				return nil
			})
			fail.Store(true)
			ran := false
			after := func(tt tx.Tx) error {
				tt.AfterCommit(func() { ran = true })
				return insert("a", "")(tt)
			}
			for i, err := range group(t, db, after, insert("b", ""), func(tx.Tx) error { return tx.ErrStale }) {
				if !errors.Is(err, tx.ErrOutcomeUnknown) {
					t.Errorf("write %d: %v, want %v", i, err, tx.ErrOutcomeUnknown)
				}
			}
			if ran {
				t.Error("AfterCommit ran although the outcome is unknown")
			}
			unloadable.Store(true)
			if err := db.Write(t.Context(), insert("c", "")); !errors.Is(err, tx.ErrUnavailable) {
				t.Errorf("a write before the state was loaded again: %v", err)
			}
			unloadable.Store(false)
			if err := db.Write(t.Context(), insert("c", "")); err != nil {
				t.Error(err)
			}
			stored := []string{}
			if took {
				stored = []string{"a", "b"}
			}
			if loads != 2 || len(seen) != len(stored) {
				t.Errorf("%d loads, the last saw %v; want 2 and %v", loads, seen, stored)
			}
			want(t, keys(t, db), append(stored, "c"))
			cancel()
			fail.Store(true)
			if err := db.Write(t.Context(), insert("d", "")); !errors.Is(err, tx.ErrOutcomeUnknown) {
				t.Error(err)
			}
			if err := db.Write(t.Context(), insert("e", "")); err != nil || loads != 2 {
				t.Errorf("after cancel: %v, %d loads", err, loads)
			}
			if n := db.Stats().Unknown; n != 2 {
				t.Errorf("%d unknown outcomes counted, want 2", n)
			}
		})
	}
}

func TestATransactionThatVanishedFailsTheWholeGroup(t *testing.T) {
	t.Parallel()
	db := open(t, unhurried)
	errs := group(t, db,
		insert("a", ""),
		func(tt tx.Tx) error { // as SQLite may do by itself after an error
			if _, err := tt.(*txn).conn.exec("ROLLBACK", nil); err != nil {
				t.Error(err)
			}
			return errors.New("the disk failed")
		},
		insert("b", ""),
	)
	if errs[0] == nil || errs[1] == nil {
		t.Errorf("acknowledged what was rolled back: %v", errs)
	}
	if errs[2] != nil {
		t.Errorf("the next group: %v", errs[2])
	}
	want(t, keys(t, db), []string{"b"})
}

func TestReadsSeeOneSnapshotAndCannotWrite(t *testing.T) {
	t.Parallel()
	db := open(t)
	write(t, db, "INSERT INTO t (k, v) VALUES ($1, $2)", "a", []byte{})
	count := func(tt tx.Tx) (n int64) {
		err := tt.(engine.Tx).Query("SELECT count(*) FROM t", nil, func(r engine.Row) error { return r.Scan(&n) })
		if err != nil {
			t.Error(err)
		}
		return n
	}
	err := db.Read(t.Context(), func(tt tx.Tx) error {
		first := count(tt)
		write(t, db, "INSERT INTO t (k, v) VALUES ($1, $2)", "b", []byte{})
		if second := count(tt); first != 1 || second != 1 {
			t.Errorf("counted %d, then %d, want 1 both times", first, second)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
	if err := db.Read(t.Context(), insert("c", "")); !errors.Is(err, tx.ErrReadOnly) {
		t.Errorf("a write in a read: %v, want %v", err, tx.ErrReadOnly)
	}
	want(t, keys(t, db), []string{"a", "b"})
}

func TestTheLogIsKeptShort(t *testing.T) {
	t.Parallel()
	db := open(t, func(c *Config) {
		c.Fast = true
		c.limits = defaultLimits
		c.limits.checkPages, c.limits.logPages = 16, 64
	})
	value := string(make([]byte, 8<<10))
	for i := range 200 {
		if err := db.Write(t.Context(), insert(fmt.Sprint(i), value)); err != nil {
			t.Fatal(err)
		}
	}
	until(t, "a checkpoint ran", func() bool { return db.Stats().Checkpoints > 0 })
	// A reader that does not let go keeps the log from beginning anew; the writer tries.
	before := db.Stats().Restarts
	err := db.Read(t.Context(), func(tt tx.Tx) error {
		if err := tt.(engine.Tx).Query("SELECT k FROM t LIMIT 1", nil, func(engine.Row) error { return nil }); err != nil {
			return err
		}
		for i := range 40 {
			write(t, db, "INSERT INTO t (k, v) VALUES ($1, $2)", fmt.Sprint("held ", i), []byte(value))
			if db.Stats().Restarts > before {
				break
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if db.Stats().Restarts == before {
		t.Error("the writer never tried to begin the log anew")
	}
	for i := range 60 {
		write(t, db, "INSERT INTO t (k, v) VALUES ($1, $2)", fmt.Sprint("more ", i), []byte(value))
	}
	if b := db.Stats().LogBytes; b > 128*pageSize {
		t.Errorf("the log has %d bytes", b)
	}
}

func TestValuesThatOneEngineRefusesAreRefusedHereToo(t *testing.T) {
	t.Parallel()
	db := open(t)
	for _, k := range []string{"a\x00b", "\xff"} {
		if err := db.Write(t.Context(), insert(k, "")); !errors.Is(err, tx.ErrInvalid) {
			t.Errorf("key %q: %v, want %v", k, err, tx.ErrInvalid)
		}
	}
	for name, f := range map[string]func(engine.Tx) error{
		"type":  func(t engine.Tx) error { _, err := t.Exec("DELETE FROM t WHERE k = $1", 1.5); return err },
		"count": func(t engine.Tx) error { _, err := t.Exec("DELETE FROM t WHERE k = $1"); return err },
		"order": func(t engine.Tx) error {
			_, err := t.Exec("DELETE FROM t WHERE k = $2 OR k = $1", "a", "b")
			return err
		},
		"syntax": func(t engine.Tx) error { _, err := t.Exec("DELETE FORM t"); return err },
		"nested": func(t engine.Tx) error {
			return t.Query("SELECT 1", nil, func(engine.Row) error { _, err := t.Exec("DELETE FROM t"); return err })
		},
		"columns": func(t engine.Tx) error {
			return t.Query("SELECT 1, 2", nil, func(r engine.Row) error { var n int64; return r.Scan(&n) })
		},
		"destination": func(t engine.Tx) error {
			return t.Query("SELECT 1", nil, func(r engine.Row) error { var n int; return r.Scan(&n) })
		},
	} {
		if err := db.Write(t.Context(), func(t tx.Tx) error { return f(t.(engine.Tx)) }); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
	var leaked engine.Tx
	if err := db.Write(t.Context(), func(t tx.Tx) error { leaked = t.(engine.Tx); return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := leaked.Exec("DELETE FROM t"); err == nil {
		t.Error("a transaction was used after its end")
	}
}
