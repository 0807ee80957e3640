package postgres

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"go.uber.org/goleak"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/server/internal/store/engine"
	"telford.dev/telford/server/internal/store/storetest"
	"telford.dev/telford/server/internal/tx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open opens a database of its own with a table t(k, v) in it.
func open(t testing.TB, change ...func(*Config)) *DB {
	t.Helper()
	cfg := Config{URL: storetest.Postgres(t)}
	for _, f := range change {
		f(&cfg)
	}
	db, err := Open(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	exec(t, db, "create table t (k text primary key, v bigint not null)")
	return db
}

func exec(t testing.TB, db *DB, query string, args ...any) {
	t.Helper()
	if err := db.Write(t.Context(), statement(query, args...)); err != nil {
		t.Fatal(err)
	}
}

func statement(query string, args ...any) func(tx.Tx) error {
	return func(t tx.Tx) error {
		_, err := t.(engine.Tx).Exec(query, args...)
		return err
	}
}

func text(t testing.TB, db *DB, query string) (value string) {
	t.Helper()
	err := db.Read(t.Context(), func(t tx.Tx) error {
		return t.(engine.Tx).Query(query, nil, func(r engine.Row) error { return r.Scan(&value) })
	})
	if err != nil {
		t.Fatal(err)
	}
	return value
}

func stored(t testing.TB, db *DB) string {
	t.Helper()
	return text(t, db, "select coalesce(string_agg(k || '=' || v, ' ' order by k), '') from t")
}

func TestPostgresSettings(t *testing.T) {
	t.Parallel()
	db := open(t)
	got := map[string]string{}
	err := db.Write(t.Context(), func(t tx.Tx) error {
		return t.(engine.Tx).Query(`select name, setting from pg_settings where name in ('synchronous_commit', 'lock_timeout',
			'statement_timeout', 'idle_in_transaction_session_timeout', 'transaction_isolation', 'search_path')`, nil,
			func(r engine.Row) error {
				var name, value string
				err := r.Scan(&name, &value)
				got[name] = value
				return err
			})
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]string{
		"synchronous_commit": "on", "lock_timeout": "5000", "statement_timeout": "10000", "search_path": "telford",
		"idle_in_transaction_session_timeout": "10000", "transaction_isolation": "read committed",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("settings (-want +got):\n%s", d)
	}
	if level := text(t, db, "select current_setting('transaction_isolation')"); level != "repeatable read" {
		t.Errorf("reads run %s", level)
	}
}

func TestPostgresThatMayForgetIsRefused(t *testing.T) {
	t.Parallel()
	for _, setting := range []string{"fsync=off", "full_page_writes=off"} {
		server := storetest.NewServer(t, setting)
		db, err := Open(t.Context(), Config{URL: server.Database(t)})
		if err == nil {
			_ = db.Close()
			t.Fatalf("a server with %s was accepted", setting)
		}
		if !strings.Contains(err.Error(), setting) {
			t.Errorf("the error does not say %q: %v", setting, err)
		}
	}
}

func TestPostgresConflictsAreRunAgain(t *testing.T) {
	t.Parallel()
	db := open(t)
	exec(t, db, "insert into t values ('a', 0), ('b', 0)")
	// Two that lock the same rows in opposite order: the server ends one of them.
	var met sync.WaitGroup
	met.Add(2)
	var all sync.WaitGroup
	var runs atomic.Int64
	for _, order := range [][]string{{"a", "b"}, {"b", "a"}} {
		all.Go(func() {
			first := true
			err := db.Write(t.Context(), func(t tx.Tx) error {
				runs.Add(1)
				if err := statement("update t set v = v + 1 where k = $1", order[0])(t); err != nil {
					return err
				}
				if first {
					first = false
					met.Done()
					met.Wait()
				}
				return statement("update t set v = v + 1 where k = $1", order[1])(t)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	// The second run may meet the other one again.
	if got, again := stored(t, db), db.Stats().Retries; got != "a=2 b=2" || again < 1 || runs.Load() != 2+again {
		t.Errorf("stored %s after %d runs and %d retries, want a=2 b=2 and at least 1 retry", got, runs.Load(), again)
	}
	// A function that hides the error does not hide the conflict; one that never ends is
	// given up.
	runs.Store(0)
	err := db.Write(t.Context(), func(t tx.Tx) error {
		runs.Add(1)
		_ = statement("do $$ begin raise exception using errcode = '40001'; end $$")(t)
		return nil
	})
	if !errors.Is(err, tx.ErrBusy) || runs.Load() != int64(conflict.max) {
		t.Errorf("%d runs ended with %v", runs.Load(), err)
	}
}

func TestPostgresLostBeforeCommit(t *testing.T) {
	t.Parallel()
	db := open(t)
	runs := 0
	err := db.Write(t.Context(), func(t tx.Tx) error {
		if err := statement("insert into t values ('a', 1)")(t); err != nil {
			return err
		}
		if runs++; runs == 1 {
			return statement("select pg_terminate_backend(pg_backend_pid())")(t)
		}
		return nil
	})
	if err != nil || runs != 2 {
		t.Errorf("%d runs, %v", runs, err)
	}
	if got := stored(t, db); got != "a=1" {
		t.Errorf("stored %s", got)
	}
}

func TestPostgresBehindAPooler(t *testing.T) {
	t.Parallel()
	db := open(t, func(c *Config) { c.URL += "&pool_max_conns=1" })
	put := func(k string) {
		t.Helper()
		exec(t, db, "insert into t values ($1, $2)", k, int64(1))
	}
	put("a")
	// Another session behind the same connection knows none of our statements.
	exec(t, db, "deallocate all")
	put("b")
	if !db.describe.Load() {
		t.Error("statements are still prepared by name")
	}
	exec(t, db, "deallocate all")
	put("c")
	if got := stored(t, db); got != "a=1 b=1 c=1" {
		t.Errorf("stored %s", got)
	}
}

// cut is a connection that breaks at the next COMMIT, after or before the server has
// got it.
type cut struct {
	net.Conn
	armed  *atomic.Bool
	after  bool
	broken atomic.Bool
}

func (c *cut) Write(b []byte) (int, error) {
	if bytes.Contains(b, []byte("commit\x00")) && c.armed.CompareAndSwap(true, false) {
		c.broken.Store(true)
		if c.after {
			if _, err := c.Conn.Write(b); err != nil {
				return 0, err
			}
			if _, err := c.Conn.Read(make([]byte, 1)); err != nil { // the server has answered
				return 0, err
			}
		}
		_ = c.Conn.Close()
		return len(b), nil
	}
	return c.Conn.Write(b)
}

func (c *cut) Read(b []byte) (int, error) {
	if c.broken.Load() {
		return 0, io.ErrUnexpectedEOF
	}
	return c.Conn.Read(b)
}

func TestPostgresCommitOfUnknownOutcome(t *testing.T) {
	t.Parallel()
	for name, after := range map[string]bool{"took effect": true, "did not": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var armed atomic.Bool
			db := open(t, func(c *Config) {
				c.wrap = func(nc net.Conn) net.Conn { return &cut{Conn: nc, armed: &armed, after: after} }
			})
			var seen []string
			var fail atomic.Bool
			cancel := db.OnReopen(func(context.Context) error {
				if fail.Load() {
					return errors.New("not now")
				}
				seen = append(seen, stored(t, db))
				return nil
			})
			defer cancel()
			armed.Store(true)
			err := db.Write(t.Context(), func(tt tx.Tx) error {
				tt.AfterCommit(func() { t.Error("AfterCommit ran although the outcome is unknown") })
				return statement("insert into t values ('a', 1)")(tt)
			})
			if !errors.Is(err, tx.ErrOutcomeUnknown) {
				t.Fatalf("got %v, want %v", err, tx.ErrOutcomeUnknown)
			}
			fail.Store(true)
			put := statement("insert into t values ('b', 1)")
			if err := db.Write(t.Context(), put); !errors.Is(err, tx.ErrUnavailable) {
				t.Errorf("a write before the state was loaded again: %v", err)
			}
			fail.Store(false)
			if err := db.Write(t.Context(), put); err != nil {
				t.Error(err)
			}
			want := ""
			if after {
				want = "a=1"
			}
			if !slices.Equal(seen, []string{want}) {
				t.Errorf("the hook saw %q, want %q once", seen, want)
			}
			if got := stored(t, db); got != strings.TrimSpace(want+" b=1") {
				t.Errorf("stored %s", got)
			}
		})
	}
}

func TestPostgresRefusesACommit(t *testing.T) {
	t.Parallel()
	db := open(t)
	exec(t, db, "alter table t add constraint small unique (v) deferrable initially deferred")
	err := db.Write(t.Context(), statement("insert into t values ('a', 1), ('b', 1)"))
	if !errors.Is(err, tx.ErrExists) || errors.Is(err, tx.ErrOutcomeUnknown) {
		t.Errorf("got %v, want %v", err, tx.ErrExists)
	}
	if got := stored(t, db); got != "" {
		t.Errorf("stored %s", got)
	}
}

func TestPostgresIsAway(t *testing.T) {
	t.Parallel()
	server := storetest.NewServer(t)
	db, err := Open(t.Context(), Config{URL: server.Database(t)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	exec(t, db, "create table t (k text primary key, v bigint not null)")
	if err := server.Kill(); err != nil {
		t.Fatal(err)
	}
	put := statement("insert into t values ('a', 1)")
	for range 2 {
		if err := db.Write(t.Context(), put); !errors.Is(err, tx.ErrUnavailable) {
			t.Errorf("a write without a server: %v, want %v", err, tx.ErrUnavailable)
		}
		if err := db.Read(t.Context(), func(tx.Tx) error { return nil }); !errors.Is(err, tx.ErrUnavailable) {
			t.Errorf("a read without a server: %v, want %v", err, tx.ErrUnavailable)
		}
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	if err := db.Write(t.Context(), put); err != nil {
		t.Errorf("a write after the server came back: %v", err)
	}
}

func TestFailuresOfCommit(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err    error
		undone bool
	}{
		{&pgconn.PgError{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "53100"}, true},
		{&pgconn.PgError{Severity: "ERROR", SeverityUnlocalized: "ERROR", Code: "40001"}, true},
		{&pgconn.PgError{Severity: "FATAL", SeverityUnlocalized: "FATAL", Code: "57P01"}, false},
		{&pgconn.PgError{Severity: "PANIC", SeverityUnlocalized: "PANIC", Code: "53100"}, false},
		{pgx.ErrTxCommitRollback, true},
		{io.ErrUnexpectedEOF, false},
		{context.DeadlineExceeded, false},
	} {
		if undone, _ := rolledBack(c.err); undone != c.undone {
			t.Errorf("%v: undone %v, want %v", c.err, undone, c.undone)
		}
	}
}

func TestErrorsOfTheServer(t *testing.T) {
	t.Parallel()
	for code, want := range map[string]error{
		"23505": tx.ErrExists, "53100": tx.ErrFull, "25006": tx.ErrReadOnly, "40001": tx.ErrBusy, "55P03": tx.ErrBusy,
		"57P01": tx.ErrUnavailable, "08006": tx.ErrUnavailable, "53300": tx.ErrUnavailable, "22021": tx.ErrInvalid,
	} {
		err := translate(fmt.Errorf("wrapped: %w", &pgconn.PgError{Code: code, Message: "the text"}))
		var pg *pgconn.PgError
		if !errors.Is(err, want) || errors.As(err, &pg) || !strings.Contains(err.Error(), "the text") {
			t.Errorf("%s: %v, want %v", code, err, want)
		}
	}
	for _, code := range []string{"42501", "28P01", "42P01", ""} {
		if err := translate(&pgconn.PgError{Code: code, Message: "the text"}); err == nil || !strings.Contains(err.Error(), "the text") {
			t.Errorf("%s: %v", code, err)
		}
	}
}

func TestOrderOfTickets(t *testing.T) {
	t.Parallel()
	var o order
	var got []uint64
	var all sync.WaitGroup
	tickets := make([]uint64, 50)
	for i := range tickets {
		tickets[i] = o.take()
	}
	for i := range tickets {
		ticket := tickets[len(tickets)-1-i]
		all.Go(func() {
			defer o.done()
			o.wait(ticket)
			got = append(got, ticket)
		})
	}
	all.Wait()
	if !slices.Equal(got, tickets) {
		t.Errorf("order %v, want %v", got, tickets)
	}
}

func TestPostgresOpenedByManyAtOnce(t *testing.T) {
	t.Parallel()
	url := storetest.Postgres(t)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			db, err := Open(t.Context(), Config{URL: url})
			if err != nil {
				t.Error(err)
				return
			}
			_ = db.Close()
		})
	}
	all.Wait()
}

func TestPostgresClockIsFollowed(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	db := open(t, func(c *Config) { c.Log = slog.New(slog.NewTextHandler(&log, nil)) })
	machine := clock.NewManual(time.Now().Add(-time.Hour))
	db.clock.Clock = machine
	if err := db.measureOnce(); err != nil {
		t.Fatal(err)
	}
	if d := time.Until(db.Clock().Now()).Abs(); d > 10*time.Second {
		t.Errorf("an hour behind the server, the clock is off by %v", d)
	}
	if !strings.Contains(log.String(), "moved apart") {
		t.Errorf("a jump of an hour was not logged: %s", log.String())
	}
	// What is within the margin of the measurement changes nothing.
	log.Reset()
	before := db.clock.distance.Load()
	db.adopt(time.Duration(before)+3*time.Millisecond, 2*time.Millisecond)
	if db.clock.distance.Load() != before || log.Len() > 0 {
		t.Errorf("the distance went from %v to %v: %s", before, db.clock.distance.Load(), log.String())
	}
	injected := open(t, func(c *Config) { c.Clock = machine })
	if !injected.Clock().Now().Equal(machine.Now()) {
		t.Error("an injected clock was corrected")
	}
}
