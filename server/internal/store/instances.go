package store

import (
	"fmt"

	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/store/engine"
	"telford.dev/telford/server/internal/tx"
)

const instanceColumns = `namespace, id, service, key_id, door, declaration, draining, registered_at, updated_at, revision, author`

// PutInstance implements registry.Storage.
func (s *Store) PutInstance(t tx.Tx, row *registry.Row) error {
	_, err := exec(t, `INSERT INTO instances (`+instanceColumns+`)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
		ON CONFLICT (namespace, id) DO UPDATE SET service = excluded.service, key_id = excluded.key_id,
			door = excluded.door, declaration = excluded.declaration, draining = excluded.draining,
			registered_at = excluded.registered_at, updated_at = excluded.updated_at,
			revision = excluded.revision, author = excluded.author`,
		row.Namespace, row.ID, row.Service, row.KeyID, row.Door, bytesOf(row.Declaration), row.Draining,
		engine.Micros(row.Registered), engine.Micros(row.Updated), row.Revision, row.Author)
	if err != nil {
		return fmt.Errorf("put instance %s/%s: %w", row.Namespace, row.ID, err)
	}
	return nil
}

// DeleteInstance implements registry.Storage.
func (s *Store) DeleteInstance(t tx.Tx, namespace, id string) error {
	if _, err := exec(t, `DELETE FROM instances WHERE namespace = $1 AND id = $2`, namespace, id); err != nil {
		return fmt.Errorf("delete instance %s/%s: %w", namespace, id, err)
	}
	return nil
}

// Instances implements registry.Storage.
func (s *Store) Instances(t tx.Tx) ([]*registry.Row, error) {
	rows, err := list(t, func(r engine.Row) (*registry.Row, error) {
		var row registry.Row
		var registered, updated int64
		err := r.Scan(&row.Namespace, &row.ID, &row.Service, &row.KeyID, &row.Door, &row.Declaration,
			&row.Draining, &registered, &updated, &row.Revision, &row.Author)
		if err != nil {
			return nil, err
		}
		row.Registered, row.Updated = engine.Time(registered), engine.Time(updated)
		return &row, nil
	}, `SELECT `+instanceColumns+` FROM instances ORDER BY namespace, id`)
	if err != nil {
		return nil, fmt.Errorf("list instances: %w", err)
	}
	return rows, nil
}

// NextEpoch implements registry.Storage.
func (s *Store) NextEpoch(t tx.Tx) (uint64, error) {
	n, err := one(t, func(r engine.Row) (n int64, err error) {
		err = r.Scan(&n)
		return n, err
	}, `INSERT INTO counters (name, value) VALUES ('registry_epoch', 1)
		ON CONFLICT (name) DO UPDATE SET value = counters.value + 1 RETURNING value`)
	if err != nil {
		return 0, fmt.Errorf("take the next epoch: %w", err)
	}
	return uint64(n), nil
}
