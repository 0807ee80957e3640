package idempotency

import (
	"crypto/sha256"
	"fmt"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/tx"
)

// State is what became of the call of a key.
type State int64

// The states. They are stored and do not change.
const (
	// Running: claimed, and given to an instance or about to be.
	Running State = 0
	// Answered: the answer is kept.
	Answered State = 1
	// TooLarge: it was answered, and the answer was too large to be kept.
	TooLarge State = 2
	// Open: it may have run, and what became of it is unknown. The next call runs, unless
	// the method must not run again.
	Open State = 3
	// Released: nobody began it. The next call runs, whatever its body.
	Released State = 4
)

// String returns the name used by the API and the command line.
func (s State) String() string {
	switch s {
	case Running:
		return "running"
	case Answered:
		return "answered"
	case TooLarge:
		return "too_large"
	case Open:
		return "open"
	case Released:
		return "released"
	default:
		return fmt.Sprintf("state_%d", int64(s))
	}
}

// ID is a key in its scope: the namespace, the calling service, the called service and
// the full name of the method.
type ID struct {
	Namespace, Caller, Callee, Method string
	Key                               string
}

// String says the key and the scope in words.
func (i *ID) String() string {
	return fmt.Sprintf("idempotency key %q (scope: namespace %q, caller %q, callee %q, method %q)", i.Key, i.Namespace, i.Caller, i.Callee, i.Method)
}

// about adds the key and its scope to the facts of an error.
func (i *ID) about(e *errs.Error) *errs.Error {
	c := *e
	c.Component = "idempotency"
	c.Meta = map[string]string{
		"key": i.Key, "namespace": i.Namespace, "caller": i.Caller, "service": i.Callee, "method": i.Method,
	}
	return &c
}

// Record is what is kept of a key.
type Record struct {
	ID
	BusinessKey string
	RequestID   string
	Trace       string // hexadecimal, "" when there was none
	BodyHash    []byte // SHA-256 of content type and body
	State       State
	// Once: the method must not run again where it may have run.
	Once bool
	// Fence is another with every claim of the key, and grows.
	Fence int64
	// Owner is the process that made the claim.
	Owner string
	// Instance is the last one that was given the call.
	Instance string
	Attempt  int64
	Claimed  time.Time
	Deadline time.Time
	Answered time.Time // zero until then
	Expires  time.Time
	// Code is that of the answer, "" for a success; Size is its bytes, also when it was
	// not kept; Answer is what is kept of it.
	Code     string
	Size     int64
	Answer   []byte
	Revision int64
	Updated  time.Time
}

// Filter says which records are wanted. One of Key and BusinessKey is given.
type Filter struct {
	Namespace        string // "": all
	Key, BusinessKey string
}

// Storage keeps the records.
type Storage interface {
	// IdempotencyRecord returns the record of a key. tx.ErrNotFound: there is none.
	IdempotencyRecord(t tx.Tx, i *ID) (*Record, error)
	// InsertIdempotencyRecord adds a record, with revision 1. tx.ErrExists: there is one.
	InsertIdempotencyRecord(t tx.Tx, r *Record) error
	// UpdateIdempotencyRecord replaces all of a record but its ID, and increases the
	// revision. tx.ErrStale: the stored one has not the fence, or there is none.
	UpdateIdempotencyRecord(t tx.Tx, r *Record, fence int64) error
	// IdempotencyRecords returns at most 10,000 records without their answers, in the
	// order of namespace, caller, callee, method and key.
	IdempotencyRecords(t tx.Tx, f Filter) ([]*Record, error)
	// CountIdempotencyRecords returns how many records there are, and 1,000,000 where
	// there are more.
	CountIdempotencyRecords(t tx.Tx) (int, error)
	// DeleteIdempotencyRecords deletes at most so many of the records that expired at or
	// before the instant, those first that expired first, and returns how many.
	DeleteIdempotencyRecords(t tx.Tx, expired time.Time, most int) (int, error)
	// DeleteNamespaceIdempotencyRecords deletes the records of a namespace and returns how
	// many.
	DeleteNamespaceIdempotencyRecords(t tx.Tx, namespace string) (int, error)
	// PutIdempotencyOwner keeps until when a process is alive for sure.
	PutIdempotencyOwner(t tx.Tx, owner string, until time.Time) error
	// IdempotencyOwner returns it; the zero time when nothing is known.
	IdempotencyOwner(t tx.Tx, owner string) (time.Time, error)
	// DeleteIdempotencyOwner forgets a process; unknown ones are no error.
	DeleteIdempotencyOwner(t tx.Tx, owner string) error
	// DeleteIdempotencyOwners forgets those that are alive no longer than the instant.
	DeleteIdempotencyOwners(t tx.Tx, before time.Time) error
}

// hash returns the SHA-256 of what makes two calls the same: content type and body.
func hash(call *message.Call) [sha256.Size]byte {
	h := sha256.New()
	h.Write([]byte(call.ContentType.String()))
	h.Write([]byte{0})
	h.Write(call.Body)
	var sum [sha256.Size]byte
	h.Sum(sum[:0])
	return sum
}
