package identity

import (
	"context"
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"errors"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
)

const (
	vaultSecret     = "cluster.secret"
	minClusterChars = 16
)

// macKey is what the secrets of keys are hashed under. It prints as nothing.
type macKey struct{ key *[32]byte }

func (k macKey) sum(secret []byte) []byte {
	h := hmac.New(sha256.New, k.key[:])
	h.Write(secret)
	return h.Sum(nil)
}

// matches reports, in a time that does not depend on the values, whether mac is that
// of secret.
func (k macKey) matches(mac, secret []byte) bool {
	return subtle.ConstantTimeCompare(k.sum(secret), mac) == 1
}

func checkClusterSecret(secret string) error {
	if secret != "" && len(secret) < minClusterChars {
		return errs.New(errs.InvalidArgument, "TELFORD_CLUSTER_SECRET has %d characters, want at least %d; "+
			"make one with: openssl rand -hex 32", len(secret), minClusterChars)
	}
	return nil
}

// openSecret derives the key under which secrets are hashed, from the operator's
// secret or from one that the vault keeps, and makes sure that it is the one that this
// cluster began with.
func openSecret(ctx context.Context, m meta, v Vault, given string) (macKey, error) {
	const operation = "open the cluster secret"
	check, err := m.get(ctx, metaSecretCheck)
	if err != nil && !errors.Is(err, tx.ErrNotFound) {
		return macKey{}, storageError(operation, err)
	}
	began := err == nil

	root := []byte(given)
	if given == "" {
		root, err = v.Load(ctx, vaultSecret)
		if errors.Is(err, tx.ErrNotFound) {
			if began {
				return macKey{}, errs.New(errs.FailedPrecondition, "this cluster has a secret, and it is not here: set TELFORD_CLUSTER_SECRET "+
					"as at the first start, or restore %s from a backup", vaultSecret).In(component, operation)
			}
			root, err = loadOrCreate(ctx, v, vaultSecret, func() ([]byte, error) {
				fresh := make([]byte, 32)
				_, err := rand.Read(fresh)
				return fresh, err
			})
		}
		if err != nil {
			return macKey{}, storageError(operation, err)
		}
	}
	derived, err := hkdf.Key(sha256.New, root, nil, "telford service keys", 32)
	if err != nil {
		return macKey{}, errs.New(errs.Internal, "%w", err).In(component, operation)
	}
	key := macKey{(*[32]byte)(derived)}
	mine := key.sum([]byte("telford cluster secret check"))
	if !began {
		if check, err = m.first(ctx, metaSecretCheck, mine); err != nil {
			return macKey{}, err
		}
	}
	if subtle.ConstantTimeCompare(check, mine) != 1 {
		why := vaultSecret + " is not the secret that this cluster began with; restore it from a backup, or set TELFORD_CLUSTER_SECRET if it was set then"
		if given != "" {
			why = "TELFORD_CLUSTER_SECRET is not the secret that this cluster began with; unset it if it was not set then"
		}
		return macKey{}, errs.New(errs.FailedPrecondition, "%s", why).In(component, operation)
	}
	return key, nil
}
