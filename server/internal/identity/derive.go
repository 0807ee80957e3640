package identity

import (
	"context"

	"telford.dev/telford/internal/errs"
)

// Derive returns a secret that is this cluster's for one purpose: the same on every node
// and after every start, and of no use for another purpose.
func (a *Authority) Derive(purpose string) [32]byte {
	return [32]byte(a.mac.sum([]byte("derived secret: " + purpose)))
}

// Admit returns who a key that was proven before belongs to, if it still counts. A key
// that is unknown, expired or revoked is Unauthenticated. It reads no store.
func (a *Authority) Admit(_ context.Context, keyID string) (Principal, error) {
	k := a.keys.get(keyID)
	if k == nil {
		return Principal{}, errs.New(errs.Unauthenticated, "key %q is not known to this cluster", clip(keyID)).In(component, "admit a key")
	}
	return a.principal(a.admit(k))
}
