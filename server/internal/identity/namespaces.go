package identity

import (
	"context"
	"errors"
	"slices"
	"strconv"
	"strings"
	"sync"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/server/internal/tx"
)

// namespaces has all tenants in memory. It changes only at the start and in
// AfterCommit.
type namespaces struct {
	mu      sync.RWMutex
	byName  map[string]Namespace
	tenants []Tenant // only ever added to
}

func newNamespaces() *namespaces { return &namespaces{byName: make(map[string]Namespace)} }

func (n *namespaces) put(rows ...*Namespace) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, row := range rows {
		n.byName[row.Name] = *row
	}
}

func (n *namespaces) replace(rows []*Namespace) {
	n.mu.Lock()
	defer n.mu.Unlock()
	clear(n.byName)
	for _, row := range rows {
		n.byName[row.Name] = *row
	}
}

func (n *namespaces) remove(name string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	delete(n.byName, name)
}

func (n *namespaces) get(name string) (Namespace, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	ns, ok := n.byName[name]
	return ns, ok
}

func (n *namespaces) byAccount(account int64) (Namespace, bool) {
	n.mu.RLock()
	defer n.mu.RUnlock()
	for _, ns := range n.byName {
		if account != 0 && ns.Account == account {
			return ns, true
		}
	}
	return Namespace{}, false
}

// ensureDefault makes the default namespace at the first start.
func (a *Authority) ensureDefault(ctx context.Context) error {
	if _, ok := a.names.get(DefaultNamespace); ok {
		return nil
	}
	_, err := a.EnsureNamespace(ctx, DefaultNamespace, DefaultAccount)
	return err
}

// EnsureNamespace returns the namespace of a name and makes it if there is none, with
// the account as its numeric alias; 0: none. An account that is another's, or a
// namespace that has another account, is a Conflict.
func (a *Authority) EnsureNamespace(ctx context.Context, name string, account int64) (Namespace, error) {
	const operation = "create a namespace"
	if err := ident.CheckNamespace(name); err != nil {
		return Namespace{}, errs.From(err).In(component, operation)
	}
	if name == ident.RuntimeNamespace || strings.HasPrefix(name, ident.RuntimeNamespace+".") {
		return Namespace{}, errs.New(errs.InvalidArgument, "namespace %q is reserved for the runtime", name).In(component, operation)
	}
	if account < 0 {
		return Namespace{}, errs.New(errs.InvalidArgument, "account %d: want a positive number, or 0 for none", account).In(component, operation)
	}
	row := &Namespace{Name: name, Account: account, Created: a.now()}
	for range 2 {
		if ns, ok := a.names.get(name); ok {
			if account != 0 && ns.Account != account {
				return Namespace{}, errs.New(errs.Conflict, "namespace %q exists with account %d, not %d", name, ns.Account, account).In(component, operation)
			}
			return ns, nil
		}
		if ns, ok := a.names.byAccount(account); ok {
			return Namespace{}, errs.New(errs.Conflict, "account %d is that of namespace %q", account, ns.Name).In(component, operation)
		}
		err := a.db.Write(ctx, func(t tx.Tx) error {
			if err := a.store.InsertNamespace(t, row); err != nil {
				return err
			}
			t.AfterCommit(func() { a.names.put(row) })
			return nil
		})
		if err == nil {
			a.log.Info("namespace created", "namespace", name, "account", account)
			return *row, nil
		}
		if !errors.Is(err, tx.ErrExists) {
			return Namespace{}, storageError(operation, err)
		}
		// Another node was first.
		if err := a.Reload(ctx); err != nil {
			return Namespace{}, err
		}
	}
	return Namespace{}, errs.New(errs.Conflict, "namespace %q with account %d: the name or the account is taken", name, account).In(component, operation)
}

// Namespaces returns all namespaces, ordered by name.
func (a *Authority) Namespaces() []Namespace {
	a.names.mu.RLock()
	defer a.names.mu.RUnlock()
	all := make([]Namespace, 0, len(a.names.byName))
	for _, ns := range a.names.byName {
		all = append(all, ns)
	}
	slices.SortFunc(all, func(x, y Namespace) int { return strings.Compare(x.Name, y.Name) })
	return all
}

// Namespace returns the namespace that a name or the number of an account means; a
// name wins. Unknown: NotFound.
func (a *Authority) Namespace(ref string) (Namespace, error) {
	if ns, ok := a.names.get(ref); ok {
		return ns, nil
	}
	if account, ok := accountNumber(ref); ok {
		if ns, ok := a.names.byAccount(account); ok {
			return ns, nil
		}
	}
	return Namespace{}, errs.New(errs.NotFound, "namespace %q does not exist; create it first", clip(ref)).In(component, "find a namespace")
}

// keyNamespace returns the name of the namespace that a new key is for.
func (a *Authority) keyNamespace(ctx context.Context, in CreateKey) (string, error) {
	if in.Namespace == "" {
		return DefaultNamespace, nil
	}
	ns, err := a.Namespace(in.Namespace)
	if err == nil {
		return ns.Name, nil
	}
	account, ok := accountNumber(in.Namespace)
	if !ok || in.Kind != KindAPI {
		return "", err
	}
	ns, err = a.EnsureNamespace(ctx, in.Namespace, account)
	return ns.Name, err
}

// accountNumber reads the number of an account in its only spelling.
func accountNumber(s string) (int64, bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n > 0 && strconv.FormatInt(n, 10) == s
}
