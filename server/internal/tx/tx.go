// Package tx owns the shape of a transaction that crosses domains: what a domain
// sees of the store while it writes, and the errors that storage answers with. Only
// the store implements it; every storage method takes a Tx first. It starts no
// goroutines.
package tx

import (
	"context"
	"errors"
)

// Tx is one open transaction. It is valid only inside the function it was given to
// and by that function's goroutine.
type Tx interface {
	// AfterCommit queues f to run once the transaction is durable, before the writer
	// is answered. The functions of all transactions run one after another in commit
	// order; in-memory state (indexes, watches, caches) changes only here. f must not
	// block or open a transaction. It does not run when the transaction fails.
	AfterCommit(f func())
}

// DB runs functions in transactions.
type DB interface {
	// Write runs f in a read-write transaction and returns once it is durable. f may
	// run twice and does storage calls only. An error of f rolls back what f did and
	// is returned unchanged. ErrOutcomeUnknown: the commit failed in a way that
	// leaves open whether it took effect. ErrFull: there is no space left. ErrClosed:
	// the store is closing. ErrBusy: the queue of writes stayed full. ctx bounds the
	// waiting, not the commit: when it ends before f began, f never runs and Write
	// returns the error of ctx; once f began, Write returns its outcome.
	Write(ctx context.Context, f func(Tx) error) error
	// Read runs f in a read-only transaction on one snapshot. f must end within
	// 100 ms and must not wait for a client.
	Read(ctx context.Context, f func(Tx) error) error
}

// The errors of storage methods, matched with errors.Is. Storage wraps them with the
// value concerned.
var (
	ErrNotFound       = errors.New("not found")
	ErrExists         = errors.New("already exists")
	ErrStale          = errors.New("changed since it was read") // a conditional update found another revision
	ErrOutcomeUnknown = errors.New("outcome of the commit is unknown")
	ErrFull           = errors.New("no space left in the store")
	ErrReadOnly       = errors.New("the store is read-only")
	ErrClosed         = errors.New("the store is closed")
	ErrBusy           = errors.New("too many writes are waiting") // nothing was done; the caller may try again later
	ErrUnavailable    = errors.New("the store cannot be reached") // nothing was done
	ErrInvalid        = errors.New("value cannot be stored")      // text that is not UTF-8 or has a NUL in it
)
