package identity

import (
	"bytes"
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"sync"

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

// MemoryVault keeps secrets for as long as it lives: for clusters that end with their
// process. The zero value is ready.
type MemoryVault struct {
	mu      sync.Mutex
	secrets map[string][]byte
}

// Load implements Vault.
func (v *MemoryVault) Load(_ context.Context, name string) ([]byte, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	secret, ok := v.secrets[name]
	if !ok {
		return nil, tx.ErrNotFound
	}
	return bytes.Clone(secret), nil
}

// Create implements Vault.
func (v *MemoryVault) Create(ctx context.Context, name string, secret []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	if _, ok := v.secrets[name]; ok {
		return tx.ErrExists
	}
	v.set(name, secret)
	return nil
}

// Replace implements Vault.
func (v *MemoryVault) Replace(_ context.Context, name string, secret []byte) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.set(name, secret)
	return nil
}

func (v *MemoryVault) set(name string, secret []byte) {
	if v.secrets == nil {
		v.secrets = make(map[string][]byte)
	}
	v.secrets[name] = bytes.Clone(secret)
}

// sealMagic begins everything that is wrapped: 16 bytes of salt, 12 of nonce and the
// AES-256-GCM text follow. The key is HKDF-SHA-256 of the cluster secret and the salt.
var sealMagic = []byte("telford sealed 1\n")

const (
	sealSalt  = 16
	sealNonce = 12
)

func seal(clusterSecret, name string, plain []byte) ([]byte, error) {
	out := make([]byte, len(sealMagic)+sealSalt+sealNonce)
	copy(out, sealMagic)
	random := out[len(sealMagic):]
	_, _ = rand.Read(random) // never fails
	aead, err := sealer(clusterSecret, random[:sealSalt])
	if err != nil {
		return nil, err
	}
	return aead.Seal(out, random[sealSalt:], plain, []byte(name)), nil //nolint:gosec // the nonce was drawn a few lines above
}

func unseal(clusterSecret, name, where string, sealed []byte) ([]byte, error) {
	rest, ok := bytes.CutPrefix(sealed, sealMagic)
	if !ok {
		return nil, errs.New(errs.FailedPrecondition, "%s is not wrapped, but a cluster secret is given: "+
			"it was stored without one; unset TELFORD_CLUSTER_SECRET", where)
	}
	if clusterSecret == "" {
		return nil, errs.New(errs.FailedPrecondition, "%s is wrapped: set TELFORD_CLUSTER_SECRET to the secret that it was wrapped with", where)
	}
	if len(rest) < sealSalt+sealNonce {
		return nil, errs.New(errs.FailedPrecondition, "%s is truncated; restore it from a backup", where)
	}
	aead, err := sealer(clusterSecret, rest[:sealSalt])
	if err != nil {
		return nil, err
	}
	plain, err := aead.Open(nil, rest[sealSalt:sealSalt+sealNonce], rest[sealSalt+sealNonce:], []byte(name))
	if err != nil {
		return nil, errs.New(errs.FailedPrecondition, "%s cannot be unwrapped: TELFORD_CLUSTER_SECRET is not the secret "+
			"that it was wrapped with, or it was tampered with", where)
	}
	return plain, nil
}

func sealer(clusterSecret string, salt []byte) (cipher.AEAD, error) {
	key, err := hkdf.Key(sha256.New, []byte(clusterSecret), salt, "telford vault", 32)
	if err != nil {
		return nil, errs.New(errs.Internal, "derive the wrapping key: %w", err)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, errs.New(errs.Internal, "wrap: %w", err)
	}
	aead, err := cipher.NewGCM(block)
	if err != nil {
		return nil, errs.New(errs.Internal, "wrap: %w", err)
	}
	return aead, nil
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
