package sqlite

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"

	"telford.dev/telford/server/internal/store/engine"
	"telford.dev/telford/server/internal/tx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens a database in a directory of its own with a table t(k, v) in it.
func open(t testing.TB, change ...func(*Config)) *DB {
	t.Helper()
	cfg := Config{Path: filepath.Join(t.TempDir(), "test.db")}
	for _, f := range change {
		f(&cfg)
	}
	db, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := db.Close(); err != nil {
			t.Error(err)
		}
	})
	write(t, db, "CREATE TABLE IF NOT EXISTS t (k TEXT PRIMARY KEY, v BLOB NOT NULL) STRICT, WITHOUT ROWID")
	return db
}

func insert(k, v string) func(tx.Tx) error {
	return func(t tx.Tx) error {
		_, err := t.(engine.Tx).Exec("INSERT INTO t (k, v) VALUES ($1, $2)", k, []byte(v))
		return err
	}
}

func write(t testing.TB, db *DB, query string, args ...any) {
	t.Helper()
	err := db.Write(t.Context(), func(t tx.Tx) error {
		_, err := t.(engine.Tx).Exec(query, args...)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func keys(t testing.TB, db *DB) []string {
	t.Helper()
	var all []string
	err := db.Read(t.Context(), func(t tx.Tx) error {
		all = nil
		return t.(engine.Tx).Query("SELECT k FROM t ORDER BY k", nil, func(r engine.Row) error {
			var k string
			err := r.Scan(&k)
			all = append(all, k)
			return err
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func want(t testing.TB, got, want []string) {
	t.Helper()
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("stored (-want +got):\n%s", d)
	}
}

// until polls for a condition that another goroutine brings about.
func until(t testing.TB, what string, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline.C:
			t.Fatalf("waited too long: %s", what)
		case <-tick.C:
		}
	}
}

// group runs the functions in one batch: a first write holds the writer until all of
// them are in the queue, in order.
func group(t *testing.T, db *DB, fs ...func(tx.Tx) error) []error {
	t.Helper()
	hold, held := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		// It shares the fate of the group, whatever that is.
		_ = db.Write(t.Context(), func(tx.Tx) error {
			close(held)
			<-hold
			return nil
		})
	})
	<-held
	errs := make([]error, len(fs))
	for i, f := range fs {
		all.Go(func() { errs[i] = db.Write(t.Context(), f) })
		until(t, "the write is queued", func() bool { return len(db.writer.queue) == i+1 })
	}
	close(hold)
	all.Wait()
	return errs
}

// unhurried lets a batch last, so that a held writer does not close it.
func unhurried(cfg *Config) {
	cfg.limits = defaultLimits
	cfg.limits.batchTime = time.Hour
}

func TestOpeningAssertsDurability(t *testing.T) {
	t.Parallel()
	for _, fast := range []bool{false, true} {
		db := open(t, func(c *Config) { c.Fast = fast })
		level := "2"
		if fast {
			level = "0"
		}
		check := func(tt tx.Tx) error {
			c := tt.(*txn).conn
			for pragma, want := range map[string]string{
				"journal_mode": "wal", "synchronous": level, "wal_autocheckpoint": "0", "mmap_size": "0", "page_size": fmt.Sprint(pageSize),
			} {
				got, err := c.pragma(pragma)
				if err != nil {
					return err
				}
				if got != want {
					t.Errorf("fast %v: %s is %s, want %s", fast, pragma, got, want)
				}
			}
			return nil
		}
		if err := errors.Join(db.Read(t.Context(), check), db.Write(t.Context(), check)); err != nil {
			t.Fatal(err)
		}
	}
}

func TestOneFailureInAGroupTakesNothingElseWithIt(t *testing.T) {
	t.Parallel()
	db := open(t, unhurried)
	before := db.Stats().Batches
	mine := errors.New("mine")
	var order []string
	after := func(k string) func(tx.Tx) error {
		return func(t tx.Tx) error {
			t.AfterCommit(func() { order = append(order, k) })
			return insert(k, "")(t)
		}
	}
	errs := group(t, db,
		after("a"),
		func(t tx.Tx) error { return errors.Join(after("lost")(t), mine) },
		after("b"),
		after("a"), // exists
		func(t tx.Tx) error {
			_ = insert("b", "")(t) // swallowing the error of the database does not help
			return after("swallowed")(t)
		},
		after("c"),
	)
	for i, want := range []error{nil, mine, nil, tx.ErrExists, tx.ErrExists, nil} {
		if !errors.Is(errs[i], want) {
			t.Errorf("write %d: %v, want %v", i, errs[i], want)
		}
	}
	want(t, keys(t, db), []string{"a", "b", "c"})
	want(t, order, []string{"a", "b", "c"})
	if n := db.Stats().Batches - before; n != 1 {
		t.Errorf("%d commits, want 1", n)
	}
}

func TestBatchesGrowWhileTheDiskIsSlow(t *testing.T) {
	t.Parallel()
	const writers, each = 64, 12
	db := open(t, func(c *Config) {
		c.commit = func(c *conn) error {
			<-time.After(5 * time.Millisecond) // a slow sync
			_, err := c.exec("COMMIT", nil)
			return err
		}
	})
	before := db.Stats()
	var over, total atomic.Int64
	var all sync.WaitGroup
	for w := range writers {
		all.Go(func() {
			for i := range each {
				started := db.stats.batches.Load()
				if err := db.Write(t.Context(), insert(fmt.Sprintf("%d-%d", w, i), "v")); err != nil {
					t.Error(err)
				}
				// The batch that ran when the write was queued, its own, and some for a caller
				// that did not get a core in time.
				if total.Add(1); db.stats.batches.Load()-started > 6 {
					over.Add(1)
				}
			}
		})
	}
	all.Wait()
	st := db.Stats()
	batches, writes := st.Batches-before.Batches, st.Writes-before.Writes
	if writes != writers*each {
		t.Errorf("%d writes, want %d", writes, writers*each)
	}
	if per := float64(writes) / float64(batches); per < writers/8 {
		t.Errorf("%d writes in %d batches: %.1f each, want at least %d", writes, batches, per, writers/8)
	}
	if over.Load() > total.Load()/100 {
		t.Errorf("%d of %d writes waited for more than 6 batches", over.Load(), total.Load())
	}
}

func TestALoneWriteDoesNotWaitForCompany(t *testing.T) {
	t.Parallel()
	db := open(t, func(c *Config) { c.Fast = true; unhurried(c) })
	// A batch may last for an hour: none would end in time if it waited.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	for i := range 100 {
		if err := db.Write(ctx, insert(fmt.Sprint(i), "")); err != nil {
			t.Fatal(err)
		}
	}
}

func TestABatchIsBounded(t *testing.T) {
	t.Parallel()
	for name, limit := range map[string]func(*limits){
		"writes": func(l *limits) { l.batchWrites = 4 },
		"bytes":  func(l *limits) { l.batchBytes = 300 },
		"time":   func(l *limits) { l.batchTime = 1 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			db := open(t, func(c *Config) { unhurried(c); limit(&c.limits) })
			before := db.Stats()
			var fs []func(tx.Tx) error
			for i := range 20 {
				fs = append(fs, insert(fmt.Sprintf("%03d", i), string(make([]byte, 97))))
			}
			for _, err := range group(t, db, fs...) {
				if err != nil {
					t.Error(err)
				}
			}
			if n := db.Stats().Batches - before.Batches; n < 5 {
				t.Errorf("%d batches for 21 writes, want at least 5", n)
			}
			if n := len(keys(t, db)); n != 20 {
				t.Errorf("%d rows, want 20", n)
			}
		})
	}
}

func TestWhoLeftBeforeTheBeginningIsDropped(t *testing.T) {
	t.Parallel()
	db := open(t, unhurried)
	ctx, cancel := context.WithCancel(t.Context())
	hold, held := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		err := db.Write(ctx, func(tt tx.Tx) error {
			close(held)
			<-hold
			return insert("begun", "")(tt)
		})
		if err != nil {
			t.Error("a write that had begun must end as it does:", err)
		}
	})
	<-held
	gone := make(chan error, 1)
	all.Go(func() { gone <- db.Write(ctx, insert("left", "")) })
	until(t, "the write is queued", func() bool { return len(db.writer.queue) == 1 })
	cancel()
	if err := <-gone; !errors.Is(err, context.Canceled) || errors.Is(err, tx.ErrOutcomeUnknown) {
		t.Errorf("the caller that left got %v", err)
	}
	close(hold)
	all.Wait()
	until(t, "the request is dropped", func() bool { return db.Stats().Dropped == 1 })
	want(t, keys(t, db), []string{"begun"})
	if err := db.Write(ctx, insert("never", "")); !errors.Is(err, context.Canceled) {
		t.Errorf("a write of a caller that is gone: %v", err)
	}
}

