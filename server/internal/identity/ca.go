package identity

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/server/internal/tx"
)

const (
	vaultRoot   = "root.pem"   // private key and certificate of the first root; see rootSecret
	vaultIssuer = "issuer.pem" // private key and certificate

	// caBackdate lets machines whose clocks are behind accept what was just made.
	caBackdate      = 24 * time.Hour
	maxLeafBackdate = time.Hour
)

// ca signs: roots, issuers and leaves. A root's private key is read from the vault for
// the moments in which it signs, and once at the start to prove that it is there; it is
// not kept.
type ca struct {
	clock  clock.Clock
	log    *slog.Logger
	vault  Vault
	meta   meta
	domain string
	shared bool // other nodes use the same store

	rootLife, issuerLife, leafLife time.Duration

	// current is the hierarchy as it was read last.
	current atomic.Pointer[standing]
	longest atomic.Int64 // the longest life of any leaf of the cluster, in nanoseconds
	// changed is told, outside of all locks, when another hierarchy is in force.
	changed func()

	issuer atomic.Pointer[issuing]
	retry  atomic.Pointer[time.Time] // no renewal of a usable issuer before

	mu   sync.Mutex // one renewal of the issuer at a time
	turn sync.Mutex // one step of a rotation at a time; taken before mu
	set  sync.Mutex // orders what becomes current
}

// standing is a hierarchy with its row.
type standing struct {
	*hierarchy
	row []byte
	// confirmed is when the store was last known to say so.
	confirmed time.Time
}

// issuing is an issuer and the root that has signed it.
type issuing struct {
	*authority
	root [32]byte // SPKI
}

// openCA loads roots and issuer, or makes them at the first start of a cluster.
func openCA(ctx context.Context, m meta, cfg Config) (*ca, error) {
	const operation = "open the certificate authority"
	c := &ca{
		clock: cfg.Clock, log: cfg.Log, vault: cfg.Vault, meta: m, shared: cfg.Shared, changed: func() {},
		rootLife: cfg.RootLife, issuerLife: cfg.IssuerLife, leafLife: cfg.LeafLife,
	}
	c.longest.Store(int64(cfg.LeafLife))
	now := c.clock.Now()
	row, err := m.get(ctx, metaHierarchy)
	if errors.Is(err, tx.ErrNotFound) {
		row, err = c.first(ctx, cfg.TrustDomain)
	}
	if err != nil {
		return nil, storageError(operation, err)
	}
	h, err := parseHierarchy(row)
	if err != nil {
		return nil, err
	}
	c.current.Store(&standing{h, row, now})
	c.domain = h.domain()
	if cfg.TrustDomain != "" && cfg.TrustDomain != c.domain {
		return nil, errs.New(errs.FailedPrecondition, "trust domain %q: this cluster is %q since its first start, and every certificate says so; "+
			"leave the setting out, or begin a new cluster with another data directory", cfg.TrustDomain, c.domain).In(component, operation)
	}
	if _, err := c.rootKey(ctx, h.active()); err != nil {
		return nil, err
	}
	return c, c.openIssuer(ctx)
}

// first makes the first root of a cluster and its hierarchy.
func (c *ca) first(ctx context.Context, domain string) ([]byte, error) {
	now := c.clock.Now()
	if domain == "" {
		domain = newTrustDomain()
	}
	secret, err := loadOrCreate(ctx, c.vault, vaultRoot, func() ([]byte, error) { return newRoot(1, domain, now, c.rootLife) })
	if err != nil {
		return nil, err
	}
	made, err := parseAuthority(vaultRoot, secret)
	if err != nil {
		return nil, err
	}
	if len(made.cert.URIs) != 1 {
		return nil, errs.New(errs.FailedPrecondition, "%s: the root names no trust domain", vaultRoot)
	}
	h := &hierarchy{Roots: []root{{Generation: 1, State: rootActive, Cert: made.cert.Raw, Made: madeAt(made.cert), cert: made.cert}}}
	row, err := h.next(Steady, now).encode()
	if err != nil {
		return nil, err
	}
	return c.meta.first(ctx, metaHierarchy, row)
}

