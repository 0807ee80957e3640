package store

import (
	"errors"
	"fmt"

	"telford.dev/telford/server/internal/store/engine"
	"telford.dev/telford/server/internal/tx"
)

// statements are what one transaction lets the storage methods do.
func statements(t tx.Tx) (engine.Tx, error) {
	q, ok := t.(engine.Tx)
	if !ok {
		return nil, fmt.Errorf("a %T is no transaction of the store", t)
	}
	return q, nil
}

// exec runs one statement and returns the number of rows that it changed.
func exec(t tx.Tx, query string, args ...any) (int64, error) {
	q, err := statements(t)
	if err != nil {
		return 0, err
	}
	return q.Exec(query, args...)
}

// list runs a query and returns what scan makes of its rows.
func list[T any](t tx.Tx, scan func(engine.Row) (T, error), query string, args ...any) ([]T, error) {
	q, err := statements(t)
	if err != nil {
		return nil, err
	}
	var all []T
	err = q.Query(query, args, func(r engine.Row) error {
		v, err := scan(r)
		if err != nil {
			return err
		}
		all = append(all, v)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return all, nil
}

// one is list for at most one row. tx.ErrNotFound, bare: there is none.
func one[T any](t tx.Tx, scan func(engine.Row) (T, error), query string, args ...any) (v T, err error) {
	all, err := list(t, scan, query, args...)
	switch {
	case err != nil:
		return v, err
	case len(all) == 0:
		return v, tx.ErrNotFound
	case len(all) > 1:
		return v, errors.New("more than one row where one was expected")
	}
	return all[0], nil
}

// inserted turns the count of an INSERT … ON CONFLICT DO NOTHING into tx.ErrExists.
func inserted(n int64, err error, what string, value any) error {
	switch {
	case err != nil:
		return fmt.Errorf("insert %s %v: %w", what, value, err)
	case n == 0:
		return fmt.Errorf("%s %v: %w", what, value, tx.ErrExists)
	}
	return nil
}

// statement is one that changes something.
type statement struct {
	query string
	args  []any
}

// execAll runs statements one after another, whatever they change.
func execAll(t tx.Tx, all ...statement) error {
	for _, s := range all {
		if _, err := exec(t, s.query, s.args...); err != nil {
			return err
		}
	}
	return nil
}

// number scans a single number.
func number(r engine.Row) (n int64, err error) {
	err = r.Scan(&n)
	return n, err
}
