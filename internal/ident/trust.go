package ident

import (
	"crypto/tls"
	"crypto/x509"
	"slices"
	"sync"
	"sync/atomic"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
)

// Trust is what a process believes: who it is itself, which roots it trusts, and whom
// no longer. Every part can be replaced under traffic; the TLS configurations made
// from a Trust follow at once. It is safe for concurrent use.
type Trust struct {
	clock   clock.Clock
	current atomic.Pointer[belief]

	mu      sync.Mutex // orders writers; guards what follows
	nextSub int
	subs    map[int]func()
}

// belief is one immutable state of a Trust.
type belief struct {
	cert      *tls.Certificate
	id        Identity
	roots     []*x509.Certificate
	pool      *x509.CertPool
	keys      map[string]struct{} // revoked key ids
	instances map[string]struct{} // revoked "namespace/instance"
}

// NewTrust returns a Trust that has no certificate and trusts nobody yet. Certificates
// are judged by the time of clk.
func NewTrust(clk clock.Clock) *Trust {
	t := &Trust{clock: clk, subs: make(map[int]func())}
	t.current.Store(&belief{pool: x509.NewCertPool()})
	return t
}

// Clock returns the clock that certificates are judged by.
func (t *Trust) Clock() clock.Clock { return t.clock }

// Under reports whether the certificate in force was issued below a trusted root whose
// public key has this hash, see SPKI. Without a certificate it is false.
func (t *Trust) Under(spki [32]byte) bool {
	b := t.current.Load()
	if b.cert == nil {
		return false
	}
	for _, root := range b.roots {
		if SPKI(root) != spki {
			continue
		}
		for _, raw := range b.cert.Certificate[1:] {
			issuer, err := x509.ParseCertificate(raw)
			if err == nil && SPKI(issuer) != spki && b.cert.Leaf.CheckSignatureFrom(issuer) == nil && issuer.CheckSignatureFrom(root) == nil {
				return true
			}
		}
	}
	return false
}

// SetCertificate replaces the certificate that this process shows. Connections that
// are open keep the one they began with. The error says why cert cannot be one:
// nothing changes then.
func (t *Trust) SetCertificate(cert tls.Certificate) error {
	if len(cert.Certificate) == 0 {
		return errs.New(errs.InvalidArgument, "an empty certificate chain")
	}
	if cert.Leaf == nil {
		leaf, err := x509.ParseCertificate(cert.Certificate[0])
		if err != nil {
			return errs.New(errs.InvalidArgument, "own certificate: %w", err)
		}
		cert.Leaf = leaf
	}
	id, err := FromCertificate(cert.Leaf)
	if err != nil {
		return errs.New(errs.InvalidArgument, "own certificate: %w", err)
	}
	if !holds(cert.PrivateKey, cert.Leaf) {
		return errs.New(errs.InvalidArgument, "own certificate: it is for another private key")
	}
	t.change(func(b *belief) { b.cert, b.id = &cert, id })
	return nil
}

// SetRoots replaces the trusted roots. A nil among them is left out.
func (t *Trust) SetRoots(roots []*x509.Certificate) {
	roots = slices.DeleteFunc(slices.Clone(roots), func(c *x509.Certificate) bool { return c == nil })
	pool := x509.NewCertPool()
	for _, root := range roots {
		pool.AddCert(root)
	}
	t.change(func(b *belief) { b.roots, b.pool = roots, pool })
}

// Certificate returns the certificate in force, nil when there is none. It must not be
// changed.
func (t *Trust) Certificate() *tls.Certificate { return t.current.Load().cert }

// Identity returns who this process is by the certificate in force; the zero Identity
// when there is none.
func (t *Trust) Identity() Identity { return t.current.Load().id }

// Roots returns the trusted roots.
func (t *Trust) Roots() []*x509.Certificate { return slices.Clone(t.current.Load().roots) }

// Revoke takes note of revoked keys (by id) and instances (as "namespace/instance"): in
// addition to those known, or, with snapshot, instead of them. When somebody is newly
// revoked the functions of OnRevoke run before it returns.
func (t *Trust) Revoke(snapshot bool, keys, instances []string) {
	var news bool
	t.change(func(b *belief) {
		var newKeys, newInstances bool
		b.keys, newKeys = joined(b.keys, keys, snapshot)
		b.instances, newInstances = joined(b.instances, instances, snapshot)
		news = newKeys || newInstances
	})
	if !news {
		return
	}
	t.mu.Lock()
	subs := make([]func(), 0, len(t.subs))
	for _, f := range t.subs {
		subs = append(subs, f)
	}
	t.mu.Unlock()
	for _, f := range subs {
		f()
	}
}

// Revoked reports whether the identity's key or instance is revoked.
func (t *Trust) Revoked(id Identity) bool { return t.current.Load().revoked(id) != nil }

// CheckRevoked returns a PermissionDenied error that says what of the identity is
// revoked, nil when nothing is.
func (t *Trust) CheckRevoked(id Identity) error { return t.current.Load().revoked(id) }

// OnRevoke has f called whenever somebody is newly revoked, so that connections can be
// looked through with Revoked. f runs on the goroutine that brings the news and must
// not wait; it may run at the same time as itself. cancel ends it, but does not wait
// for a call that has begun.
func (t *Trust) OnRevoke(f func()) (cancel func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	n := t.nextSub
	t.nextSub++
	t.subs[n] = f
	return func() {
		t.mu.Lock()
		defer t.mu.Unlock()
		delete(t.subs, n)
	}
}

func (t *Trust) change(f func(*belief)) {
	t.mu.Lock()
	defer t.mu.Unlock()
	next := *t.current.Load()
	f(&next)
	t.current.Store(&next)
}

func (b *belief) revoked(id Identity) error {
	if _, bad := b.keys[id.KeyID]; bad {
		return errs.New(errs.PermissionDenied, "%s: its key %s is revoked", id, id.KeyID).Unstarted()
	}
	if _, bad := b.instances[id.QualifiedInstance()]; bad {
		return errs.New(errs.PermissionDenied, "%s: the instance is revoked", id).Unstarted()
	}
	return nil
}

// joined returns old and more (only more with snapshot) as a new set, and whether it
// has members that old has not.
func joined(old map[string]struct{}, more []string, snapshot bool) (set map[string]struct{}, news bool) {
	set = make(map[string]struct{}, len(old)+len(more))
	if !snapshot {
		for name := range old {
			set[name] = struct{}{}
		}
	}
	for _, name := range more {
		if name == "" {
			continue
		}
		if _, known := old[name]; !known {
			news = true
		}
		set[name] = struct{}{}
	}
	return set, news
}
