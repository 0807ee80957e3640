package registry

import (
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/server/internal/tx"
)

// Row is the durable half of an instance. Whether it is reachable, and when it was
// last heard of, is not stored.
type Row struct {
	Namespace string
	ID        string
	Service   string
	KeyID     string
	Door      string
	// Declaration is a catalog.Declaration in JSON. Storage does not look into it.
	Declaration []byte
	// Draining is the operator's word. It outlives a new registration of the instance.
	Draining bool
	// Registered is when the row was made, Updated when it was last written.
	Registered time.Time
	Updated    time.Time
	// Revision counts the writes of the row from 1.
	Revision int64
	// Author is who asked for the last write: an instance, or an operator.
	Author string
}

// Storage is what the registry asks of the store. Every method runs inside the
// transaction it is given. Instants keep microseconds and come back in UTC.
type Storage interface {
	// PutInstance inserts the row, or replaces all columns of the row with the same
	// namespace and id. It copies what it keeps of the row. Doing it twice is doing it
	// once.
	PutInstance(tx.Tx, *Row) error
	// DeleteInstance removes the row. Removing one that is not there is no error.
	DeleteInstance(t tx.Tx, namespace, id string) error
	// Instances returns every row of every namespace, ordered by namespace and id as
	// bytes compare. The result belongs to the caller.
	Instances(tx.Tx) ([]*Row, error)
	// PutTombstone inserts the tombstone, or replaces the one with the same namespace
	// and id.
	PutTombstone(tx.Tx, catalog.Tombstone) error
	// Tombstones returns those of all namespaces with At at or after since, ordered by
	// At, then namespace and id. The result belongs to the caller.
	Tombstones(t tx.Tx, since time.Time) ([]catalog.Tombstone, error)
	// DeleteTombstonesBefore removes those with At before t and returns how many.
	DeleteTombstonesBefore(t tx.Tx, before time.Time) (int, error)
	// NextEpoch adds one to a counter and returns it; the first is 1. Within a store no
	// two committed transactions see the same number.
	NextEpoch(tx.Tx) (uint64, error)
}
