package store

import (
	"fmt"

	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/store/engine"
	"telford.dev/telford/server/internal/tx"
)

const keyColumns = `namespace, id, service, kind, name, secret_mac, created_at, expires_at, revoked_at, revision, updated_at, author`

// InsertKey implements identity.Storage.
func (s *Store) InsertKey(t tx.Tx, k *identity.Key) error {
	n, err := exec(t, `INSERT INTO keys (`+keyColumns+`)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1, $10, $11) ON CONFLICT DO NOTHING`,
		k.Namespace, k.ID, k.Service, string(k.Kind), k.Name, bytesOf(k.SecretMAC),
		engine.Micros(k.Created), engine.Micros(k.Expires), engine.Micros(k.Revoked), engine.Micros(k.Updated), k.Author)
	return inserted(n, err, "key", k.ID)
}

// Key implements identity.Storage.
func (s *Store) Key(t tx.Tx, id string) (*identity.Key, error) {
	k, err := one(t, scanKey, `SELECT `+keyColumns+` FROM keys WHERE id = $1`, id)
	if err != nil {
		return nil, fmt.Errorf("key %s: %w", id, err)
	}
	return k, nil
}

// Keys implements identity.Storage.
func (s *Store) Keys(t tx.Tx, f identity.KeyFilter) ([]*identity.Key, error) {
	keys, err := list(t, scanKey, `SELECT `+keyColumns+` FROM keys
		WHERE ($1 = '' OR namespace = $1) AND ($2 = '' OR service = $2) ORDER BY id`, f.Namespace, f.Service)
	if err != nil {
		return nil, fmt.Errorf("list keys: %w", err)
	}
	return keys, nil
}

// UpdateKey implements identity.Storage.
func (s *Store) UpdateKey(t tx.Tx, k *identity.Key) error {
	n, err := exec(t, `UPDATE keys SET namespace = $1, service = $2, kind = $3, name = $4, secret_mac = $5,
		expires_at = $6, revoked_at = $7, updated_at = $8, author = $9, revision = revision + 1
		WHERE id = $10 AND revision = $11`,
		k.Namespace, k.Service, string(k.Kind), k.Name, bytesOf(k.SecretMAC),
		engine.Micros(k.Expires), engine.Micros(k.Revoked), engine.Micros(k.Updated), k.Author, k.ID, k.Revision)
	if err != nil {
		return fmt.Errorf("update key %s: %w", k.ID, err)
	}
	if n > 0 {
		return nil
	}
	stored, err := s.Key(t, k.ID)
	if err != nil {
		return err
	}
	return fmt.Errorf("key %s has revision %d, not %d: %w", k.ID, stored.Revision, k.Revision, tx.ErrStale)
}

func scanKey(r engine.Row) (*identity.Key, error) {
	var k identity.Key
	var kind string
	var created, expires, revoked, updated int64
	err := r.Scan(&k.Namespace, &k.ID, &k.Service, &kind, &k.Name, &k.SecretMAC,
		&created, &expires, &revoked, &k.Revision, &updated, &k.Author)
	if err != nil {
		return nil, fmt.Errorf("read a key: %w", err)
	}
	k.Kind = identity.Kind(kind)
	k.Created, k.Expires = engine.Time(created), engine.Time(expires)
	k.Revoked, k.Updated = engine.Time(revoked), engine.Time(updated)
	return &k, nil
}

// bytesOf makes nil an empty value: no column holds NULL.
func bytesOf(b []byte) []byte {
	if b == nil {
		return []byte{}
	}
	return b
}
