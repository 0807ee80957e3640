package identity

import (
	"context"
	"crypto/rand"
	"errors"
	"strings"
	"time"
	"unicode"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/server/internal/tx"
)

// reservedService is the name of the services that the runtime itself has in every
// namespace, and of everything below it.
const reservedService = ident.RuntimeService

// CreateKey says what key to make.
type CreateKey struct {
	// Namespace is a name, or, for KindAPI, also the number of an account, whose
	// namespace is made when there is none; "": DefaultNamespace.
	Namespace string
	// Service is required for KindService and refused for KindDev.
	Service string
	Kind    Kind   // "": KindService
	Name    string // what people call it; required for KindAPI
	TTL     time.Duration
	Author  string
}

// CreateKey makes a key and returns it with its text, which nobody can show again.
// The error of a wrong request has code InvalidArgument, of an unknown namespace
// NotFound.
func (a *Authority) CreateKey(ctx context.Context, in CreateKey) (Key, string, error) {
	const operation = "create a key"
	if err := a.checkCreate(&in); err != nil {
		return Key{}, "", errs.From(err).In(component, operation)
	}
	namespace, err := a.keyNamespace(ctx, in)
	if err != nil {
		return Key{}, "", errs.From(err).In(component, operation)
	}
	now := a.now()
	material := a.newKeyMaterial(now)
	k := &Key{
		ID: material.ID, Namespace: namespace, Service: in.Service, Kind: in.Kind, Name: in.Name,
		SecretMAC: a.mac.sum(material.Secret[:]), Created: now, Revision: 1, Updated: now, Author: in.Author,
	}
	if in.TTL > 0 {
		k.Expires = now.Add(in.TTL).Truncate(time.Microsecond)
	}
	err = a.db.Write(ctx, func(t tx.Tx) error {
		if err := a.HoldTx(t, k.Namespace); err != nil {
			return err
		}
		if err := a.store.InsertKey(t, k); err != nil {
			return err
		}
		t.AfterCommit(func() { a.keysChanged(k) })
		return nil
	})
	if err != nil {
		return Key{}, "", storageError(operation, err)
	}
	a.log.Info("key created", "key", k.ID, "namespace", k.Namespace, "service", k.Service, "kind", k.Kind, "author", k.Author)
	return *k, material.String(), nil
}

func (a *Authority) checkCreate(in *CreateKey) error {
	if in.Kind == "" {
		in.Kind = KindService
	}
	if in.TTL < 0 {
		return errs.New(errs.InvalidArgument, "lifetime %s: want more than 0, or 0 for no end", in.TTL)
	}
	if err := checkText("key name", in.Name); err != nil {
		return err
	}
	switch in.Kind {
	case KindService:
		if in.Service == "" {
			return errs.New(errs.InvalidArgument, "a service key is for one service: name it with --service NAME")
		}
	case KindAPI:
		if in.Name == "" {
			return errs.New(errs.InvalidArgument, "an api key needs a name, by which people tell it from others")
		}
	case KindDev:
		if in.Service != "" {
			return errs.New(errs.InvalidArgument, "a dev key may be any service; %q cannot be given", in.Service)
		}
		if !a.cfg.Dev {
			return errs.New(errs.FailedPrecondition, "dev keys are made and accepted only by a runtime in dev mode")
		}
	default:
		return errs.New(errs.InvalidArgument, "kind %q: want service, api or dev", clip(string(in.Kind)))
	}
	if in.Service == "" {
		return nil
	}
	return checkOwnService(in.Service)
}

// checkOwnService refuses what cannot name a user's service.
func checkOwnService(name string) error {
	if err := ident.CheckService(name); err != nil {
		return err
	}
	if name == reservedService || strings.HasPrefix(name, reservedService+".") {
		return errs.New(errs.InvalidArgument, "service name %q is reserved for the runtime", name)
	}
	return nil
}

// checkText refuses labels that would break a table or a log line.
func checkText(what, s string) error {
	const most = 200
	if len(s) > most {
		return errs.New(errs.InvalidArgument, "%s of %d bytes: want at most %d", what, len(s), most)
	}
	for _, r := range s {
		if !unicode.IsPrint(r) {
			return errs.New(errs.InvalidArgument, "%s %q: want printable characters only", what, s)
		}
	}
	return nil
}

// Keys returns the keys that match, revoked and expired ones too, ordered by id.
func (a *Authority) Keys(ctx context.Context, f KeyFilter) ([]Key, error) {
	var rows []*Key
	err := a.db.Read(ctx, func(t tx.Tx) (err error) {
		rows, err = a.store.Keys(t, f)
		return err
	})
	if err != nil {
		return nil, storageError("list keys", err)
	}
	keys := make([]Key, len(rows))
	for i, row := range rows {
		keys[i] = *row
	}
	return keys, nil
}

