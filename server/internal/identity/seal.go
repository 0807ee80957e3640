package identity

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"

	"telford.dev/telford/internal/errs"
)

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
