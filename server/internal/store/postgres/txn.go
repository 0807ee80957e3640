package postgres

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"telford.dev/telford/server/internal/store/engine"
)

// txn implements engine.Tx on a transaction of the driver.
type txn struct {
	engine.State
	db  *DB
	ptx pgx.Tx
	// caller is asked between statements whether it still waits. ctx goes to the
	// driver, which would close the connection when it ends.
	caller context.Context
	ctx    context.Context
	retry  retry
}

// rowsPerCheck is how many rows are read between two looks at the caller's context.
const rowsPerCheck = 256

// Exec implements engine.Tx.
func (t *txn) Exec(query string, args ...any) (int64, error) {
	if err := t.begin(args); err != nil {
		return 0, err
	}
	tag, err := t.ptx.Exec(t.ctx, query, t.args(args)...)
	if err != nil {
		return 0, t.fail(err)
	}
	return tag.RowsAffected(), t.End(nil)
}

// Query implements engine.Tx.
func (t *txn) Query(query string, args []any, each func(engine.Row) error) error {
	if err := t.begin(args); err != nil {
		return err
	}
	rows, err := t.ptx.Query(t.ctx, query, t.args(args)...)
	if err != nil {
		return t.fail(err)
	}
	var eachErr error
	for n := 1; eachErr == nil && rows.Next(); n++ {
		if n%rowsPerCheck == 0 {
			eachErr = t.alive()
		}
		if eachErr == nil {
			eachErr = each(row{rows})
		}
	}
	rows.Close()
	if err := rows.Err(); err != nil && eachErr == nil {
		return t.fail(err)
	}
	_ = t.End(nil)
	return eachErr
}

func (t *txn) begin(args []any) error {
	if _, err := engine.CheckArgs(args); err != nil {
		return err
	}
	if err := t.Begin(); err != nil {
		return err
	}
	if err := t.alive(); err != nil {
		return t.End(err)
	}
	return nil
}

// args puts the way of preparing in front, where it differs from the pool's.
func (t *txn) args(args []any) []any {
	if t.db.describe.Load() {
		return append([]any{pgx.QueryExecModeCacheDescribe}, args...)
	}
	return args
}

func (t *txn) alive() error {
	if err := t.caller.Err(); err != nil {
		return fmt.Errorf("run a statement: %w", err)
	}
	return nil
}

// fail ends a statement that the database refused.
func (t *txn) fail(err error) error {
	t.retry = t.db.mayRetry(err, t.ptx.Conn().IsClosed())
	return t.End(translate(err))
}

// row implements engine.Row.
type row struct{ rows pgx.Rows }

// Scan implements engine.Row.
func (r row) Scan(dest ...any) error {
	for i, d := range dest {
		switch d.(type) {
		case *int64, *string, *[]byte, *bool:
		default:
			return fmt.Errorf("scan: column %d into a %T", i+1, d)
		}
	}
	if err := r.rows.Scan(dest...); err != nil {
		return errors.New("scan: " + err.Error())
	}
	return nil
}
