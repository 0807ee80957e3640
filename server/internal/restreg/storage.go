package restreg

import (
	"time"

	"telford.dev/telford/server/internal/tx"
)

// Row is the durable half of a service.
type Row struct {
	Namespace string
	ID        string
	// Spec is what was said of the service, in JSON. Storage does not look into it.
	Spec  []byte
	KeyID string
	// Created is when it joined; tokens of one that had the id before do not fit it.
	Created time.Time
	// Deadline and LastSeen are as of the last write: heartbeats are not written.
	// LastSeen is zero before the first heartbeat.
	Deadline time.Time
	LastSeen time.Time
	Revision int64 // counts the writes of the row from 1
	Updated  time.Time
	Author   string
}

// Storage is what a Directory asks of the store. Every method runs inside the
// transaction it is given. Instants keep microseconds and come back in UTC.
type Storage interface {
	// PutRESTService inserts the row, or replaces all columns of the row with the same
	// namespace and id. It copies what it keeps of the row.
	PutRESTService(t tx.Tx, row *Row) error
	// DeleteRESTService removes the row. Removing one that is not there is no error.
	DeleteRESTService(t tx.Tx, namespace, id string) error
	// RESTServices returns every row, ordered by namespace and id as bytes compare. The
	// result belongs to the caller.
	RESTServices(t tx.Tx) ([]*Row, error)
}
