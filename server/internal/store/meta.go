package store

import (
	"fmt"

	"telford.dev/telford/server/internal/store/engine"
	"telford.dev/telford/server/internal/tx"
)

// Meta implements identity.Storage.
func (s *Store) Meta(t tx.Tx, name string) ([]byte, error) {
	value, err := one(t, func(r engine.Row) (v []byte, err error) {
		err = r.Scan(&v)
		return v, err
	}, `SELECT value FROM meta WHERE name = $1`, name)
	if err != nil {
		return nil, fmt.Errorf("value of %q: %w", name, err)
	}
	return value, nil
}

// InsertMeta implements identity.Storage.
func (s *Store) InsertMeta(t tx.Tx, name string, value []byte) error {
	n, err := exec(t, `INSERT INTO meta (name, value, revision, updated_at) VALUES ($1, $2, 1, $3)
		ON CONFLICT DO NOTHING`, name, bytesOf(value), engine.Micros(s.clock.Now()))
	return inserted(n, err, "value of", name)
}

// PutMeta implements identity.Storage.
func (s *Store) PutMeta(t tx.Tx, name string, value []byte) error {
	_, err := exec(t, `INSERT INTO meta (name, value, revision, updated_at) VALUES ($1, $2, 1, $3)
		ON CONFLICT (name) DO UPDATE SET value = excluded.value, revision = meta.revision + 1,
			updated_at = excluded.updated_at`, name, bytesOf(value), engine.Micros(s.clock.Now()))
	if err != nil {
		return fmt.Errorf("set the value of %q: %w", name, err)
	}
	return nil
}

// SwapMeta implements identity.Storage.
func (s *Store) SwapMeta(t tx.Tx, name string, old, value []byte) error {
	n, err := exec(t, `UPDATE meta SET value = $1, revision = revision + 1, updated_at = $2
		WHERE name = $3 AND value = $4`, bytesOf(value), engine.Micros(s.clock.Now()), name, bytesOf(old))
	switch {
	case err != nil:
		return fmt.Errorf("swap the value of %q: %w", name, err)
	case n == 0:
		return fmt.Errorf("swap the value of %q: %w", name, tx.ErrStale)
	}
	return nil
}

// DeleteMeta implements identity.Storage.
func (s *Store) DeleteMeta(t tx.Tx, name string) error {
	if _, err := exec(t, `DELETE FROM meta WHERE name = $1`, name); err != nil {
		return fmt.Errorf("delete the value of %q: %w", name, err)
	}
	return nil
}