func TestAFullQueueAnswers(t *testing.T) {
	t.Parallel()
	db := open(t, func(c *Config) { unhurried(c); c.limits.queued = 2; c.limits.queueWait = 20 * time.Millisecond })
	hold, held := make(chan struct{}), make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		_ = db.Write(t.Context(), func(tx.Tx) error { close(held); <-hold; return nil })
	})
	<-held
	for i := range 2 {
		all.Go(func() {
			if err := db.Write(t.Context(), insert(fmt.Sprint(i), "")); err != nil {
				t.Error(err)
			}
		})
	}
	until(t, "the queue is full", func() bool { return len(db.writer.queue) == 2 })
	if err := db.Write(t.Context(), insert("busy", "")); !errors.Is(err, tx.ErrBusy) {
		t.Errorf("a full queue answered %v, want %v", err, tx.ErrBusy)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := db.Write(ctx, insert("busy", "")); !errors.Is(err, tx.ErrBusy) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a full queue answered %v, want %v and the error of the context", err, tx.ErrBusy)
	}
	close(hold)
	all.Wait()
	want(t, keys(t, db), []string{"0", "1"})
}

func TestPanicsReachTheirCaller(t *testing.T) {
	t.Parallel()
	db := open(t)
	catch := func(f func(tx.Tx) error) (v any) {
		defer func() { v = recover() }()
		_ = db.Write(t.Context(), f)
		return nil
	}
	if v := catch(func(tt tx.Tx) error { _ = insert("a", "")(tt); panic("in f") }); v == nil {
		t.Error("a panic in the function was swallowed")
	}
	if v := catch(func(tt tx.Tx) error {
		tt.AfterCommit(func() { panic("after") })
		return insert("b", "")(tt)
	}); v == nil {
		t.Error("a panic after the commit was swallowed")
	}
	want(t, keys(t, db), []string{"b"})
}

