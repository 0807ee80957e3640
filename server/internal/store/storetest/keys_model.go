package storetest

import (
	"cmp"
	"maps"
	"slices"
	"time"

	"pgregory.net/rapid"

	"telford.dev/telford/server/internal/idempotency"
	"telford.dev/telford/server/internal/tx"
)

// keyedModel is the part of the model that keeps idempotency keys.
type keyedModel struct {
	records map[idempotency.ID]idempotency.Record
	owners  map[string]time.Time
}

func newKeyedModel() keyedModel {
	return keyedModel{map[idempotency.ID]idempotency.Record{}, map[string]time.Time{}}
}

func (m *keyedModel) clone() keyedModel {
	return keyedModel{maps.Clone(m.records), maps.Clone(m.owners)}
}

func (m *keyedModel) IdempotencyRecord(_ tx.Tx, i *idempotency.ID) (*idempotency.Record, error) {
	r, ok := m.records[*i]
	if !ok {
		return nil, tx.ErrNotFound
	}
	return &r, nil
}

func (m *keyedModel) InsertIdempotencyRecord(_ tx.Tx, r *idempotency.Record) error {
	if _, ok := m.records[r.ID]; ok {
		return tx.ErrExists
	}
	c := *r
	c.Revision = 1
	m.records[r.ID] = c
	return nil
}

func (m *keyedModel) UpdateIdempotencyRecord(_ tx.Tx, r *idempotency.Record, fence int64) error {
	old, ok := m.records[r.ID]
	if !ok || old.Fence != fence {
		return tx.ErrStale
	}
	c := *r
	c.Revision = old.Revision + 1
	m.records[r.ID] = c
	return nil
}

func (m *keyedModel) IdempotencyRecords(_ tx.Tx, f idempotency.Filter) ([]*idempotency.Record, error) {
	var all []*idempotency.Record
	for _, r := range m.records {
		fits := f.BusinessKey == "" && r.Key == f.Key || f.BusinessKey != "" && r.BusinessKey == f.BusinessKey
		if fits && (f.Namespace == "" || f.Namespace == r.Namespace) {
			r.Answer = nil
			all = append(all, &r)
		}
	}
	slices.SortFunc(all, func(a, b *idempotency.Record) int { return compareIDs(&a.ID, &b.ID) })
	return all, nil
}

func compareIDs(a, b *idempotency.ID) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Caller, b.Caller), cmp.Compare(a.Callee, b.Callee),
		cmp.Compare(a.Method, b.Method), cmp.Compare(a.Key, b.Key))
}

func (m *keyedModel) CountIdempotencyRecords(tx.Tx) (int, error) { return len(m.records), nil }

func (m *keyedModel) DeleteIdempotencyRecords(_ tx.Tx, expired time.Time, most int) (int, error) {
	var old []idempotency.Record
	for _, r := range m.records {
		if !r.Expires.After(expired) {
			old = append(old, r)
		}
	}
	slices.SortFunc(old, func(a, b idempotency.Record) int {
		return cmp.Or(a.Expires.Compare(b.Expires), compareIDs(&a.ID, &b.ID))
	})
	old = old[:min(len(old), most)]
	for i := range old {
		delete(m.records, old[i].ID)
	}
	return len(old), nil
}

func (m *keyedModel) DeleteNamespaceIdempotencyRecords(_ tx.Tx, namespace string) (int, error) {
	n := len(m.records)
	maps.DeleteFunc(m.records, func(i idempotency.ID, _ idempotency.Record) bool { return i.Namespace == namespace })
	return n - len(m.records), nil
}

func (m *keyedModel) PutIdempotencyOwner(_ tx.Tx, owner string, until time.Time) error {
	m.owners[owner] = until
	return nil
}

func (m *keyedModel) IdempotencyOwner(_ tx.Tx, owner string) (time.Time, error) {
	return m.owners[owner], nil
}

func (m *keyedModel) DeleteIdempotencyOwner(_ tx.Tx, owner string) error {
	delete(m.owners, owner)
	return nil
}

func (m *keyedModel) DeleteIdempotencyOwners(_ tx.Tx, before time.Time) error {
	maps.DeleteFunc(m.owners, func(_ string, until time.Time) bool { return !until.After(before) })
	return nil
}

// keyedOperations are the operations on idempotency keys, with one draw of values.
func keyedOperations(t *rapid.T) []operation {
	text, key, data := someText.Draw(t, "text"), someText.Draw(t, "key"), append([]byte{}, someBytes.Draw(t, "bytes")...)
	at, at2 := someTime.Draw(t, "at"), someTime.Draw(t, "at2")
	fence, stored := rapid.Int64Range(1, 3).Draw(t, "fence"), rapid.Int64Range(1, 3).Draw(t, "stored")
	id := idempotency.ID{Namespace: somewhere.Draw(t, "namespace"), Caller: someText.Draw(t, "caller"), Callee: "payments", Method: "pay", Key: key}
	r := idempotency.Record{
		ID: id, BusinessKey: text, RequestID: text, Trace: text, BodyHash: data, State: idempotency.State(fence), Once: fence == 1,
		Fence: fence, Owner: text, Instance: text, Attempt: fence, Claimed: at, Deadline: at2, Answered: at, Expires: at2,
		Code: text, Size: stored, Answer: data, Revision: 9, Updated: at,
	}
	nothing := func(err error) (any, error) { return nil, err }
	return []operation{
		{"IdempotencyRecord", func(s Store, t tx.Tx) (any, error) { return pointer(s.IdempotencyRecord(t, &id)) }},
		{"InsertIdempotencyRecord", func(s Store, t tx.Tx) (any, error) { return nothing(s.InsertIdempotencyRecord(t, &r)) }},
		{"UpdateIdempotencyRecord", func(s Store, t tx.Tx) (any, error) { return nothing(s.UpdateIdempotencyRecord(t, &r, stored)) }},
		{"IdempotencyRecords", func(s Store, t tx.Tx) (any, error) {
			return s.IdempotencyRecords(t, idempotency.Filter{Namespace: id.Namespace, Key: key})
		}},
		{"IdempotencyRecords of a business key", func(s Store, t tx.Tx) (any, error) {
			return s.IdempotencyRecords(t, idempotency.Filter{BusinessKey: text})
		}},
		{"CountIdempotencyRecords", func(s Store, t tx.Tx) (any, error) { return s.CountIdempotencyRecords(t) }},
		{"DeleteIdempotencyRecords", func(s Store, t tx.Tx) (any, error) { return s.DeleteIdempotencyRecords(t, at, int(fence)) }},
		{"DeleteNamespaceIdempotencyRecords", func(s Store, t tx.Tx) (any, error) {
			return s.DeleteNamespaceIdempotencyRecords(t, id.Namespace)
		}},
		{"PutIdempotencyOwner", func(s Store, t tx.Tx) (any, error) { return nothing(s.PutIdempotencyOwner(t, text, at)) }},
		{"IdempotencyOwner", func(s Store, t tx.Tx) (any, error) { return s.IdempotencyOwner(t, text) }},
		{"DeleteIdempotencyOwner", func(s Store, t tx.Tx) (any, error) { return nothing(s.DeleteIdempotencyOwner(t, text)) }},
		{"DeleteIdempotencyOwners", func(s Store, t tx.Tx) (any, error) { return nothing(s.DeleteIdempotencyOwners(t, at)) }},
	}
}
