// Package engine owns what the database engines of the store have in common: the
// transaction with SQL in it that the storage methods are written against, the rules
// for values that go in and come out, and the plan of the migrations. It opens no
// database and starts no goroutines.
package engine

import (
	"context"

	"telford.dev/telford/server/internal/tx"
)

// Tx is a transaction with SQL in it. Statements number their parameters $1, $2, …
// in the order of their first appearance, so that both engines take the same text.
// The first error of the database fails the whole transaction: it is returned by
// every later statement and by DB.Write, whatever the function returns.
type Tx interface {
	tx.Tx
	// Exec runs one statement and returns the number of rows that it changed.
	Exec(query string, args ...any) (int64, error)
	// Query runs one query and calls each for every row. each runs no statement. Its
	// error ends the query and is returned unchanged; it does not fail the transaction.
	Query(query string, args []any, each func(Row) error) error
}

// Row is one row of a result, valid until the function that got it returns.
type Row interface {
	// Scan copies the columns in order into *int64, *string, *[]byte or *bool. Bytes
	// are a copy, and empty rather than nil.
	Scan(dest ...any) error
}

// Engine is one opened database.
type Engine interface {
	tx.DB
	// OnReopen registers a function that runs after an outcome was unknown and before
	// the next write begins, to load in-memory state again. While it returns an error
	// writes are refused. It reads with DB.Read and must not write.
	OnReopen(f func(context.Context) error) (cancel func())
	// Stats returns the counters since the engine was opened.
	Stats() Stats
	// Close refuses new work, waits for what runs, and closes the database. Closing
	// again does nothing.
	Close() error
}

// Stats are the counters of an engine since it was opened. What an engine does not
// have stays 0.
type Stats struct {
	Writes      int64 // transactions committed
	Failed      int64 // transactions rolled back
	Dropped     int64 // writes whose caller left before they began
	Batches     int64 // commits; one carries several transactions on SQLite
	Queued      int64 // writes waiting now
	Retries     int64 // transactions run again after a conflict or a lost connection
	Unknown     int64 // commits whose outcome is unknown
	Checkpoints int64 // passive checkpoints
	Restarts    int64 // checkpoints that the writer itself had to run because the log was too long
	LogBytes    int64 // length of the write-ahead log now
	SlowReads   int64 // read transactions that took longer than ReadLimit
}
