package store

import (
	"fmt"

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
