package store

import (
	"errors"
	"fmt"
	"time"

	"telford.dev/telford/server/internal/idempotency"
	"telford.dev/telford/server/internal/store/engine"
	"telford.dev/telford/server/internal/tx"
)

const (
	idempotencyID      = `namespace, caller, callee, method, key`
	idempotencyColumns = idempotencyID + `, business_key, request_id, trace, body_hash, state, once, fence, instance, attempt,
		claimed_at, deadline, answered_at, expires_at, code, answer_bytes, revision, updated_at, author`
)

// The most records that one list returns, and that one count counts.
const (
	maxIdempotencyList  = 10_000
	maxIdempotencyCount = 1_000_000
)

// IdempotencyRecord implements idempotency.Storage.
func (s *Store) IdempotencyRecord(t tx.Tx, i *idempotency.ID) (*idempotency.Record, error) {
	r, err := one(t, func(row engine.Row) (*idempotency.Record, error) {
		var answer []byte
		r, err := scanIdempotency(row, &answer)
		if r != nil {
			r.Answer = answer
		}
		return r, err
	}, `SELECT `+idempotencyColumns+`, answer FROM idempotency
		WHERE namespace = $1 AND caller = $2 AND callee = $3 AND method = $4 AND key = $5`,
		i.Namespace, i.Caller, i.Callee, i.Method, i.Key)
	if err != nil {
		return nil, fmt.Errorf("record of the %s: %w", i, err)
	}
	return r, nil
}

// InsertIdempotencyRecord implements idempotency.Storage.
func (s *Store) InsertIdempotencyRecord(t tx.Tx, r *idempotency.Record) error {
	n, err := exec(t, `INSERT INTO idempotency (`+idempotencyColumns+`, answer)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20, 1, $21, $22, $23)
		ON CONFLICT DO NOTHING`,
		r.Namespace, r.Caller, r.Callee, r.Method, r.Key, r.BusinessKey, r.RequestID, r.Trace, bytesOf(r.BodyHash),
		int64(r.State), r.Once, r.Fence, r.Instance, r.Attempt, engine.Micros(r.Claimed), engine.Micros(r.Deadline),
		engine.Micros(r.Answered), engine.Micros(r.Expires), r.Code, r.Size, engine.Micros(r.Updated), r.Owner, bytesOf(r.Answer))
	return inserted(n, err, "record of the", &r.ID)
}

// UpdateIdempotencyRecord implements idempotency.Storage.
func (s *Store) UpdateIdempotencyRecord(t tx.Tx, r *idempotency.Record, fence int64) error {
	n, err := exec(t, `UPDATE idempotency SET business_key = $1, request_id = $2, trace = $3, body_hash = $4, state = $5,
			once = $6, fence = $7, instance = $8, attempt = $9, claimed_at = $10, deadline = $11, answered_at = $12,
			expires_at = $13, code = $14, answer_bytes = $15, updated_at = $16, author = $17, answer = $18, revision = revision + 1
		WHERE namespace = $19 AND caller = $20 AND callee = $21 AND method = $22 AND key = $23 AND fence = $24`,
		r.BusinessKey, r.RequestID, r.Trace, bytesOf(r.BodyHash), int64(r.State),
		r.Once, r.Fence, r.Instance, r.Attempt, engine.Micros(r.Claimed), engine.Micros(r.Deadline), engine.Micros(r.Answered),
		engine.Micros(r.Expires), r.Code, r.Size, engine.Micros(r.Updated), r.Owner, bytesOf(r.Answer),
		r.Namespace, r.Caller, r.Callee, r.Method, r.Key, fence)
	switch {
	case err != nil:
		return fmt.Errorf("update the record of the %s: %w", &r.ID, err)
	case n == 0:
		return fmt.Errorf("the record of the %s has not the fence %d: %w", &r.ID, fence, tx.ErrStale)
	}
	return nil
}

// IdempotencyRecords implements idempotency.Storage.
func (s *Store) IdempotencyRecords(t tx.Tx, f idempotency.Filter) ([]*idempotency.Record, error) {
	column, value := "key", f.Key
	if f.BusinessKey != "" {
		column, value = "business_key <> '' AND business_key", f.BusinessKey // the first part names the index
	}
	all, err := list(t, func(row engine.Row) (*idempotency.Record, error) { return scanIdempotency(row) },
		`SELECT `+idempotencyColumns+` FROM idempotency WHERE `+column+` = $1 AND ($2 = '' OR namespace = $2)
		ORDER BY `+idempotencyID+` LIMIT $3`, value, f.Namespace, int64(maxIdempotencyList))
	if err != nil {
		return nil, fmt.Errorf("list the records of key %q: %w", value, err)
	}
	return all, nil
}

