package sqlite

import (
	"context"
	"fmt"

	"telford.dev/telford/server/internal/store/engine"
)

// txn implements engine.Tx on a connection that is inside a transaction.
type txn struct {
	engine.State
	conn  *conn
	ctx   context.Context // of a reader; nil on the writer, which no caller may interrupt
	bytes int             // size of the values written
}

// rowsPerCheck is how many rows are read between two looks at the caller's context.
const rowsPerCheck = 256

// Exec implements engine.Tx.
func (t *txn) Exec(query string, args ...any) (changed int64, err error) {
	size, err := engine.CheckArgs(args)
	if err != nil {
		return 0, err
	}
	if err := t.Begin(); err != nil {
		return 0, err
	}
	t.bytes += size
	if err := t.alive(); err != nil {
		return 0, t.End(err)
	}
	changed, err = t.conn.exec(query, args)
	return changed, t.End(err)
}

// Query implements engine.Tx.
func (t *txn) Query(query string, args []any, each func(engine.Row) error) error {
	if _, err := engine.CheckArgs(args); err != nil {
		return err
	}
	if err := t.Begin(); err != nil {
		return err
	}
	if err := t.alive(); err != nil {
		return t.End(err)
	}
	rows := 0
	dbErr, eachErr := t.conn.query(query, args, func(r engine.Row) error {
		if rows++; rows%rowsPerCheck == 0 {
			if err := t.alive(); err != nil {
				return err
			}
		}
		return each(r)
	})
	if err := t.End(dbErr); err != nil {
		return err
	}
	return eachErr
}

func (t *txn) alive() error {
	if t.ctx == nil || t.ctx.Err() == nil {
		return nil
	}
	return fmt.Errorf("read: %w", t.ctx.Err())
}
