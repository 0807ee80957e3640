package sqlite

import (
	"fmt"
	"os"
	"strconv"

	"zombiezen.com/go/sqlite"

	"telford.dev/telford/server/internal/store/engine"
)

// conn is one connection with its prepared statements. One goroutine at a time uses it.
type conn struct {
	db    *sqlite.Conn
	path  string
	stmts map[string]*sqlite.Stmt
	// spoiled: an I/O error happened, the owner replaces the connection.
	spoiled bool
}

// create makes the file with a mode that keeps others of the host out. SQLite gives
// the log the same mode.
func create(path string) error {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open the database file: %w: give this user the right to write it, or choose another data directory", err)
	}
	return f.Close()
}

// openConn opens a connection and asserts that it keeps what it acknowledges.
// Memory-mapped reading stays off: a failing disk must be an error, not a signal that
// ends the process.
func openConn(path string, fast bool) (*conn, error) {
	db, err := sqlite.OpenConn(path, sqlite.OpenReadWrite)
	if err != nil {
		return nil, translate(path, err)
	}
	db.SetBusyTimeout(busyTimeout)
	c := &conn{db: db, path: path, stmts: map[string]*sqlite.Stmt{}}
	if err := c.setUp(fast); err != nil {
		_ = c.close()
		return nil, err
	}
	return c, nil
}

func (c *conn) setUp(fast bool) error {
	mode, err := c.pragma("journal_mode=WAL")
	if err != nil {
		return err
	}
	if mode != "wal" {
		return fmt.Errorf("database %s: journal mode is %q, want \"wal\": the file system must support shared memory; "+
			"network file systems do not, choose a data directory on a local disk", c.path, mode)
	}
	level, sync := "2", "synchronous=FULL"
	if fast {
		level, sync = "0", "synchronous=OFF"
	}
	for _, p := range []string{
		sync, "wal_autocheckpoint=0", "journal_size_limit=67108864", "mmap_size=0",
		"cache_size=-8192", "temp_store=MEMORY", "foreign_keys=ON", "trusted_schema=OFF",
	} {
		if _, err := c.pragma(p); err != nil {
			return err
		}
	}
	got, err := c.pragma("synchronous")
	if err != nil {
		return err
	}
	if got != level {
		return fmt.Errorf("database %s: synchronous is %s, want %s: refusing to acknowledge what may be lost", c.path, got, level)
	}
	return nil
}

// pragma runs PRAGMA p and returns the first column of its first row, if any.
func (c *conn) pragma(p string) (value string, err error) {
	stmt, _, err := c.db.PrepareTransient("PRAGMA " + p)
	if err != nil {
		return "", c.fail(err)
	}
	defer func() { _ = stmt.Finalize() }()
	row, err := stmt.Step()
	if err != nil {
		return "", c.fail(err)
	}
	if row {
		value = stmt.ColumnText(0)
	}
	return value, nil
}

func (c *conn) close() error {
	if err := c.db.Close(); err != nil {
		return translate(c.path, err)
	}
	return nil
}

// fail translates an error of the driver and notes whether the connection can be
// trusted any longer.
func (c *conn) fail(err error) error {
	switch sqlite.ErrCode(err).ToPrimary() {
	case sqlite.ResultIOErr, sqlite.ResultCorrupt, sqlite.ResultNotADB, sqlite.ResultNoMem, sqlite.ResultCantOpen:
		c.spoiled = true
	}
	return translate(c.path, err)
}

// prepare returns the statement of a query, prepared once per connection.
func (c *conn) prepare(query string) (*sqlite.Stmt, error) {
	if stmt := c.stmts[query]; stmt != nil {
		return stmt, nil
	}
	stmt, err := c.db.Prepare(query)
	if err != nil {
		return nil, c.fail(err)
	}
	// $1, $2, … are names to SQLite, counted by first appearance.
	for i := 1; i <= stmt.BindParamCount(); i++ {
		if name := stmt.BindParamName(i); name != "$"+strconv.Itoa(i) {
			return nil, fmt.Errorf("statement %q: parameter %d is called %q, want $%d", query, i, name, i)
		}
	}
	c.stmts[query] = stmt
	return stmt, nil
}

func (c *conn) bind(query string, args []any) (*sqlite.Stmt, error) {
	stmt, err := c.prepare(query)
	if err != nil {
		return nil, err
	}
	if n := stmt.BindParamCount(); n != len(args) {
		return nil, fmt.Errorf("statement %q: %d values for %d parameters", query, len(args), n)
	}
	for i, arg := range args {
		switch v := arg.(type) {
		case int64:
			stmt.BindInt64(i+1, v)
		case string:
			stmt.BindText(i+1, v)
		case []byte:
			if len(v) == 0 {
				stmt.BindZeroBlob(i+1, 0)
				continue
			}
			stmt.BindBytes(i+1, v)
		case bool:
			stmt.BindBool(i+1, v)
		}
	}
	return stmt, nil
}

// exec runs a statement to its end and returns how many rows it changed.
func (c *conn) exec(query string, args []any) (int64, error) {
	stmt, err := c.bind(query, args)
	if err != nil {
		return 0, err
	}
	for {
		row, err := stmt.Step()
		if err != nil {
			_ = stmt.Reset()
			return 0, c.fail(err)
		}
		if !row {
			break
		}
	}
	if err := stmt.Reset(); err != nil {
		return 0, c.fail(err)
	}
	return int64(c.db.Changes()), nil
}

// query runs a query. The first error is the database's, the second is each's.
func (c *conn) query(query string, args []any, each func(engine.Row) error) (dbErr, eachErr error) {
	stmt, err := c.bind(query, args)
	if err != nil {
		return err, nil
	}
	defer func() { _ = stmt.Reset() }()
	r := row{stmt: stmt}
	for {
		more, err := stmt.Step()
		if err != nil {
			return c.fail(err), nil
		}
		if !more {
			return nil, nil
		}
		if err := each(r); err != nil {
			return nil, err
		}
	}
}

// rollback ends the transaction, if there is still one.
func (c *conn) rollback() {
	if c.db.AutocommitEnabled() {
		return
	}
	if _, err := c.exec("ROLLBACK", nil); err != nil {
		c.spoiled = true
	}
}
