package store

import (
	"errors"
	"fmt"
	"time"

	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/store/engine"
	"telford.dev/telford/server/internal/tx"
)

// InsertNamespace implements identity.Storage.
func (s *Store) InsertNamespace(t tx.Tx, n *identity.Namespace) error {
	created := engine.Micros(n.Created)
	rows, err := exec(t, `INSERT INTO namespaces (name, account, created_at, updated_at)
		VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`, n.Name, n.Account, created, created)
	what := n.Name
	if n.Account != 0 {
		what = fmt.Sprintf("%s with account %d", n.Name, n.Account)
	}
	return inserted(rows, err, "namespace", what)
}

// Namespaces implements identity.Storage.
func (s *Store) Namespaces(t tx.Tx) ([]*identity.Namespace, error) {
	all, err := list(t, func(r engine.Row) (*identity.Namespace, error) {
		var n identity.Namespace
		var created int64
		if err := r.Scan(&n.Name, &n.Account, &created); err != nil {
			return nil, err
		}
		n.Created = engine.Time(created)
		return &n, nil
	}, `SELECT name, account, created_at FROM namespaces ORDER BY name`)
	if err != nil {
		return nil, fmt.Errorf("list namespaces: %w", err)
	}
	return all, nil
}

// SetAccount implements identity.Storage.
func (s *Store) SetAccount(t tx.Tx, name string, account int64, updated time.Time, author string) error {
	n, err := exec(t, `UPDATE namespaces SET account = $1, updated_at = $2, author = $3, revision = revision + 1
		WHERE name = $4 AND NOT EXISTS (SELECT 1 FROM namespaces WHERE account = $5 AND account <> 0 AND name <> $6)`,
		account, engine.Micros(updated), author, name, account, name)
	switch {
	case errors.Is(err, tx.ErrExists):
	case err != nil:
		return fmt.Errorf("set the account of namespace %s: %w", name, err)
	case n > 0:
		return nil
	default:
		if err := s.HoldNamespace(t, name); err != nil {
			return err
		}
	}
	return fmt.Errorf("account %d: %w", account, tx.ErrExists)
}

// HoldNamespace implements identity.Storage: the row stays locked until t ends.
func (s *Store) HoldNamespace(t tx.Tx, name string) error {
	n, err := exec(t, `UPDATE namespaces SET revision = revision WHERE name = $1`, name)
	return found(n, err, "hold", name)
}

// DeleteNamespace implements identity.Storage.
func (s *Store) DeleteNamespace(t tx.Tx, name string) error {
	n, err := exec(t, `DELETE FROM namespaces WHERE name = $1`, name)
	return found(n, err, "delete", name)
}

func found(n int64, err error, what, name string) error {
	if err == nil && n == 0 {
		err = tx.ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("%s namespace %s: %w", what, name, err)
	}
	return nil
}