func TestAFunctionThatEndsItsGoroutine(t *testing.T) {
	t.Parallel()
	db := open(t, unhurried)
	errs := group(t, db,
		insert("a", ""),
		func(tx.Tx) error { runtime.Goexit(); return nil },
		insert("b", ""),
	)
	if !errors.Is(errs[0], errExited) || !errors.Is(errs[1], errExited) || errs[2] != nil {
		t.Errorf("got %v", errs)
	}
	want(t, keys(t, db), []string{"b"})
}

func TestClose(t *testing.T) {
	t.Parallel()
	db := open(t)
	hold, held := make(chan struct{}), make(chan struct{})
	errs := make(chan error, 2)
	go func() {
		errs <- db.Write(t.Context(), func(tt tx.Tx) error { close(held); <-hold; return insert("a", "")(tt) })
	}()
	<-held
	closed := make(chan error, 2)
	for range 2 {
		go func() { closed <- db.Close() }()
	}
	until(t, "it is closing", func() bool {
		select {
		case <-db.closing:
			return true
		default:
			return false
		}
	})
	if err := db.Write(t.Context(), insert("b", "")); !errors.Is(err, tx.ErrClosed) {
		t.Errorf("a write while closing: %v", err)
	}
	close(hold)
	if err := <-errs; err != nil {
		t.Errorf("the write that ran: %v", err)
	}
	for range 2 {
		if err := <-closed; err != nil {
			t.Error(err)
		}
	}
	if err := db.Read(t.Context(), func(tx.Tx) error { return nil }); !errors.Is(err, tx.ErrClosed) {
		t.Errorf("a read after closing: %v", err)
	}
	again := open(t, func(c *Config) { c.Path = db.cfg.Path })
	want(t, keys(t, again), []string{"a"})
}