// rootKey loads the private key of a root.
func (c *ca) rootKey(ctx context.Context, r *root) (*authority, error) {
	const operation = "load the root's private key"
	name := rootSecret(r.Generation)
	secret, err := c.vault.Load(ctx, name)
	if errors.Is(err, tx.ErrNotFound) {
		return nil, errs.New(errs.FailedPrecondition, "the root's private key (%s) is missing, and this cluster has certificates by it: "+
			"restore it from a backup; if there is none, stop the runtime and run: telford pki recover", name).In(component, operation).WithCause(tx.ErrNotFound)
	}
	if err != nil {
		return nil, storageError(operation, err)
	}
	key, err := parseAuthority(name, secret)
	if err != nil {
		return nil, err
	}
	if !bytes.Equal(key.cert.Raw, r.Cert) {
		return nil, errs.New(errs.FailedPrecondition, "the root in %s is not the one of this database: they belong to two clusters; "+
			"put the right ones together", name).In(component, operation)
	}
	return key, nil
}

func (c *ca) openIssuer(ctx context.Context) error {
	secret, err := c.vault.Load(ctx, vaultIssuer)
	if err != nil && !errors.Is(err, tx.ErrNotFound) {
		return storageError("open the issuer", err)
	}
	if err == nil {
		issuer, err := parseAuthority(vaultIssuer, secret)
		if err != nil {
			return err
		}
		h := c.current.Load()
		if spki, ok := h.under(issuer.cert); ok {
			c.issuer.Store(&issuing{issuer, spki})
		} else if !h.once(issuer.cert) {
			return errs.New(errs.FailedPrecondition, "%s was not signed by the root of this cluster; remove it, and a new one is made",
				vaultIssuer).In(component, "open the issuer")
		}
	}
	return c.freshIssuer(ctx)
}

