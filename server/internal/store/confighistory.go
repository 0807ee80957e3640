package store

import (
	"fmt"

	"telford.dev/telford/server/internal/config"
	"telford.dev/telford/server/internal/store/engine"
	"telford.dev/telford/server/internal/tx"
)

const revisionColumns = configColumns + `, removed, restored, n, total`

// scanRevision reads a row of revisionColumns, and what follows them into more.
func scanRevision(r engine.Row, more ...any) (*config.Row, error) {
	var row config.Row
	v, err := scanConfig(r, append([]any{&row.Removed, &row.Restored, &row.N, &row.Total}, more...)...)
	if err != nil {
		return nil, err
	}
	row.Value = *v
	return &row, nil
}

func scanRevisionText(r engine.Row) (*config.Row, error) {
	var text []byte
	row, err := scanRevision(r, &text)
	if err == nil {
		row.Value.Value = string(text)
	}
	return row, err
}

// AddConfigRevision implements config.Storage.
func (s *Store) AddConfigRevision(t tx.Tx, r *config.Row) error {
	n, err := exec(t, `INSERT INTO config_history (`+revisionColumns+`, size, value)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12) ON CONFLICT (namespace, revision) DO NOTHING`,
		r.Namespace, r.ID, r.JSON, r.Revision, r.Author, engine.Micros(r.At), r.Removed, r.Restored, r.N, r.Total,
		int64(len(r.Value.Value)), []byte(r.Value.Value))
	return inserted(n, err, "configuration revision", r.Revision)
}

// ConfigRevision implements config.Storage.
func (s *Store) ConfigRevision(t tx.Tx, namespace, id string, revision int64) (*config.Row, error) {
	row, err := one(t, scanRevisionText, `SELECT `+revisionColumns+`, value FROM config_history
		WHERE namespace = $1 AND revision = $2 AND id = $3`, namespace, revision, id)
	if err != nil {
		return nil, fmt.Errorf("revision %d of the configuration value %s: %w", revision, id, err)
	}
	return row, nil
}

// LastConfigRevision implements config.Storage.
func (s *Store) LastConfigRevision(t tx.Tx, namespace, id string) (*config.Row, error) {
	row, err := one(t, scanRevisionText, `SELECT `+revisionColumns+`, value FROM config_history
		WHERE namespace = $1 AND id = $2 ORDER BY revision DESC LIMIT 1`, namespace, id)
	if err != nil {
		return nil, fmt.Errorf("last revision of the configuration value %s: %w", id, err)
	}
	return row, nil
}

// ConfigHistory implements config.Storage.
func (s *Store) ConfigHistory(t tx.Tx, r *config.Range, id string, before int64) ([]*config.Row, int64, error) {
	all, next, err := revisions(t, r, ` FROM config_history WHERE namespace = $1 AND id = $2 AND revision < $3 ORDER BY revision DESC LIMIT $4`,
		r.Namespace, id, before)
	if err != nil {
		return nil, 0, fmt.Errorf("history of the configuration value %s: %w", id, err)
	}
	return all, next, nil
}

// ConfigChanges implements config.Storage.
func (s *Store) ConfigChanges(t tx.Tx, r *config.Range, from, until string, after, last int64) ([]*config.Row, int64, error) {
	all, next, err := revisions(t, r, ` FROM config_history WHERE namespace = $1 AND id >= $2 AND id < $3 AND revision > $4 AND revision <= $5
		ORDER BY revision LIMIT $6`, r.Namespace, from, until, after, last)
	if err != nil {
		return nil, 0, fmt.Errorf("configuration changes of namespace %s behind revision %d: %w", r.Namespace, after, err)
	}
	return all, next, nil
}

// revisions reads rows without their texts, and then the texts of as many as have room.
// where ends with the number of rows.
func revisions(t tx.Tx, r *config.Range, where string, args ...any) (all []*config.Row, next int64, err error) {
	var sizes []int64
	all, err = list(t, func(row engine.Row) (*config.Row, error) {
		var size int64
		v, err := scanRevision(row, &size)
		sizes = append(sizes, size)
		return v, err
	}, `SELECT `+revisionColumns+`, size`+where, append(args, int64(r.Limit)+1)...)
	if err != nil || len(all) == 0 {
		return nil, 0, err
	}
	n := room(sizes, r.Limit, r.MaxBytes)
	if n < len(all) {
		next = all[n].Revision
	}
	texts, err := configTexts(t, `SELECT value`+where, append(args, int64(n))...)
	if err != nil {
		return nil, 0, err
	}
	all = all[:min(n, len(texts))]
	for i, row := range all {
		row.Value.Value = texts[i]
	}
	return all, next, nil
}

// trimBatch is how many revisions are looked at to find how far to trim.
const trimBatch = 100

// TrimConfigHistory implements config.Storage. It removes no more than trimBatch: history
// grows by one at a time.
func (s *Store) TrimConfigHistory(t tx.Tx, namespace, id string, n, total, last int64) (int64, error) {
	if n <= 0 && total <= 0 {
		return 0, nil
	}
	var highest int64
	_, err := list(t, func(r engine.Row) (struct{}, error) {
		var revision, rowN, rowTotal int64
		err := r.Scan(&revision, &rowN, &rowTotal)
		if rowN <= n || rowTotal <= total {
			highest = max(highest, revision)
		}
		return struct{}{}, err
	}, `SELECT revision, n, total FROM config_history WHERE namespace = $1 AND id = $2 AND revision <= $3
		ORDER BY revision LIMIT $4`, namespace, id, last, int64(trimBatch))
	if err == nil && highest > 0 {
		_, err = exec(t, `DELETE FROM config_history WHERE namespace = $1 AND id = $2 AND revision <= $3`, namespace, id, highest)
	}
	if err != nil {
		return 0, fmt.Errorf("trim the history of the configuration value %s: %w", id, err)
	}
	return highest, nil
}
