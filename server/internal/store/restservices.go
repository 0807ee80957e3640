package store

import (
	"fmt"

	"telford.dev/telford/server/internal/restreg"
	"telford.dev/telford/server/internal/store/engine"
	"telford.dev/telford/server/internal/tx"
)

const restServiceColumns = `namespace, id, spec, key_id, created_at, deadline, last_seen, revision, updated_at, author`

// PutRESTService implements restreg.Storage.
func (s *Store) PutRESTService(t tx.Tx, row *restreg.Row) error {
	_, err := exec(t, `INSERT INTO rest_services (`+restServiceColumns+`)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)
		ON CONFLICT (namespace, id) DO UPDATE SET spec = excluded.spec, key_id = excluded.key_id,
			created_at = excluded.created_at, deadline = excluded.deadline, last_seen = excluded.last_seen,
			revision = excluded.revision, updated_at = excluded.updated_at, author = excluded.author`,
		row.Namespace, row.ID, bytesOf(row.Spec), row.KeyID, engine.Micros(row.Created), engine.Micros(row.Deadline),
		engine.Micros(row.LastSeen), row.Revision, engine.Micros(row.Updated), row.Author)
	if err != nil {
		return fmt.Errorf("put the REST service %s/%s: %w", row.Namespace, row.ID, err)
	}
	return nil
}

// DeleteRESTService implements restreg.Storage.
func (s *Store) DeleteRESTService(t tx.Tx, namespace, id string) error {
	if _, err := exec(t, `DELETE FROM rest_services WHERE namespace = $1 AND id = $2`, namespace, id); err != nil {
		return fmt.Errorf("delete the REST service %s/%s: %w", namespace, id, err)
	}
	return nil
}

// RESTServices implements restreg.Storage.
func (s *Store) RESTServices(t tx.Tx) ([]*restreg.Row, error) {
	rows, err := list(t, func(r engine.Row) (*restreg.Row, error) {
		var row restreg.Row
		var created, deadline, seen, updated int64
		err := r.Scan(&row.Namespace, &row.ID, &row.Spec, &row.KeyID, &created, &deadline, &seen, &row.Revision, &updated, &row.Author)
		row.Created, row.Deadline = engine.Time(created), engine.Time(deadline)
		row.LastSeen, row.Updated = engine.Time(seen), engine.Time(updated)
		return &row, err
	}, `SELECT `+restServiceColumns+` FROM rest_services ORDER BY namespace, id`)
	if err != nil {
		return nil, fmt.Errorf("list REST services: %w", err)
	}
	return rows, nil
}
