package identity

import (
	"context"
	"errors"
	"strings"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
)

// Tenant is a neighbour that keeps something for each namespace.
type Tenant interface {
	// RemoveNamespaceTx removes what it keeps for a namespace that ends with t, or says
	// why the namespace cannot end.
	RemoveNamespaceTx(t tx.Tx, namespace string) error
}

// AddTenant has t asked whenever a namespace is removed.
func (a *Authority) AddTenant(t Tenant) {
	a.names.mu.Lock()
	defer a.names.mu.Unlock()
	a.names.tenants = append(a.names.tenants, t)
}

// HoldTx keeps a namespace from being removed before t ends; NotFound: there is none.
func (a *Authority) HoldTx(t tx.Tx, namespace string) error {
	err := a.store.HoldNamespace(t, namespace)
	if errors.Is(err, tx.ErrNotFound) {
		return unknownNamespace(namespace)
	}
	return err
}

func unknownNamespace(ref string) *errs.Error {
	return errs.New(errs.NotFound, "namespace %q does not exist; create it first: telford namespaces create NAME", clip(ref))
}

// RemoveNamespace ends a namespace, given by name or account, with all that tenants keep
// for it. Keys that are not in force any more stay listed. FailedPrecondition: it is
// DefaultNamespace, has a key that is in force, or a tenant needs it; NotFound: there is
// none.
func (a *Authority) RemoveNamespace(ctx context.Context, ref, author string) (Namespace, error) {
	const operation = "remove a namespace"
	ns, err := a.Namespace(ref)
	if err != nil {
		return Namespace{}, errs.From(err).In(component, operation)
	}
	if ns.Name == DefaultNamespace {
		return Namespace{}, errs.New(errs.FailedPrecondition, "namespace %q stays: it is what is meant where none is named", ns.Name).In(component, operation)
	}
	err = a.db.Write(ctx, func(t tx.Tx) error {
		// First of all, so that what others do in it at the same time is seen below.
		if err := a.store.DeleteNamespace(t, ns.Name); err != nil {
			return err
		}
		if err := a.unused(t, ns.Name); err != nil {
			return err
		}
		for _, tenant := range a.names.all() {
			if err := tenant.RemoveNamespaceTx(t, ns.Name); err != nil {
				return err
			}
		}
		t.AfterCommit(func() { a.names.remove(ns.Name) })
		return nil
	})
	if errors.Is(err, tx.ErrNotFound) {
		err = unknownNamespace(ns.Name) // another node was first
	}
	if err != nil {
		return Namespace{}, storageError(operation, err)
	}
	a.log.Info("namespace removed", "namespace", ns.Name, "account", ns.Account, "author", author)
	return ns, nil
}

func (n *namespaces) all() []Tenant {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.tenants
}

// unused refuses a namespace with a key that is in force.
func (a *Authority) unused(t tx.Tx, namespace string) error {
	keys, err := a.store.Keys(t, KeyFilter{Namespace: namespace})
	if err != nil {
		return err
	}
	const shown = 3
	var ids []string
	n := 0
	now := a.now()
	for _, k := range keys {
		if k.usable(now) != nil {
			continue
		}
		if n++; n <= shown {
			ids = append(ids, k.ID)
		}
	}
	if n == 0 {
		return nil
	}
	if n > shown {
		ids = append(ids, "...")
	}
	return errs.New(errs.FailedPrecondition, "namespace %q has keys in force (%d): %s; revoke them first: telford keys revoke ID",
		namespace, n, strings.Join(ids, ", "))
}

// SetAccount gives a namespace, by name or account, another account as its numeric
// alias; 0 takes the alias away. Conflict: the account is another's; NotFound: there is
// no such namespace.
func (a *Authority) SetAccount(ctx context.Context, ref string, account int64, author string) (Namespace, error) {
	const operation = "set the account of a namespace"
	ns, err := a.Namespace(ref)
	if err != nil {
		return Namespace{}, errs.From(err).In(component, operation)
	}
	if account < 0 {
		return Namespace{}, errs.New(errs.InvalidArgument, "account %d: want a positive number, or 0 for none", account).In(component, operation)
	}
	if ns.Account == account {
		return ns, nil
	}
	next := ns
	next.Account = account
	err = a.db.Write(ctx, func(t tx.Tx) error {
		if err := a.store.SetAccount(t, ns.Name, account, a.now(), author); err != nil {
			return err
		}
		t.AfterCommit(func() { a.names.put(&next) })
		return nil
	})
	switch {
	case errors.Is(err, tx.ErrNotFound):
		err = unknownNamespace(ns.Name)
	case errors.Is(err, tx.ErrExists):
		holder := "another namespace"
		if other, ok := a.names.byAccount(account); ok {
			holder = "namespace \"" + other.Name + "\""
		}
		err = errs.New(errs.Conflict, "account %d is that of %s; take it away there first: telford namespaces alias NAME --remove", account, holder)
	}
	if err != nil {
		return Namespace{}, storageError(operation, err)
	}
	a.log.Info("account of a namespace set", "namespace", ns.Name, "account", account, "author", author)
	return next, nil
}
