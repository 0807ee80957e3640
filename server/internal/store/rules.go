package store

import (
	"fmt"

	"telford.dev/telford/server/internal/rules"
	"telford.dev/telford/server/internal/store/engine"
	"telford.dev/telford/server/internal/tx"
)

const ruleColumns = `namespace, kind, id, target, spec, revision, updated_at, author`

// PutRule implements rules.Storage.
func (s *Store) PutRule(t tx.Tx, row *rules.Row) error {
	if row.Revision == 1 {
		n, err := exec(t, `INSERT INTO rules (`+ruleColumns+`) VALUES ($1, $2, $3, $4, $5, 1, $6, $7) ON CONFLICT DO NOTHING`,
			row.Namespace, row.Kind, row.ID, row.Target, bytesOf(row.Spec), engine.Micros(row.Updated), row.Author)
		return inserted(n, err, row.Kind+" rule", row.ID)
	}
	n, err := exec(t, `UPDATE rules SET spec = $1, revision = $2, updated_at = $3, author = $4
		WHERE namespace = $5 AND kind = $6 AND id = $7 AND revision = $8`,
		bytesOf(row.Spec), row.Revision, engine.Micros(row.Updated), row.Author,
		row.Namespace, row.Kind, row.ID, row.Revision-1)
	if err != nil {
		return fmt.Errorf("replace the %s rule %s: %w", row.Kind, row.ID, err)
	}
	if n > 0 {
		return nil
	}
	stored, err := one(t, func(r engine.Row) (n int64, err error) {
		err = r.Scan(&n)
		return n, err
	}, `SELECT revision FROM rules WHERE namespace = $1 AND kind = $2 AND id = $3`, row.Namespace, row.Kind, row.ID)
	if err != nil {
		return fmt.Errorf("the %s rule %s: %w", row.Kind, row.ID, err)
	}
	return fmt.Errorf("the %s rule %s has revision %d, not %d: %w", row.Kind, row.ID, stored, row.Revision-1, tx.ErrStale)
}

// DeleteRule implements rules.Storage.
func (s *Store) DeleteRule(t tx.Tx, namespace, kind, id string) error {
	n, err := exec(t, `DELETE FROM rules WHERE namespace = $1 AND kind = $2 AND id = $3`, namespace, kind, id)
	if err == nil && n == 0 {
		err = tx.ErrNotFound
	}
	if err != nil {
		return fmt.Errorf("delete the %s rule %s: %w", kind, id, err)
	}
	return nil
}

// DeleteRules implements rules.Storage.
func (s *Store) DeleteRules(t tx.Tx, namespace string) (int, error) {
	n, err := exec(t, `DELETE FROM rules WHERE namespace = $1`, namespace)
	if err != nil {
		return 0, fmt.Errorf("delete the rules of namespace %s: %w", namespace, err)
	}
	return int(n), nil
}

// Rules implements rules.Storage.
func (s *Store) Rules(t tx.Tx) ([]*rules.Row, error) {
	all, err := list(t, func(r engine.Row) (*rules.Row, error) {
		var row rules.Row
		var updated int64
		if err := r.Scan(&row.Namespace, &row.Kind, &row.ID, &row.Target, &row.Spec, &row.Revision, &updated, &row.Author); err != nil {
			return nil, err
		}
		row.Updated = engine.Time(updated)
		return &row, nil
	}, `SELECT `+ruleColumns+` FROM rules ORDER BY namespace, kind, id`)
	if err != nil {
		return nil, fmt.Errorf("list rules: %w", err)
	}
	return all, nil
}

// AddShadow implements rules.Storage.
func (s *Store) AddShadow(t tx.Tx, denials []rules.ShadowDenial) error {
	for i := range denials {
		d := &denials[i]
		_, err := exec(t, `INSERT INTO shadow_denials (namespace, service, action, caller, callee, target, count, first_at, last_at)
			VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
			ON CONFLICT (namespace, service, action, caller, callee, target) DO UPDATE SET
				count = shadow_denials.count + excluded.count,
				first_at = CASE WHEN excluded.first_at < shadow_denials.first_at THEN excluded.first_at ELSE shadow_denials.first_at END,
				last_at = CASE WHEN excluded.last_at > shadow_denials.last_at THEN excluded.last_at ELSE shadow_denials.last_at END`,
			d.Namespace, d.Service, d.Action, d.Caller, d.Callee, d.Target, d.Count, engine.Micros(d.First), engine.Micros(d.Last))
		if err != nil {
			return fmt.Errorf("count a shadow denial of %s of service %s: %w", d.Action, d.Service, err)
		}
	}
	return nil
}

// ShadowDenials implements rules.Storage.
func (s *Store) ShadowDenials(t tx.Tx, namespace string) ([]rules.ShadowDenial, error) {
	all, err := list(t, func(r engine.Row) (rules.ShadowDenial, error) {
		var d rules.ShadowDenial
		var first, last int64
		err := r.Scan(&d.Namespace, &d.Service, &d.Action, &d.Caller, &d.Callee, &d.Target, &d.Count, &first, &last)
		d.First, d.Last = engine.Time(first), engine.Time(last)
		return d, err
	}, `SELECT namespace, service, action, caller, callee, target, count, first_at, last_at FROM shadow_denials
		WHERE $1 = '' OR namespace = $1 ORDER BY namespace, service, action, caller, callee, target`, namespace)
	if err != nil {
		return nil, fmt.Errorf("list shadow denials: %w", err)
	}
	return all, nil
}

// ClearShadow implements rules.Storage.
func (s *Store) ClearShadow(t tx.Tx, namespace string) (int, error) {
	n, err := exec(t, `DELETE FROM shadow_denials WHERE namespace = $1`, namespace)
	if err != nil {
		return 0, fmt.Errorf("clear the shadow denials of namespace %s: %w", namespace, err)
	}
	return int(n), nil
}
