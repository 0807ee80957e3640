package identity

import (
	"context"
	"strings"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
)

// Principal is who a credential belongs to.
type Principal struct {
	Namespace string
	Service   string // "" for an operator, a dev key, and an api key of nobody in particular
	KeyID     string // "" for an operator
	Kind      Kind   // "" for an operator
	Operator  bool   // has all rights, in every namespace
}

// Authenticate returns who a bearer credential belongs to: the text of a key, the pair
// "<key id>:<secret>", or the operator's token. Anything else, and a key that is
// unknown, expired or revoked, is Unauthenticated; the error never quotes the secret.
// It reads no store.
func (a *Authority) Authenticate(_ context.Context, bearer string) (Principal, error) {
	const operation = "authenticate"
	if id, ok := a.proved.key(bearer); ok {
		return a.principal(a.admit(a.keys.get(id)))
	}
	p, err := a.prove(bearer)
	if err != nil {
		return p, errs.From(err).In(component, operation)
	}
	if p.KeyID != "" {
		a.proved.add(bearer, p.KeyID)
	}
	return p, nil
}

// prove is Authenticate for a credential that was not seen before.
func (a *Authority) prove(bearer string) (Principal, error) {
	switch {
	case bearer == "":
		return Principal{}, errs.New(errs.Unauthenticated, "no credential; send a service key or the operator's token "+
			"as: Authorization: Bearer ...")
	case strings.HasPrefix(bearer, operatorPrefix):
		if !a.operator.matches(bearer) {
			return Principal{}, errs.New(errs.Unauthenticated, "the operator's token of this runtime is another; it is in %s",
				tokenFile)
		}
		return Principal{Operator: true}, nil
	case strings.HasPrefix(bearer, ident.KeyPrefix):
		k, err := ident.ParseKey(bearer)
		if err != nil {
			return Principal{}, errs.New(errs.Unauthenticated, "%s", errs.From(err).Message)
		}
		return a.principal(a.authenticate(k.ID, k.Secret[:]))
	}
	if id, secret, ok := strings.Cut(bearer, ":"); ok && strings.HasPrefix(id, ident.KeyIDPrefix+"_") {
		return a.AuthenticatePair(id, secret)
	}
	return Principal{}, errs.New(errs.Unauthenticated, "the credential is neither a service key (%s...) nor an operator's token (%s...)",
		ident.KeyPrefix, operatorPrefix)
}

// AuthenticatePair returns who a key id and its secret in base64url belong to. Errors
// are those of Authenticate.
func (a *Authority) AuthenticatePair(id, secret string) (Principal, error) {
	raw, err := ident.ParseSecret(secret)
	if err != nil {
		return Principal{}, errs.New(errs.Unauthenticated, "%s", errs.From(err).Message).In(component, "authenticate")
	}
	return a.principal(a.authenticate(id, raw[:]))
}

func (a *Authority) principal(k *Key, err error) (Principal, error) {
	if err != nil {
		return Principal{}, errs.From(err).In(component, "authenticate")
	}
	return Principal{Namespace: k.Namespace, Service: k.Service, KeyID: k.ID, Kind: k.Kind}, nil
}