// RevokeKey ends a key for good, and with it every certificate that was issued by it:
// subscribers of OnRevocation know before it returns. Revoking again changes nothing.
// An unknown key is NotFound.
func (a *Authority) RevokeKey(ctx context.Context, id, author, reason string) (Key, error) {
	const operation = "revoke a key"
	if err := checkText("reason", reason); err != nil {
		return Key{}, errs.From(err).In(component, operation)
	}
	now := a.now()
	k, err := a.updateKey(ctx, id, func(t tx.Tx, k *Key) (bool, error) {
		if !k.Revoked.IsZero() {
			return false, nil
		}
		k.Revoked, k.Updated, k.Author = now, now, author
		r := a.revs.make(RevokedKey, id, now, author, reason)
		if err := a.store.InsertRevocation(t, r); err != nil {
			return false, err
		}
		t.AfterCommit(func() { a.revoked(r) })
		return true, nil
	})
	if err != nil {
		return Key{}, keyError(operation, id, err)
	}
	a.log.Info("key revoked", "key", id, "service", k.Service, "author", author, "reason", reason)
	return *k, nil
}

// RotateKey makes a successor for a key: same namespace, service, kind, name and
// lifetime. The old key, and every certificate issued by it, ends when grace is over;
// 0 ends it at once. A key can be rotated once.
func (a *Authority) RotateKey(ctx context.Context, id string, grace time.Duration, author string) (Key, string, error) {
	const operation = "rotate a key"
	if grace < 0 {
		return Key{}, "", errs.New(errs.InvalidArgument, "grace %s: want 0 or more", grace).In(component, operation)
	}
	now := a.now()
	material := a.newKeyMaterial(now)
	var next *Key
	_, err := a.updateKey(ctx, id, func(t tx.Tx, k *Key) (bool, error) {
		if err := k.usable(now); err != nil {
			return false, errs.New(errs.FailedPrecondition, "%s", errs.From(err).Message)
		}
		if k.rotated() {
			return false, errs.New(errs.FailedPrecondition, "key %s was rotated already at %s; rotate its successor, see: telford keys list",
				id, k.Updated.Format(time.RFC3339))
		}
		next = &Key{
			ID: material.ID, Namespace: k.Namespace, Service: k.Service, Kind: k.Kind, Name: k.Name,
			SecretMAC: a.mac.sum(material.Secret[:]), Created: now, Revision: 1, Updated: now, Author: author,
		}
		if !k.Expires.IsZero() {
			next.Expires = now.Add(k.Expires.Sub(k.Created)).Truncate(time.Microsecond)
		}
		end := now.Add(grace).Truncate(time.Microsecond)
		if k.Expires.IsZero() || end.Before(k.Expires) {
			k.Expires = end
		}
		k.Updated, k.Author = now, author
		if err := a.store.InsertKey(t, next); err != nil {
			return false, err
		}
		added := next
		t.AfterCommit(func() { a.keysChanged(added) })
		return true, nil
	})
	if err != nil {
		return Key{}, "", keyError(operation, id, err)
	}
	a.log.Info("key rotated", "key", id, "successor", next.ID, "grace", grace, "author", author)
	return *next, material.String(), nil
}

// updateKey changes one key by f, which says whether anything is to be stored, and
// returns the key as it is then.
func (a *Authority) updateKey(ctx context.Context, id string, f func(tx.Tx, *Key) (bool, error)) (*Key, error) {
	const attempts = 3
	var k *Key
	var err error
	for range attempts {
		err = a.db.Write(ctx, func(t tx.Tx) error {
			var err error
			if k, err = a.store.Key(t, id); err != nil {
				return err
			}
			changed, err := f(t, k)
			if err != nil || !changed {
				return err
			}
			if err := a.store.UpdateKey(t, k); err != nil {
				return err
			}
			k.Revision++
			stored := *k
			t.AfterCommit(func() { a.keysChanged(&stored) })
			return nil
		})
		if !errors.Is(err, tx.ErrStale) {
			break
		}
	}
	return k, err
}

// keysChanged runs in AfterCommit.
func (a *Authority) keysChanged(keys ...*Key) {
	a.keys.put(keys...)
	a.sweep(a.clock.Now())
	a.upkeep.arm()
}

func keyError(operation, id string, err error) error {
	if errors.Is(err, tx.ErrNotFound) {
		return errs.New(errs.NotFound, "key %q does not exist; see: telford keys list", clip(id)).In(component, operation)
	}
	return storageError(operation, err)
}

func fillRandom(b []byte) { _, _ = rand.Read(b) } // never fails
