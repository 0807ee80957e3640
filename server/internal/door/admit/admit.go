// Package admit owns the way from a credential to the caller that the router is told
// of, for the doors whose callers show one with each call: bearer keys, the operator's
// token, client certificates. It decides nothing about what a caller may do.
//
// It starts no goroutines; the functions that it lends run on those of the doors and
// of whoever revokes.
package admit

import (
	"context"
	"strings"
	"sync"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/identity"
)

// Operator is the service name of whoever shows the operator's token.
const Operator = "telford.operator"

// DefaultNamespace is where the operator acts unless told otherwise.
const DefaultNamespace = "default"

// Authority knows the credentials; *identity.Authority is one.
type Authority interface {
	Authenticate(ctx context.Context, bearer string) (identity.Principal, error)
}

// Trust knows what was revoked; *ident.Trust is one.
type Trust interface {
	CheckRevoked(id ident.Identity) error
	OnRevoke(f func()) (cancel func())
}

// Grant is who calls, proven.
type Grant struct {
	Caller   message.Caller
	Operator bool
	// Kind is that of the key; "" for a certificate and for the operator.
	Kind identity.Kind
	// Certified: the credential is a certificate.
	Certified bool
}

// Namespace is where the caller's calls go.
func (g *Grant) Namespace() string { return g.Caller.Namespace }

// Gate turns credentials into grants.
type Gate struct {
	authority Authority
	trust     Trust
	cancel    func()

	mu   sync.Mutex
	held map[*hold]struct{}
}

type hold struct {
	id     ident.Identity
	cancel context.CancelCauseFunc
}

// New returns a Gate that watches trust until it is closed.
func New(authority Authority, trust Trust) *Gate {
	g := &Gate{authority: authority, trust: trust, held: make(map[*hold]struct{})}
	g.cancel = trust.OnRevoke(g.revoked)
	return g
}

// Close stops watching. It is safe more than once.
func (g *Gate) Close() {
	g.mu.Lock()
	cancel := g.cancel
	g.cancel = nil
	g.mu.Unlock()
	if cancel != nil {
		cancel()
	}
}

// Bearer returns the grant of an Authorization header. namespace is what the caller
// asked for beside it, "" for its own; only the operator may ask for another.
// Errors: unauthenticated, permission_denied.
func (g *Gate) Bearer(ctx context.Context, header, namespace string) (*Grant, *errs.Error) {
	scheme, token, _ := strings.Cut(header, " ")
	token = strings.TrimSpace(token)
	if header == "" {
		return nil, errs.New(errs.Unauthenticated, "the request has no credential; send \"authorization: Bearer KEY\" with a service key or the operator's token").Unstarted()
	}
	if !strings.EqualFold(scheme, "bearer") || token == "" {
		return nil, errs.New(errs.Unauthenticated, "the authorization header must be \"Bearer KEY\"").Unstarted()
	}
	p, err := g.authority.Authenticate(ctx, token)
	if err != nil {
		return nil, errs.From(err).Unstarted()
	}
	if p.Operator {
		if namespace == "" {
			namespace = DefaultNamespace
		}
		return &Grant{Caller: message.Caller{Namespace: namespace, Service: Operator}, Operator: true}, nil
	}
	grant := &Grant{Kind: p.Kind, Caller: message.Caller{Namespace: p.Namespace, Service: p.Service, KeyID: p.KeyID}}
	return grant, grant.within(namespace)
}

// Certificate returns the grant of a proven certificate; namespace is as in Bearer.
func (g *Gate) Certificate(id ident.Identity, namespace string) (*Grant, *errs.Error) {
	if err := g.trust.CheckRevoked(id); err != nil {
		return nil, errs.From(err).Unstarted()
	}
	grant := &Grant{Certified: true, Caller: message.Caller{Namespace: id.Namespace, Service: id.Service, Instance: id.Instance, KeyID: id.KeyID}}
	return grant, grant.within(namespace)
}

func (g *Grant) within(namespace string) *errs.Error {
	if namespace == "" || namespace == g.Caller.Namespace {
		return nil
	}
	return errs.New(errs.PermissionDenied, "the credential belongs to namespace %q and the request is for %q; use a key of that namespace", g.Caller.Namespace, namespace).Unstarted()
}

// Hold returns a context that ends, saying so by its cause, when the key or
// the instance of the grant is revoked. release must be called.
func (g *Gate) Hold(ctx context.Context, grant *Grant) (_ context.Context, release func()) {
	ctx, cancel := context.WithCancelCause(ctx)
	if grant.Operator {
		return ctx, func() { cancel(nil) }
	}
	h := &hold{cancel: cancel, id: ident.Identity{
		Namespace: grant.Caller.Namespace, Service: grant.Caller.Service,
		Instance: grant.Caller.Instance, KeyID: grant.Caller.KeyID,
	}}
	g.mu.Lock()
	g.held[h] = struct{}{}
	g.mu.Unlock()
	// It may have been revoked before it was held.
	if err := g.trust.CheckRevoked(h.id); err != nil {
		cancel(err)
	}
	return ctx, func() {
		g.mu.Lock()
		delete(g.held, h)
		g.mu.Unlock()
		cancel(nil)
	}
}

func (g *Gate) revoked() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for h := range g.held {
		if err := g.trust.CheckRevoked(h.id); err != nil {
			h.cancel(err)
		}
	}
}