// freshIssuer has the active root sign a new issuer when there is none, when it is that
// of another root, or when two thirds of its life are over. It is an error only when
// there is none to sign with afterwards.
func (c *ca) freshIssuer(ctx context.Context) error {
	if c.issuerFresh() {
		return nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.issuerFresh() {
		return nil
	}
	now, old := c.clock.Now(), c.issuer.Load()
	err := c.renewIssuer(ctx, now)
	if err == nil {
		return nil
	}
	if old != nil && now.Before(old.cert.NotAfter) {
		c.log.Error("renew the issuer: going on with the old one", "not_after", old.cert.NotAfter, "error", err)
		retry := now.Add(min(upkeepRetry, c.leafLife/20))
		c.retry.Store(&retry)
		return nil
	}
	return err
}

func (c *ca) issuerFresh() bool {
	now, issuer := c.clock.Now(), c.issuer.Load()
	if issuer == nil || now.Before(issuer.cert.NotBefore) {
		return false
	}
	if retry := c.retry.Load(); retry != nil && now.Before(*retry) && now.Before(issuer.cert.NotAfter) {
		return true
	}
	return c.issuerActive(issuer) && now.Before(c.issuerRenewAt())
}

// issuerActive reports whether the issuer is that of the active root.
func (c *ca) issuerActive(issuer *issuing) bool {
	return issuer.root == ident.SPKI(c.current.Load().active().cert)
}

func (c *ca) renewIssuer(ctx context.Context, now time.Time) error {
	const operation = "renew the issuer"
	active := c.current.Load().active()
	if now.After(active.cert.NotAfter) {
		return errs.New(errs.FailedPrecondition, "the root expired at %s: every certificate of this cluster has ended with it; "+
			"stop the runtime and run: telford pki recover", active.cert.NotAfter.Format(time.RFC3339)).In(component, operation)
	}
	key, err := c.rootKey(ctx, active)
	if err != nil {
		return err
	}
	fresh, encoded, err := newIssuer(key, c.domain, now, c.issuerLife)
	if err != nil {
		return err
	}
	if err := c.vault.Replace(ctx, vaultIssuer, encoded); err != nil {
		return storageError(operation, err)
	}
	c.issuer.Store(&issuing{fresh, ident.SPKI(active.cert)})
	c.retry.Store(nil)
	c.log.Info("the root has signed a new issuer", "not_after", fresh.cert.NotAfter)
	return nil
}

// issuerRenewAt is when two thirds of the issuer's life are over, but early enough for
// it to sign leaves of full life.
func (c *ca) issuerRenewAt() time.Time {
	cert := c.issuer.Load().cert
	at := cert.NotAfter.Add(-c.issuerLife / 3)
	if early := cert.NotAfter.Add(-c.leafLife); early.Before(at) && c.issuerLife > 2*c.leafLife {
		at = early
	}
	// The root is ending: its issuers are short, and are renewed while that helps.
	if end := c.current.Load().active().cert.NotAfter; !cert.NotAfter.Before(end) {
		at = end
	}
	return at
}

// leaf is what a leaf certificate is made of.
type leaf struct {
	uri      *url.URL
	keyID    string
	public   any
	dns      []string
	ips      []net.IP
	notAfter time.Time // not beyond, unless zero
}

// sign returns a leaf, valid from now on, for at most the configured life, and never
// beyond its issuer; and its chain, without the root.
func (c *ca) sign(ctx context.Context, l leaf) (cert *x509.Certificate, chain [][]byte, err error) {
	const operation = "sign a certificate"
	c.confirm(ctx)
	if err := c.freshIssuer(ctx); err != nil {
		return nil, nil, err
	}
	now, issuer, h := c.clock.Now().UTC(), c.issuer.Load(), c.current.Load()
	// Certificates count whole seconds; rounding up keeps short ones from being shorter.
	notAfter := now.Add(c.leafLife + time.Second - time.Nanosecond).Truncate(time.Second)
	latest, ok := c.latest(issuer, h)
	if !ok {
		return nil, nil, errs.New(errs.Unavailable, "the issuer is that of a root that is trusted no more, and no other could be made; "+
			"the log says why").In(component, operation)
	}
	for _, end := range []time.Time{l.notAfter, latest, issuer.cert.NotAfter} {
		if !end.IsZero() && notAfter.After(end) {
			notAfter = end.UTC().Truncate(time.Second)
		}
	}
	if !notAfter.After(now) {
		return nil, nil, errs.New(errs.Unavailable, "the certificate would end at %s, with its issuer or its key; the time here is %s",
			notAfter.Format(time.RFC3339), now.Format(time.RFC3339)).In(component, operation)
	}
	notBefore := now.Add(-min(c.leafLife/10, maxLeafBackdate)).Truncate(time.Second)
	if notBefore.Before(issuer.cert.NotBefore) {
		notBefore = issuer.cert.NotBefore
	}
	template := &x509.Certificate{
		Subject: pkix.Name{SerialNumber: l.keyID}, NotBefore: notBefore, NotAfter: notAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		URIs:        []*url.URL{l.uri}, DNSNames: l.dns, IPAddresses: l.ips,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.cert, l.public, issuer.key)
	if err != nil {
		return nil, nil, errs.New(errs.Internal, "%w", err).In(component, operation)
	}
	cert, err = x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, errs.New(errs.Internal, "%w", err).In(component, operation)
	}
	return cert, append([][]byte{der, issuer.cert.Raw}, h.bridges(issuer.root)...), nil
}

// latest is when a leaf of the issuer ends at the latest, so that none outlives the
// trust in its root: another node may have gone on with the rotation since this one
// heard of it. False: the root is not trusted any more.
func (c *ca) latest(issuer *issuing, h *standing) (end time.Time, ok bool) {
	l := c.lives()
	slack := l.leaf + l.margin()/2
	end = h.confirmed.Add(slack)
	if c.issuerActive(issuer) {
		return end, true
	}
	if since := h.Since.Add(slack); since.Before(end) {
		end = since
	}
	for _, r := range h.trusted() {
		if ident.SPKI(r) == issuer.root {
			return end, true
		}
	}
	return end, false
}
