package store

import (
	"fmt"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/server/internal/store/engine"
	"telford.dev/telford/server/internal/tx"
)

// PutTombstone implements registry.Storage.
func (s *Store) PutTombstone(t tx.Tx, stone catalog.Tombstone) error {
	_, err := exec(t, `INSERT INTO tombstones (namespace, id, service, reason, gone_at) VALUES ($1, $2, $3, $4, $5)
		ON CONFLICT (namespace, id) DO UPDATE SET service = excluded.service, reason = excluded.reason,
			gone_at = excluded.gone_at`,
		stone.Namespace, stone.ID, stone.Service, string(stone.Reason), engine.Micros(stone.At))
	if err != nil {
		return fmt.Errorf("put the tombstone of %s/%s: %w", stone.Namespace, stone.ID, err)
	}
	return nil
}

// Tombstones implements registry.Storage.
func (s *Store) Tombstones(t tx.Tx, since time.Time) ([]catalog.Tombstone, error) {
	all, err := list(t, func(r engine.Row) (catalog.Tombstone, error) {
		var stone catalog.Tombstone
		var reason string
		var at int64
		err := r.Scan(&stone.Namespace, &stone.ID, &stone.Service, &reason, &at)
		stone.Reason, stone.At = catalog.Reason(reason), engine.Time(at)
		return stone, err
	}, `SELECT namespace, id, service, reason, gone_at FROM tombstones WHERE gone_at >= $1
		ORDER BY gone_at, namespace, id`, engine.Micros(since))
	if err != nil {
		return nil, fmt.Errorf("list tombstones: %w", err)
	}
	return all, nil
}

// DeleteTombstonesBefore implements registry.Storage.
func (s *Store) DeleteTombstonesBefore(t tx.Tx, before time.Time) (int, error) {
	n, err := exec(t, `DELETE FROM tombstones WHERE gone_at < $1`, engine.Micros(before))
	if err != nil {
		return 0, fmt.Errorf("delete tombstones from before %s: %w", before.UTC().Format(time.RFC3339), err)
	}
	return int(n), nil
}
