package identity

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
)

// keyring has every key in memory, so that checking a credential reads no store. It
// changes only in AfterCommit.
type keyring struct {
	mu   sync.RWMutex
	keys map[string]*Key // immutable values
}

func newKeyring() *keyring { return &keyring{keys: make(map[string]*Key)} }

func (r *keyring) get(id string) *Key {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.keys[id]
}

func (r *keyring) put(keys ...*Key) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, k := range keys {
		// A slower reader must not bring back an older state.
		if old := r.keys[k.ID]; old == nil || old.Revision <= k.Revision {
			r.keys[k.ID] = k
		}
	}
}

// ended returns the keys that expired in (after, now], and the moment of the next to
// do so, zero for none.
func (r *keyring) ended(after, now time.Time) (ids []string, next time.Time) {
	r.mu.RLock()
	defer r.mu.RUnlock()
	for _, k := range r.keys {
		switch {
		case k.Expires.IsZero() || !k.Revoked.IsZero():
		case k.Expires.After(now):
			if next.IsZero() || k.Expires.Before(next) {
				next = k.Expires
			}
		case k.Expires.After(after):
			ids = append(ids, k.ID)
		}
	}
	return ids, next
}

// ending returns the service keys that have an end and no successor, the soonest first.
func (r *keyring) ending() []*Key {
	r.mu.RLock()
	defer r.mu.RUnlock()
	var out []*Key
	for _, k := range r.keys {
		if k.Kind == KindService && !k.Expires.IsZero() && k.Revoked.IsZero() && !k.rotated() {
			out = append(out, k)
		}
	}
	slices.SortFunc(out, func(x, y *Key) int { return cmp.Or(x.Expires.Compare(y.Expires), cmp.Compare(x.ID, y.ID)) })
	return out
}

// usable returns an Unauthenticated error that says why the key no longer counts.
func (k *Key) usable(now time.Time) error {
	switch {
	case !k.Revoked.IsZero():
		return errs.New(errs.Unauthenticated, "key %s was revoked at %s; create a new one", k.ID, k.Revoked.Format(time.RFC3339))
	case !k.Expires.IsZero() && !now.Before(k.Expires):
		hint := "create a new one"
		if k.rotated() {
			hint = "it was rotated, use its successor"
		}
		return errs.New(errs.Unauthenticated, "key %s expired at %s; %s", k.ID, k.Expires.Format(time.RFC3339), hint)
	}
	return nil
}

// rotated reports whether a successor was made. Revoking and rotating are all that
// ever changes a key, so that one which is not revoked and has changed was rotated.
func (k *Key) rotated() bool { return k.Revoked.IsZero() && k.Revision > 1 }

// State returns "active", "expired" or "revoked" as of now.
func (k *Key) State(now time.Time) string {
	switch {
	case !k.Revoked.IsZero():
		return "revoked"
	case !k.Expires.IsZero() && !now.Before(k.Expires):
		return "expired"
	default:
		return "active"
	}
}

// authenticate returns the key of an id and its secret. The answer to an unknown id
// takes as long as, and reads the same as, that to a wrong secret.
func (a *Authority) authenticate(id string, secret []byte) (*Key, error) {
	k := a.keys.get(id)
	mac := make([]byte, 32)
	if k != nil {
		mac = k.SecretMAC
	}
	if !a.mac.matches(mac, secret) || k == nil {
		return nil, errs.New(errs.Unauthenticated, "key %q is not known to this cluster, or its secret is another", clip(id))
	}
	return a.admit(k)
}

// admit returns the key if it counts here and now.
func (a *Authority) admit(k *Key) (*Key, error) {
	if err := k.usable(a.clock.Now()); err != nil {
		return nil, err
	}
	if k.Kind == KindDev && !a.cfg.Dev {
		return nil, errs.New(errs.PermissionDenied, "key %s is a dev key, and this runtime is not in dev mode; "+
			"create one with: telford keys create --service NAME", k.ID)
	}
	return k, nil
}

// clip keeps a value from outside short enough to be quoted in an error.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}

// newKeyMaterial returns a fresh key that is pinned to the root in force.
func (a *Authority) newKeyMaterial(now time.Time) ident.Key {
	k := ident.Key{ID: a.ids.New(ident.KeyIDPrefix, now), RootSPKI: ident.SPKI(a.ca.current.Load().active().cert)}
	fillRandom(k.Secret[:])
	return k
}
