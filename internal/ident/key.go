package ident

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/id"
)

// KeyPrefix begins the text of every service key.
const KeyPrefix = "tlf_"

// KeyIDPrefix begins the id of every key, before the underscore.
const KeyIDPrefix = "key"

const (
	keyBytes = 16 + 32 + 32
	keyChars = (keyBytes*8 + 5) / 6
)

// keyEncoding is strict, so that a key has exactly one spelling.
var keyEncoding = base64.RawURLEncoding.Strict()

// Key is a service key as its holder has it. Formatting it with fmt, logging it with
// slog and marshalling it give its id only; String and SecretText are the ways to the
// secret. Hold it by pointer in unexported fields: fmt prints those without asking.
type Key struct {
	ID     string // "key_" and 26 characters
	Secret [32]byte
	// RootSPKI is the SHA-256 of the SubjectPublicKeyInfo of the cluster's root at the
	// time the key was printed. It is how the first connection knows the runtime.
	RootSPKI [32]byte
}

// ParseKey reads the text of a service key; space around it is ignored. The error, of
// code InvalidArgument, says what is wrong with the text and never quotes it.
func ParseKey(text string) (Key, error) {
	bad := func(format string, args ...any) (Key, error) {
		return Key{}, errs.New(errs.InvalidArgument, "service key: "+format, args...)
	}
	text = strings.TrimSpace(text)
	if text == "" {
		return bad("empty; create one with: telford keys create --service NAME")
	}
	rest, ok := strings.CutPrefix(text, KeyPrefix)
	if !ok {
		return bad("does not begin with %q", KeyPrefix)
	}
	if i := strings.IndexAny(rest, "\r\n"); i >= 0 { // the decoder would pass over them
		return bad("not base64url at character %d: the text is broken into lines", len(KeyPrefix)+i+1)
	}
	raw, err := keyEncoding.DecodeString(rest)
	var corrupt base64.CorruptInputError
	switch {
	case err == nil && len(raw) == keyBytes:
	case len(rest) < keyChars:
		return bad("truncated: %d of %d characters", len(text), len(KeyPrefix)+keyChars)
	case len(rest) > keyChars:
		return bad("too long: %d characters instead of %d", len(text), len(KeyPrefix)+keyChars)
	case errors.As(err, &corrupt):
		return bad("not base64url at character %d", len(KeyPrefix)+min(int(corrupt), keyChars-1)+1)
	default:
		return bad("not base64url")
	}
	var k Key
	k.ID = id.FromBytes(KeyIDPrefix, [16]byte(raw[:16]))
	copy(k.Secret[:], raw[16:48])
	copy(k.RootSPKI[:], raw[48:])
	return k, nil
}

// String returns the text of the key, "tlf_...", with the secret in it: for printing
// it to its owner, never for a log. It is "" when ID is not the id of a key.
func (k Key) String() string {
	b, ok := id.Bytes(KeyIDPrefix, k.ID)
	if !ok {
		return ""
	}
	raw := make([]byte, 0, keyBytes)
	raw = append(raw, b[:]...)
	raw = append(raw, k.Secret[:]...)
	raw = append(raw, k.RootSPKI[:]...)
	return KeyPrefix + keyEncoding.EncodeToString(raw)
}

// SecretText returns the secret alone in base64url: with ID it is the pair that the
// REST and bus doors ask for.
func (k Key) SecretText() string { return keyEncoding.EncodeToString(k.Secret[:]) }

// Format implements fmt.Formatter: every verb gives the id.
func (k Key) Format(s fmt.State, verb rune) {
	if verb == 'q' {
		_, _ = io.WriteString(s, strconv.Quote(k.ID))
		return
	}
	_, _ = io.WriteString(s, k.ID)
}

// LogValue implements slog.LogValuer: the id.
func (k Key) LogValue() slog.Value { return slog.StringValue(k.ID) }

// MarshalText implements encoding.TextMarshaler: the id.
func (k Key) MarshalText() ([]byte, error) { return []byte(k.ID), nil }

// ParseSecret is the reverse of SecretText. The error never quotes the text.
func ParseSecret(text string) (secret [32]byte, err error) {
	raw, err := keyEncoding.DecodeString(text)
	if err != nil || len(raw) != len(secret) || strings.ContainsAny(text, "\r\n") { // the decoder passes over line ends
		return secret, errs.New(errs.InvalidArgument, "secret: want %d characters of base64url, got %d characters",
			keyEncoding.EncodedLen(len(secret)), len(text))
	}
	return [32]byte(raw), nil
}
