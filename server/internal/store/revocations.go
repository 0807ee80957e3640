package store

import (
	"fmt"
	"time"

	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/store/engine"
	"telford.dev/telford/server/internal/tx"
)

// InsertRevocation implements identity.Storage.
func (s *Store) InsertRevocation(t tx.Tx, r *identity.Revocation) error {
	_, err := exec(t, `INSERT INTO revocations (kind, id, revoked_at, not_after, reason, revision, updated_at, author)
		VALUES ($1, $2, $3, $4, $5, 1, $6, $7)
		ON CONFLICT (kind, id) DO UPDATE SET revoked_at = excluded.revoked_at, not_after = excluded.not_after,
			reason = excluded.reason, revision = revocations.revision + 1,
			updated_at = excluded.updated_at, author = excluded.author`,
		r.Kind, r.ID, engine.Micros(r.At), engine.Micros(r.NotAfter), r.Reason, engine.Micros(r.At), r.Author)
	if err != nil {
		return fmt.Errorf("insert the revocation of %s %s: %w", r.Kind, r.ID, err)
	}
	return nil
}

// Revocations implements identity.Storage.
func (s *Store) Revocations(t tx.Tx) ([]*identity.Revocation, error) {
	all, err := list(t, func(row engine.Row) (*identity.Revocation, error) {
		var r identity.Revocation
		var at, notAfter int64
		if err := row.Scan(&r.Kind, &r.ID, &at, &notAfter, &r.Author, &r.Reason); err != nil {
			return nil, err
		}
		r.At, r.NotAfter = engine.Time(at), engine.Time(notAfter)
		return &r, nil
	}, `SELECT kind, id, revoked_at, not_after, author, reason FROM revocations ORDER BY kind, id`)
	if err != nil {
		return nil, fmt.Errorf("list revocations: %w", err)
	}
	return all, nil
}

// DeleteRevocationsBefore implements identity.Storage.
func (s *Store) DeleteRevocationsBefore(t tx.Tx, before time.Time) error {
	if _, err := exec(t, `DELETE FROM revocations WHERE not_after < $1`, engine.Micros(before)); err != nil {
		return fmt.Errorf("delete revocations that ended before %s: %w", before.UTC().Format(time.RFC3339), err)
	}
	return nil
}
