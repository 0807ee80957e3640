package feed

import "telford.dev/telford/server/internal/tx"

// Row is an event as it is kept.
type Row struct {
	Namespace string
	ID        ID
	// Seq counts the events of the namespace from 1 in the order of their commits, which
	// is not that of their ids where an event is dated back.
	Seq     int64
	Type    string
	Payload []byte
}

// Head is how far a namespace has come.
type Head struct {
	// Seq is that of the last event.
	Seq int64
	// Ticks is the time of the last id that was made for the namespace.
	Ticks int64
	// PrunedSeq and PrunedTicks are the highest of the events that were removed because of
	// their age; 0: none was.
	PrunedSeq, PrunedTicks int64
}

// Range says which events are read. No event is read whose payload would make all of
// them larger than MaxBytes, but the first, and one more without its payload: it says
// where the next range begins.
type Range struct {
	Namespace string
	// Types are those that are wanted; none: all.
	Types    []string
	Limit    int
	MaxBytes int
}

// Storage is what this domain keeps. Every method works inside the transaction it is
// given. What a method returns belongs to the caller; a method keeps nothing of what it
// is passed.
type Storage interface {
	// AdvanceFeed makes the Seq of a namespace one higher, and its Ticks the given ones
	// or, where they are not higher, one higher. It returns the head and keeps it from
	// being changed by others before t ends, so that Seq has the order of commits.
	AdvanceFeed(t tx.Tx, namespace string, ticks int64) (Head, error)
	// FeedHead returns the head of a namespace, the zero one where nothing was appended.
	FeedHead(t tx.Tx, namespace string) (Head, error)
	// InsertEvent adds an event. tx.ErrExists: the namespace has one with its id.
	InsertEvent(t tx.Tx, row *Row) error
	// Events returns those with from <= id < until, ordered by id.
	Events(t tx.Tx, r *Range, from, until ID) ([]*Row, error)
	// EventsAfter returns those with after < Seq <= until, ordered by Seq.
	EventsAfter(t tx.Tx, r *Range, after, until int64) ([]*Row, error)
	// EventSeq returns the Seq of an event. tx.ErrNotFound: there is none with this id.
	EventSeq(t tx.Tx, namespace string, id ID) (int64, error)
	// FirstSeq returns the lowest Seq of the events with from <= id. tx.ErrNotFound:
	// there is none.
	FirstSeq(t tx.Tx, namespace string, from ID) (int64, error)
	// FeedNamespaces returns the namespaces that have a head, ordered as bytes compare.
	FeedNamespaces(t tx.Tx) ([]string, error)
	// PruneEvents removes the first events of a namespace, by id, whose Ticks are below
	// before, at most as many as most, notes it in the head, and returns how many those were.
	PruneEvents(t tx.Tx, namespace string, before int64, most int) (int, error)
	// DeleteFeed removes all events of a namespace, and its head.
	DeleteFeed(t tx.Tx, namespace string) error
}