// CountIdempotencyRecords implements idempotency.Storage.
func (s *Store) CountIdempotencyRecords(t tx.Tx) (int, error) {
	n, err := one(t, func(r engine.Row) (n int64, err error) {
		err = r.Scan(&n)
		return n, err
	}, `SELECT count(*) FROM (SELECT 1 FROM idempotency LIMIT $1) AS counted`, int64(maxIdempotencyCount))
	if err != nil {
		return 0, fmt.Errorf("count the idempotency keys: %w", err)
	}
	return int(n), nil
}

// DeleteIdempotencyRecords implements idempotency.Storage.
func (s *Store) DeleteIdempotencyRecords(t tx.Tx, expired time.Time, most int) (int, error) {
	n, err := exec(t, `DELETE FROM idempotency WHERE (`+idempotencyID+`) IN (
			SELECT `+idempotencyID+` FROM idempotency WHERE expires_at <= $1 ORDER BY expires_at, `+idempotencyID+` LIMIT $2)`,
		engine.Micros(expired), int64(most))
	if err != nil {
		return 0, fmt.Errorf("delete the idempotency keys that expired by %s: %w", expired.UTC().Format(time.RFC3339), err)
	}
	return int(n), nil
}

// DeleteNamespaceIdempotencyRecords implements idempotency.Storage.
func (s *Store) DeleteNamespaceIdempotencyRecords(t tx.Tx, namespace string) (int, error) {
	n, err := exec(t, `DELETE FROM idempotency WHERE namespace = $1`, namespace)
	if err != nil {
		return 0, fmt.Errorf("delete the idempotency keys of namespace %s: %w", namespace, err)
	}
	return int(n), nil
}

// PutIdempotencyOwner implements idempotency.Storage.
func (s *Store) PutIdempotencyOwner(t tx.Tx, owner string, until time.Time) error {
	_, err := exec(t, `INSERT INTO idempotency_owners (id, alive_until) VALUES ($1, $2)
		ON CONFLICT (id) DO UPDATE SET alive_until = excluded.alive_until`, owner, engine.Micros(until))
	if err != nil {
		return fmt.Errorf("put the lease of process %s: %w", owner, err)
	}
	return nil
}

// IdempotencyOwner implements idempotency.Storage.
func (s *Store) IdempotencyOwner(t tx.Tx, owner string) (time.Time, error) {
	until, err := one(t, func(r engine.Row) (n int64, err error) {
		err = r.Scan(&n)
		return n, err
	}, `SELECT alive_until FROM idempotency_owners WHERE id = $1`, owner)
	if err != nil && !errors.Is(err, tx.ErrNotFound) {
		return time.Time{}, fmt.Errorf("lease of process %s: %w", owner, err)
	}
	return engine.Time(until), nil
}

// DeleteIdempotencyOwner implements idempotency.Storage.
func (s *Store) DeleteIdempotencyOwner(t tx.Tx, owner string) error {
	if _, err := exec(t, `DELETE FROM idempotency_owners WHERE id = $1`, owner); err != nil {
		return fmt.Errorf("delete the lease of process %s: %w", owner, err)
	}
	return nil
}

// DeleteIdempotencyOwners implements idempotency.Storage.
func (s *Store) DeleteIdempotencyOwners(t tx.Tx, before time.Time) error {
	if _, err := exec(t, `DELETE FROM idempotency_owners WHERE alive_until <= $1`, engine.Micros(before)); err != nil {
		return fmt.Errorf("delete the leases of processes that have ended: %w", err)
	}
	return nil
}

// scanIdempotency reads a row of idempotencyColumns, and what follows them into more.
func scanIdempotency(row engine.Row, more ...any) (*idempotency.Record, error) {
	var r idempotency.Record
	var state, claimed, deadline, answered, expires, updated int64
	into := []any{
		&r.Namespace, &r.Caller, &r.Callee, &r.Method, &r.Key, &r.BusinessKey, &r.RequestID, &r.Trace, &r.BodyHash, &state, &r.Once,
		&r.Fence, &r.Instance, &r.Attempt, &claimed, &deadline, &answered, &expires, &r.Code, &r.Size, &r.Revision, &updated, &r.Owner,
	}
	if err := row.Scan(append(into, more...)...); err != nil {
		return nil, fmt.Errorf("read an idempotency key: %w", err)
	}
	r.State = idempotency.State(state)
	r.Claimed, r.Deadline, r.Answered = engine.Time(claimed), engine.Time(deadline), engine.Time(answered)
	r.Expires, r.Updated = engine.Time(expires), engine.Time(updated)
	return &r, nil
}
