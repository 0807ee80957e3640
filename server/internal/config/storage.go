package config

import (
	"time"

	"telford.dev/telford/server/internal/tx"
)

// Head is how far a namespace has come, and what it has.
type Head struct {
	// Revision is that of the last change.
	Revision int64
	// At is when that was.
	At time.Time
	// Forgotten is the highest revision that is not in the history any more; 0: none.
	Forgotten int64
	// Count and Bytes are those of the values that there are.
	Count, Bytes int64
}

// Row is a revision as it is kept.
type Row struct {
	Change
	// N counts the revisions of the id that history knows of, and Total their bytes; both
	// go on counting when the first are forgotten.
	N, Total int64
}

// Range bounds what is read: at most Limit, and none but the first that would make the
// texts together larger than MaxBytes.
type Range struct {
	Namespace string
	Limit     int
	MaxBytes  int
}

// Storage is what this domain keeps. Every method works inside the transaction it is
// given. What a method returns belongs to the caller; a method keeps nothing of what it
// is passed. Instants keep microseconds and come back in UTC.
type Storage interface {
	// ConfigHead returns the head of a namespace, the zero one where nothing was set.
	ConfigHead(t tx.Tx, namespace string) (Head, error)
	// LockConfig is ConfigHead, and keeps the head from being changed by others before t
	// ends, so that revisions have the order of commits. It makes the head if need be.
	LockConfig(t tx.Tx, namespace string) (Head, error)
	// PutConfigHead replaces the head of a namespace that t has locked.
	PutConfigHead(t tx.Tx, namespace string, h Head) error

	// ConfigValue returns a value. tx.ErrNotFound: there is none.
	ConfigValue(t tx.Tx, namespace, id string) (*Value, error)
	// ConfigValues returns the values with from <= ID < until, ordered by ID as bytes
	// compare, and the ID of the next one, empty where there is none.
	ConfigValues(t tx.Tx, r *Range, from, until string) (all []*Value, next string, err error)
	// PutConfigValue sets a value.
	PutConfigValue(t tx.Tx, v *Value) error
	// DeleteConfigValue removes a value. tx.ErrNotFound: there is none.
	DeleteConfigValue(t tx.Tx, namespace, id string) error

	// AddConfigRevision adds a revision. tx.ErrExists: the namespace has one with its
	// number.
	AddConfigRevision(t tx.Tx, row *Row) error
	// ConfigRevision returns one revision of an id. tx.ErrNotFound: there is none.
	ConfigRevision(t tx.Tx, namespace, id string, revision int64) (*Row, error)
	// LastConfigRevision returns the last revision of an id. tx.ErrNotFound: history has
	// none.
	LastConfigRevision(t tx.Tx, namespace, id string) (*Row, error)
	// ConfigHistory returns the revisions of an id below before, the newest first, and
	// the next one, 0 where there is none.
	ConfigHistory(t tx.Tx, r *Range, id string, before int64) (all []*Row, next int64, err error)
	// ConfigChanges returns the revisions of all ids with from <= ID < until above after
	// and up to last, the oldest first, and the next one, 0 where there is none.
	ConfigChanges(t tx.Tx, r *Range, from, until string, after, last int64) (all []*Row, next int64, err error)
	// TrimConfigHistory removes the first revisions of an id whose N is at most n or whose
	// Total is at most total, but none above last, and returns the highest that it
	// removed, 0 for none.
	TrimConfigHistory(t tx.Tx, namespace, id string, n, total, last int64) (int64, error)
	// ConfigNamespaces returns the namespaces that have a head, ordered as bytes compare.
	ConfigNamespaces(t tx.Tx) ([]string, error)
	// ForgetConfig removes revisions of a namespace that were made before a time and are
	// not those of values that there are, the oldest first and at most as many as most. It
	// returns how many those were, and the highest.
	ForgetConfig(t tx.Tx, namespace string, before time.Time, most int) (n int, highest int64, err error)

	// DeleteConfig removes all of a namespace.
	DeleteConfig(t tx.Tx, namespace string) error
}
