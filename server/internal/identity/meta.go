package identity

import (
	"context"
	"encoding/binary"
	"errors"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
)

// The names in the store's meta table.
const (
	metaHierarchy   = "identity.hierarchy"    // roots and the phase of their rotation, see hierarchy
	metaAlive       = "identity.alive"        // when a node last used this cluster, big-endian microseconds; only of a shared store
	metaSecretCheck = "identity.secret_check" // proves the cluster secret
	metaLeafLife    = "identity.leaf_life"    // the longest life any leaf was ever given, big-endian microseconds
	metaVault       = "identity.vault."       // + name: what a MetaVault keeps
)

// meta is the meta table as one-line operations.
type meta struct {
	db    tx.DB
	store Storage
}

func (a *Authority) meta() meta { return meta{a.db, a.store} }

// get returns tx.ErrNotFound when there is none.
func (m meta) get(ctx context.Context, name string) (value []byte, err error) {
	err = m.db.Read(ctx, func(t tx.Tx) (err error) {
		value, err = m.store.Meta(t, name)
		return err
	})
	return value, err
}

// insert returns tx.ErrExists when there is one.
func (m meta) insert(ctx context.Context, name string, value []byte) error {
	return m.db.Write(ctx, func(t tx.Tx) error { return m.store.InsertMeta(t, name, value) })
}

func (m meta) put(ctx context.Context, name string, value []byte) error {
	return m.db.Write(ctx, func(t tx.Tx) error { return m.store.PutMeta(t, name, value) })
}

// swap returns tx.ErrStale when the value is no longer old.
func (m meta) swap(ctx context.Context, name string, old, value []byte) error {
	return m.db.Write(ctx, func(t tx.Tx) error { return m.store.SwapMeta(t, name, old, value) })
}

func (m meta) remove(ctx context.Context, name string) error {
	return m.db.Write(ctx, func(t tx.Tx) error { return m.store.DeleteMeta(t, name) })
}

// first returns the value in force: the one that is stored, or, where there is none
// yet, value, stored now. It holds however many nodes start at once.
func (m meta) first(ctx context.Context, name string, value []byte) ([]byte, error) {
	for range 2 {
		switch old, err := m.get(ctx, name); {
		case err == nil:
			return old, nil
		case !errors.Is(err, tx.ErrNotFound):
			return nil, storageError("read "+name, err)
		}
		switch err := m.insert(ctx, name, value); {
		case err == nil:
			return value, nil
		case !errors.Is(err, tx.ErrExists):
			return nil, storageError("store "+name, err)
		}
	}
	return nil, errs.New(errs.Unavailable, "%s was there and then not: is something deleting rows?", name)
}

// largest keeps the largest number ever given under a name, and returns it.
func (m meta) largest(ctx context.Context, name string, n int64) (int64, error) {
	value := binary.BigEndian.AppendUint64(nil, uint64(n))
	old, err := m.first(ctx, name, value)
	if err != nil {
		return 0, err
	}
	kept, err := parseNumber(name, old)
	if err != nil {
		return 0, err
	}
	if kept >= n {
		return kept, nil
	}
	if err := m.put(ctx, name, value); err != nil {
		return 0, storageError("store "+name, err)
	}
	return n, nil
}

func parseNumber(name string, value []byte) (int64, error) {
	if len(value) != 8 {
		return 0, errs.New(errs.Internal, "%s has %d bytes in the store, want 8", name, len(value))
	}
	return int64(binary.BigEndian.Uint64(value)), nil
}

// parseLife reads metaLeafLife.
func parseLife(value []byte) (time.Duration, error) {
	n, err := parseNumber(metaLeafLife, value)
	return time.Duration(n) * time.Microsecond, err
}
