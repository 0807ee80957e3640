package restreg

import (
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/binary"
	"strings"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/identity"
)

// Keys knows the keys; *identity.Authority is one.
type Keys interface {
	AuthenticatePair(id, secret string) (identity.Principal, error)
	Admit(ctx context.Context, keyID string) (identity.Principal, error)
}

// TokenLife is how long a token is good.
const TokenLife = 24 * time.Hour

const (
	tokenPrefix = "tt_"
	macSize     = 16
	nonceSize   = 6
)

// Tokens turns keys into tokens and back. A token carries its own proof, so that nothing
// is kept of it: there may be any number of them, on every node, and what ends one before
// its time is the end of its key. It starts no goroutines.
type Tokens struct {
	keys   Keys
	secret [32]byte
	clock  clock.Clock
}

// NewTokens returns Tokens that are signed with secret.
func NewTokens(keys Keys, secret [32]byte, clk clock.Clock) *Tokens {
	if clk == nil {
		clk = clock.Real()
	}
	return &Tokens{keys: keys, secret: secret, clock: clk}
}

// Issue returns a token for whoever has a key, and until when it is good. Those issued
// before stay good. unauthenticated: the key is none.
func (t *Tokens) Issue(keyID, secret string) (text string, expires time.Time, p identity.Principal, err error) {
	p, err = t.keys.AuthenticatePair(keyID, secret)
	if err != nil {
		return "", time.Time{}, p, err
	}
	expires = t.clock.Now().UTC().Add(TokenLife).Truncate(time.Second)
	body := binary.BigEndian.AppendUint64(nil, uint64(expires.Unix()))
	body = append(body, make([]byte, nonceSize)...)
	_, _ = rand.Read(body[8:]) // never fails
	body = append(body, p.KeyID...)
	body = append(body, t.mac(body)...)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(body), expires, p, nil
}

func (t *Tokens) mac(body []byte) []byte {
	h := hmac.New(sha256.New, t.secret[:])
	h.Write([]byte("token"))
	h.Write(body)
	return h.Sum(nil)[:macSize]
}

// Check returns whose a token is and until when it is good. unauthenticated: it is none,
// it has run out, or its key does not count any more.
func (t *Tokens) Check(ctx context.Context, text string) (identity.Principal, time.Time, error) {
	bad := func(why string) (identity.Principal, time.Time, error) {
		return identity.Principal{}, time.Time{}, errs.New(errs.Unauthenticated, "the token %s; get one with a key: POST /v2.0/tokens", why).In(component, "check a token")
	}
	bare, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok || len(text) > 512 {
		return bad("is none of this cluster")
	}
	raw, err := base64.RawURLEncoding.Strict().DecodeString(bare)
	if err != nil || len(raw) <= 8+nonceSize+macSize {
		return bad("is none of this cluster")
	}
	body, mac := raw[:len(raw)-macSize], raw[len(raw)-macSize:]
	if subtle.ConstantTimeCompare(mac, t.mac(body)) != 1 {
		return bad("is none of this cluster")
	}
	expires := time.Unix(int64(binary.BigEndian.Uint64(body)), 0).UTC()
	if !t.clock.Now().Before(expires) {
		return bad("has expired")
	}
	p, err := t.keys.Admit(ctx, string(body[8+nonceSize:]))
	return p, expires, err
}
