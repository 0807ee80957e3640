package identity

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/server/internal/tx"
)

const (
	operatorPrefix = "tla_"
	tokenFile      = "admin.token"
	devKeyFile     = "dev.key"
)

// operatorToken is the operator's credential. It prints as nothing.
type operatorToken struct {
	text *string
	sum  [sha256.Size]byte
}

func newOperatorToken(text string) operatorToken {
	return operatorToken{&text, sha256.Sum256([]byte(text))}
}

func (t operatorToken) matches(text string) bool {
	sum := sha256.Sum256([]byte(text))
	return subtle.ConstantTimeCompare(sum[:], t.sum[:]) == 1
}

// OperatorToken returns the token that has all rights: DATA/admin.token. It never
// belongs into a log.
func (a *Authority) OperatorToken() string { return *a.operator.text }

// DevKey returns the key that may be any service, nil outside dev mode.
func (a *Authority) DevKey() *ident.Key { return a.devKey }

// openFiles reads or makes the operator's token and, in dev mode, the dev key.
func (a *Authority) openFiles(ctx context.Context) error {
	token, err := a.openOperatorToken()
	if err != nil {
		return err
	}
	a.operator = newOperatorToken(token)
	if !a.cfg.Dev {
		return nil
	}
	return a.openDevKey(ctx)
}

func (a *Authority) openOperatorToken() (string, error) {
	var random [32]byte
	fillRandom(random[:])
	fresh := operatorPrefix + base64.RawURLEncoding.EncodeToString(random[:])
	if a.cfg.Data == "" {
		return fresh, nil
	}
	if err := os.MkdirAll(a.cfg.Data, 0o700); err != nil {
		return "", fileError("make the data directory", err)
	}
	path := filepath.Join(a.cfg.Data, tokenFile)
	data, err := readPrivate(path)
	if errors.Is(err, tx.ErrNotFound) {
		err = createPrivate(path, []byte(fresh+"\n"))
		if err == nil {
			return fresh, nil
		}
		if errors.Is(err, tx.ErrExists) {
			data, err = readPrivate(path)
		}
	}
	if err != nil {
		return "", err
	}
	token := strings.TrimSpace(string(data))
	if !strings.HasPrefix(token, operatorPrefix) || len(token) != len(fresh) {
		return "", errs.New(errs.FailedPrecondition, "%s holds no operator's token (%d characters that begin with %q); "+
			"remove it, and a new one is made", path, len(fresh), operatorPrefix).In(component, "read the operator's token")
	}
	return token, nil
}

// openDevKey takes the key in DATA/dev.key, or, where that is not a good key of this
// cluster, makes a new one.
func (a *Authority) openDevKey(ctx context.Context) error {
	path := filepath.Join(a.cfg.Data, devKeyFile)
	if a.cfg.Data != "" {
		data, err := readPrivate(path)
		if err != nil && !errors.Is(err, tx.ErrNotFound) {
			return err
		}
		if k, ok := a.goodDevKey(string(data)); err == nil && ok {
			a.devKey = &k
			return nil
		}
	}
	_, text, err := a.CreateKey(ctx, CreateKey{Kind: KindDev, Name: "dev", Author: "telford serve --dev"})
	if err != nil {
		return err
	}
	k, err := ident.ParseKey(text)
	if err != nil {
		return errs.New(errs.Internal, "%w", err).In(component, "make the dev key")
	}
	a.devKey = &k
	if a.cfg.Data == "" {
		return nil
	}
	return replacePrivate(path, []byte(text+"\n"))
}

func (a *Authority) goodDevKey(text string) (ident.Key, bool) {
	k, err := ident.ParseKey(text)
	if err != nil || !a.ca.current.Load().pinnable(k.RootSPKI) {
		return k, false
	}
	stored, err := a.authenticate(k.ID, k.Secret[:])
	return k, err == nil && stored.Kind == KindDev
}
