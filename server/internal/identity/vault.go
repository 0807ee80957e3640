package identity

import (
	"context"
	"errors"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
)

// Vault keeps the few secrets of a cluster by name: [a-z0-9.] only.
type Vault interface {
	// Load returns a secret; tx.ErrNotFound: there is none of this name. An error of
	// code FailedPrecondition says why what is there cannot be used.
	Load(ctx context.Context, name string) ([]byte, error)
	// Create keeps a new secret for good before it returns; tx.ErrExists: there is one
	// of this name. Of several calls at once exactly one succeeds.
	Create(ctx context.Context, name string, secret []byte) error
	// Replace puts a secret in the place of another, or of none, all or nothing.
	Replace(ctx context.Context, name string, secret []byte) error
	// Delete removes a secret. Removing none is no error.
	Delete(ctx context.Context, name string) error
}

// MetaVault keeps secrets in the store's meta table, always wrapped.
type MetaVault struct {
	meta   meta
	secret hidden
}

// hidden is a secret that prints as nothing, whatever it is part of.
type hidden struct{ text *string }

func hide(s string) hidden { return hidden{&s} }

// NewMetaVault returns the vault for a store that several nodes share. The cluster
// secret is required.
func NewMetaVault(db tx.DB, storage Storage, clusterSecret string) (*MetaVault, error) {
	if clusterSecret == "" {
		return nil, errs.New(errs.FailedPrecondition, "TELFORD_CLUSTER_SECRET is required with PostgreSQL: it wraps the private keys "+
			"that the nodes share; make one with: openssl rand -hex 32").In(component, "open the vault")
	}
	if err := checkClusterSecret(clusterSecret); err != nil {
		return nil, err
	}
	return &MetaVault{meta{db, storage}, hide(clusterSecret)}, nil
}

// Load implements Vault.
func (v *MetaVault) Load(ctx context.Context, name string) ([]byte, error) {
	sealed, err := v.meta.get(ctx, metaVault+name)
	if err != nil {
		return nil, err
	}
	return unseal(*v.secret.text, name, "the database's "+name, sealed)
}

// Create implements Vault.
func (v *MetaVault) Create(ctx context.Context, name string, secret []byte) error {
	sealed, err := seal(*v.secret.text, name, secret)
	if err != nil {
		return err
	}
	return v.meta.insert(ctx, metaVault+name, sealed)
}

// Replace implements Vault.
func (v *MetaVault) Replace(ctx context.Context, name string, secret []byte) error {
	sealed, err := seal(*v.secret.text, name, secret)
	if err != nil {
		return err
	}
	return v.meta.put(ctx, metaVault+name, sealed)
}

// Delete implements Vault.
func (v *MetaVault) Delete(ctx context.Context, name string) error {
	return v.meta.remove(ctx, metaVault+name)
}

// loadOrCreate returns the secret of a name, made by fresh if there is none yet.
func loadOrCreate(ctx context.Context, v Vault, name string, fresh func() ([]byte, error)) ([]byte, error) {
	secret, err := v.Load(ctx, name)
	if err == nil || !errors.Is(err, tx.ErrNotFound) {
		return secret, err
	}
	secret, err = fresh()
	if err != nil {
		return nil, err
	}
	switch err := v.Create(ctx, name, secret); {
	case err == nil:
		return secret, nil
	case errors.Is(err, tx.ErrExists):
		return v.Load(ctx, name)
	default:
		return nil, err
	}
}
