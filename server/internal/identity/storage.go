package identity

import (
	"time"

	"telford.dev/telford/server/internal/tx"
)

// Storage is what this domain keeps. Every method works inside the transaction it is
// given. Structs and slices that a method returns belong to the caller; a method
// keeps nothing of what it is passed. Instants are kept to the microsecond and come
// back in UTC; the zero time is kept as "none".
type Storage interface {
	// InsertKey adds a key with Revision 1, whatever k.Revision says.
	// tx.ErrExists: the id is taken.
	InsertKey(t tx.Tx, k *Key) error
	// Key returns one key. tx.ErrNotFound: there is none with this id.
	Key(t tx.Tx, id string) (*Key, error)
	// Keys returns the keys that match, revoked and expired ones included, ordered by
	// id. None is no error.
	Keys(t tx.Tx, f KeyFilter) ([]*Key, error)
	// UpdateKey replaces every column but ID and Created of the row whose revision is
	// k.Revision, and makes its revision one higher. The caller's k is not changed.
	// tx.ErrNotFound: no such id. tx.ErrStale: another revision is stored.
	UpdateKey(t tx.Tx, k *Key) error

	// InsertRevocation adds a revocation. For a (kind, id) that has one it replaces
	// it, so that it is idempotent.
	InsertRevocation(t tx.Tx, r *Revocation) error
	// Revocations returns all revocations ordered by (kind, id).
	Revocations(t tx.Tx) ([]*Revocation, error)
	// DeleteRevocationsBefore removes those whose NotAfter is before the moment.
	// Removing none is no error.
	DeleteRevocationsBefore(t tx.Tx, before time.Time) error

	// InsertNamespace adds a namespace. tx.ErrExists: its name, or its account when
	// that is not 0, is taken.
	InsertNamespace(t tx.Tx, n *Namespace) error
	// Namespaces returns all namespaces ordered by name.
	Namespaces(t tx.Tx) ([]*Namespace, error)
	// SetAccount gives a namespace another account, 0 for none, in the name of author.
	// tx.ErrNotFound: there is no such namespace. tx.ErrExists: the account is another's.
	SetAccount(t tx.Tx, name string, account int64, updated time.Time, author string) error
	// HoldNamespace keeps a namespace from being deleted until t ends. tx.ErrNotFound:
	// there is none.
	HoldNamespace(t tx.Tx, name string) error
	// DeleteNamespace removes a namespace, waiting for those who hold it; what they have
	// stored is seen by t from then on. tx.ErrNotFound: there is none.
	DeleteNamespace(t tx.Tx, name string) error

	// Meta returns the value of a name. tx.ErrNotFound: it has none.
	Meta(t tx.Tx, name string) ([]byte, error)
	// InsertMeta gives a name its first value; of several transactions that do so at
	// once, on any node, exactly one succeeds. tx.ErrExists: it has one.
	InsertMeta(t tx.Tx, name string, value []byte) error
	// PutMeta sets the value of a name, whether it had one or not.
	PutMeta(t tx.Tx, name string, value []byte) error
	// SwapMeta replaces the value of a name if it is still old; of several transactions
	// that do so at once, on any node, exactly one succeeds. tx.ErrStale: it has another
	// value, or none.
	SwapMeta(t tx.Tx, name string, old, value []byte) error
	// DeleteMeta removes the value of a name. Removing none is no error.
	DeleteMeta(t tx.Tx, name string) error
}

// Kind says what a key is good for.
type Kind string

// The kinds of key.
const (
	KindService Kind = "service" // provisions certificates for one service; a bearer credential
	KindAPI     Kind = "api"     // an (id, secret) pair for the HTTP, REST and bus doors; never a certificate
	KindDev     Kind = "dev"     // may be any service; accepted only by a runtime in dev mode
)

// Key is one credential as it is stored: everything but the secret.
type Key struct {
	ID        string // "key_" and 26 characters
	Namespace string
	Service   string // "" for KindDev, and for a KindAPI key that is nobody in particular
	Kind      Kind
	Name      string // what people call it; may be empty
	// SecretMAC is the HMAC-SHA-256 of the secret under the cluster secret.
	SecretMAC []byte
	Created   time.Time
	Expires   time.Time // zero: never
	Revoked   time.Time // zero: not revoked
	Revision  int64
	Updated   time.Time
	Author    string
}

// KeyFilter narrows a list of keys; empty fields do not narrow.
type KeyFilter struct {
	Namespace string
	Service   string
}

// The kinds of revocation.
const (
	RevokedKey      = "key"
	RevokedInstance = "instance"
)

// Revocation takes back what a key or an instance was given before its certificates end.
type Revocation struct {
	Kind string // RevokedKey or RevokedInstance
	// ID is the id of the key, or "namespace/instance".
	ID string
	At time.Time
	// NotAfter is when the last certificate concerned has ended by itself, so that the
	// revocation need not be kept.
	NotAfter time.Time
	Author   string
	Reason   string
}

// Namespace is a tenant.
type Namespace struct {
	Name    string
	Account int64 // the numeric id at the REST door; 0: none
	Created time.Time
}
