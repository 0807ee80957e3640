package rules

import (
	"time"

	"telford.dev/telford/server/internal/tx"
)

// The kinds of row.
const (
	kindPolicy     = "policy"
	kindCapability = "capability"
	kindLimit      = "limit"
	kindTransport  = "transport"
)

// Row is one rule as it is kept.
type Row struct {
	Namespace string
	Kind      string // "policy", "capability", "limit" or "transport"
	ID        string
	// Target says what the rule is about. Of one kind, a namespace has one rule for each.
	Target string
	// Spec is the rule in JSON. Storage does not look into it.
	Spec []byte
	// Revision counts the writes of the row from 1.
	Revision int64
	Updated  time.Time
	// Author is who asked for the last write.
	Author string
}

// ShadowDenial counts calls that were served, and would not have been if the rules that
// are only counted held.
type ShadowDenial struct {
	Namespace string
	// Service and Action say whose rules they were.
	Service, Action string
	Caller, Callee  string
	// Target is the method.
	Target      string
	Count       int64
	First, Last time.Time
}

// Storage is what this domain keeps. Every method works inside the transaction it is
// given. What a method returns belongs to the caller; a method keeps nothing of what it
// is passed. Instants keep microseconds and come back in UTC.
type Storage interface {
	// PutRule adds a row whose Revision is 1, and replaces Spec, Revision, Updated and
	// Author of the row with the same namespace, kind and id where it is n > 1 and the
	// stored one n-1. tx.ErrExists: the id or the target is taken. tx.ErrNotFound: there
	// is nothing to replace. tx.ErrStale: another revision is stored.
	PutRule(t tx.Tx, row *Row) error
	// DeleteRule removes a row. tx.ErrNotFound: there is none.
	DeleteRule(t tx.Tx, namespace, kind, id string) error
	// DeleteRules removes all rows of a namespace and returns how many there were.
	DeleteRules(t tx.Tx, namespace string) (int, error)
	// Rules returns all rows of all namespaces, ordered by namespace, kind and id as
	// bytes compare.
	Rules(t tx.Tx) ([]*Row, error)

	// AddShadow adds to what is counted, each Count to that of the denial with the same
	// names; First becomes the earlier, Last the later of both.
	AddShadow(t tx.Tx, denials []ShadowDenial) error
	// ShadowDenials returns what was counted, ordered by namespace, service, action,
	// caller, callee and target as bytes compare. An empty namespace means all.
	ShadowDenials(t tx.Tx, namespace string) ([]ShadowDenial, error)
	// ClearShadow forgets what was counted in a namespace and returns how many denials
	// those were.
	ClearShadow(t tx.Tx, namespace string) (int, error)
}
