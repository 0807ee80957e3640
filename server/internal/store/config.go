package store

import (
	"errors"
	"fmt"
	"time"

	"telford.dev/telford/server/internal/config"
	"telford.dev/telford/server/internal/store/engine"
	"telford.dev/telford/server/internal/tx"
)

// ConfigHead implements config.Storage.
func (s *Store) ConfigHead(t tx.Tx, namespace string) (config.Head, error) {
	h, err := one(t, func(r engine.Row) (h config.Head, err error) {
		var at int64
		err = r.Scan(&h.Revision, &at, &h.Forgotten, &h.Count, &h.Bytes)
		h.At = engine.Time(at)
		return h, err
	}, `SELECT revision, updated_at, forgotten, count, bytes FROM config_heads WHERE namespace = $1`, namespace)
	if err != nil && !errors.Is(err, tx.ErrNotFound) {
		return h, fmt.Errorf("head of the configuration of namespace %s: %w", namespace, err)
	}
	return h, nil
}

// LockConfig implements config.Storage: the row stays locked until t ends.
func (s *Store) LockConfig(t tx.Tx, namespace string) (config.Head, error) {
	_, err := exec(t, `INSERT INTO config_heads (namespace, revision, updated_at, forgotten, count, bytes) VALUES ($1, 0, 0, 0, 0, 0)
		ON CONFLICT (namespace) DO UPDATE SET revision = config_heads.revision`, namespace)
	if err != nil {
		return config.Head{}, fmt.Errorf("lock the configuration of namespace %s: %w", namespace, err)
	}
	return s.ConfigHead(t, namespace)
}

// PutConfigHead implements config.Storage.
func (s *Store) PutConfigHead(t tx.Tx, namespace string, h config.Head) error {
	_, err := exec(t, `UPDATE config_heads SET revision = $1, updated_at = $2, forgotten = $3, count = $4, bytes = $5 WHERE namespace = $6`,
		h.Revision, engine.Micros(h.At), h.Forgotten, h.Count, h.Bytes, namespace)
	if err != nil {
		return fmt.Errorf("put the head of the configuration of namespace %s: %w", namespace, err)
	}
	return nil
}

const configColumns = `namespace, id, json, revision, author, updated_at`

// scanConfig reads a row of configColumns, and what follows them into more.
func scanConfig(r engine.Row, more ...any) (*config.Value, error) {
	var v config.Value
	var at int64
	if err := r.Scan(append([]any{&v.Namespace, &v.ID, &v.JSON, &v.Revision, &v.Author, &at}, more...)...); err != nil {
		return nil, err
	}
	v.At = engine.Time(at)
	return &v, nil
}

// ConfigValue implements config.Storage.
func (s *Store) ConfigValue(t tx.Tx, namespace, id string) (*config.Value, error) {
	v, err := one(t, func(r engine.Row) (*config.Value, error) {
		var text []byte
		v, err := scanConfig(r, &text)
		if err == nil {
			v.Value = string(text)
		}
		return v, err
	}, `SELECT `+configColumns+`, value FROM config_values WHERE namespace = $1 AND id = $2`, namespace, id)
	if err != nil {
		return nil, fmt.Errorf("configuration value %s of namespace %s: %w", id, namespace, err)
	}
	return v, nil
}

// ConfigValues implements config.Storage.
func (s *Store) ConfigValues(t tx.Tx, r *config.Range, from, until string) ([]*config.Value, string, error) {
	const where = ` FROM config_values WHERE namespace = $1 AND id >= $2 AND id < $3 ORDER BY id LIMIT $4`
	var sizes []int64
	all, err := list(t, func(row engine.Row) (*config.Value, error) {
		var size int64
		v, err := scanConfig(row, &size)
		sizes = append(sizes, size)
		return v, err
	}, `SELECT `+configColumns+`, size`+where, r.Namespace, from, until, int64(r.Limit)+1)
	next := ""
	if err == nil && len(all) > 0 {
		n := room(sizes, r.Limit, r.MaxBytes)
		if n < len(all) {
			next = all[n].ID
		}
		var texts []string
		texts, err = configTexts(t, `SELECT value`+where, r.Namespace, from, until, int64(n))
		all = all[:min(n, len(texts))]
		for i, v := range all {
			v.Value = texts[i]
		}
	}
	if err != nil {
		return nil, "", fmt.Errorf("list the configuration of namespace %s: %w", r.Namespace, err)
	}
	return all, next, nil
}

func configTexts(t tx.Tx, query string, args ...any) ([]string, error) {
	return list(t, func(r engine.Row) (string, error) {
		var b []byte
		err := r.Scan(&b)
		return string(b), err
	}, query, args...)
}

// PutConfigValue implements config.Storage.
func (s *Store) PutConfigValue(t tx.Tx, v *config.Value) error {
	_, err := exec(t, `INSERT INTO config_values (`+configColumns+`, size, value) VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (namespace, id) DO UPDATE SET json = excluded.json, revision = excluded.revision, author = excluded.author,
			updated_at = excluded.updated_at, size = excluded.size, value = excluded.value`,
		v.Namespace, v.ID, v.JSON, v.Revision, v.Author, engine.Micros(v.At), int64(len(v.Value)), []byte(v.Value))
	if err != nil {
		return fmt.Errorf("put the configuration value %s: %w", v.ID, err)
	}
	return nil
}

// DeleteConfigValue implements config.Storage.
func (s *Store) DeleteConfigValue(t tx.Tx, namespace, id string) error {
	n, err := exec(t, `DELETE FROM config_values WHERE namespace = $1 AND id = $2`, namespace, id)
	if err == nil && n == 0 {
		err = tx.ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("delete the configuration value %s: %w", id, err)
	}
	return nil
}

// ForgetConfig implements config.Storage.
func (s *Store) ForgetConfig(t tx.Tx, namespace string, before time.Time, most int) (n int, highest int64, err error) {
	old, err := list(t, number, `SELECT h.revision FROM config_history h WHERE h.namespace = $1 AND h.updated_at < $2
			AND NOT EXISTS (SELECT 1 FROM config_values v WHERE v.namespace = h.namespace AND v.id = h.id AND v.revision = h.revision)
		ORDER BY h.updated_at, h.revision LIMIT $3`, namespace, engine.Micros(before), int64(most))
	for i := 0; err == nil && i < len(old); i++ {
		highest = max(highest, old[i])
		_, err = exec(t, `DELETE FROM config_history WHERE namespace = $1 AND revision = $2`, namespace, old[i])
	}
	if err != nil {
		return 0, 0, fmt.Errorf("remove old configuration of namespace %s: %w", namespace, err)
	}
	return len(old), highest, nil
}

// ConfigNamespaces implements config.Storage.
func (s *Store) ConfigNamespaces(t tx.Tx) ([]string, error) {
	all, err := list(t, func(r engine.Row) (name string, err error) {
		err = r.Scan(&name)
		return name, err
	}, `SELECT namespace FROM config_heads ORDER BY namespace`)
	if err != nil {
		return nil, fmt.Errorf("list the namespaces with configuration: %w", err)
	}
	return all, nil
}

// DeleteConfig implements config.Storage.
func (s *Store) DeleteConfig(t tx.Tx, namespace string) error {
	err := execAll(t, statement{`DELETE FROM config_values WHERE namespace = $1`, []any{namespace}},
		statement{`DELETE FROM config_history WHERE namespace = $1`, []any{namespace}},
		statement{`DELETE FROM config_heads WHERE namespace = $1`, []any{namespace}})
	if err != nil {
		return fmt.Errorf("delete the configuration of namespace %s: %w", namespace, err)
	}
	return nil
}
