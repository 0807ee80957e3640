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
	"telford.dev/telford/server/internal/tx"
)

const (
	vaultRoot   = "root.pem"   // private key and certificate
	vaultIssuer = "issuer.pem" // private key and certificate

	// caBackdate lets machines whose clocks are behind accept what was just made.
	caBackdate      = 24 * time.Hour
	maxLeafBackdate = time.Hour
)

// ca signs: root, issuer and leaves. The root's private key is read from the vault
// for the moments in which it signs an issuer, and not kept.
type ca struct {
	clock  clock.Clock
	log    *slog.Logger
	vault  Vault
	root   *x509.Certificate
	domain string

	issuerLife, leafLife time.Duration

	issuer atomic.Pointer[authority]
	retry  atomic.Pointer[time.Time] // no renewal of a usable issuer before
	mu     sync.Mutex                // one renewal of the issuer at a time
}

// openCA loads root and issuer, or makes them at the first start of a cluster.
func openCA(ctx context.Context, m meta, cfg Config) (*ca, error) {
	const operation = "open the certificate authority"
	stored, err := m.get(ctx, metaRoot)
	began := err == nil
	if err != nil && !errors.Is(err, tx.ErrNotFound) {
		return nil, storageError(operation, err)
	}
	secret, err := cfg.Vault.Load(ctx, vaultRoot)
	switch {
	case err != nil && !errors.Is(err, tx.ErrNotFound):
		return nil, storageError(operation, err)
	case err != nil && began:
		return nil, errs.New(errs.FailedPrecondition, "the root's private key (%s) is missing, and this cluster has certificates by it: "+
			"restore it from a backup", vaultRoot).In(component, operation)
	case err != nil:
		secret, err = loadOrCreate(ctx, cfg.Vault, vaultRoot, func() ([]byte, error) { return newRoot(cfg) })
		if err != nil {
			return nil, storageError(operation, err)
		}
	}
	root, err := parseAuthority(vaultRoot, secret)
	if err != nil {
		return nil, err
	}
	if !began {
		if stored, err = m.first(ctx, metaRoot, root.cert.Raw); err != nil {
			return nil, err
		}
	}
	if !bytes.Equal(stored, root.cert.Raw) {
		return nil, errs.New(errs.FailedPrecondition, "the root in %s is not the one of this database: they belong to two clusters; "+
			"put the right ones together", vaultRoot).In(component, operation)
	}
	c := &ca{
		clock: cfg.Clock, log: cfg.Log, vault: cfg.Vault, root: root.cert,
		issuerLife: cfg.IssuerLife, leafLife: cfg.LeafLife,
	}
	if len(root.cert.URIs) != 1 {
		return nil, errs.New(errs.FailedPrecondition, "%s: the root names no trust domain", vaultRoot).In(component, operation)
	}
	c.domain = root.cert.URIs[0].Host
	if cfg.TrustDomain != "" && cfg.TrustDomain != c.domain {
		return nil, errs.New(errs.FailedPrecondition, "trust domain %q: this cluster is %q since its first start, and every certificate says so; "+
			"leave the setting out, or begin a new cluster with another data directory", cfg.TrustDomain, c.domain).In(component, operation)
	}
	return c, c.openIssuer(ctx)
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
		if err := issuer.cert.CheckSignatureFrom(c.root); err != nil {
			return errs.New(errs.FailedPrecondition, "%s was not signed by the root of this cluster; remove it, and a new one is made: %w",
				vaultIssuer, err).In(component, "open the issuer")
		}
		c.issuer.Store(issuer)
	}
	return c.freshIssuer(ctx)
}

// freshIssuer has the root sign a new issuer when there is none or two thirds of its
// life are over. It is an error only when there is none to sign with afterwards.
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
		retry := now.Add(upkeepRetry)
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
	return now.Before(c.issuerRenewAt())
}

func (c *ca) renewIssuer(ctx context.Context, now time.Time) error {
	const operation = "renew the issuer"
	if now.After(c.root.NotAfter) {
		return errs.New(errs.FailedPrecondition, "the root expired at %s: every certificate of this cluster has ended with it",
			c.root.NotAfter.Format(time.RFC3339)).In(component, operation)
	}
	secret, err := c.vault.Load(ctx, vaultRoot)
	if err != nil {
		return storageError(operation, err)
	}
	root, err := parseAuthority(vaultRoot, secret)
	if err != nil {
		return err
	}
	template := caTemplate("Telford issuer "+c.domain, c.domain, now, c.issuerLife)
	template.MaxPathLen, template.MaxPathLenZero = 0, true
	if template.NotAfter.After(root.cert.NotAfter) {
		template.NotAfter = root.cert.NotAfter
	}
	if template.NotBefore.Before(root.cert.NotBefore) {
		template.NotBefore = root.cert.NotBefore
	}
	fresh, encoded, err := newAuthority(template, root)
	if err != nil {
		return err
	}
	if err := c.vault.Replace(ctx, vaultIssuer, encoded); err != nil {
		return storageError(operation, err)
	}
	c.issuer.Store(fresh)
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
	if !cert.NotAfter.Before(c.root.NotAfter) {
		at = c.root.NotAfter
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
	if err := c.freshIssuer(ctx); err != nil {
		return nil, nil, err
	}
	now, issuer := c.clock.Now().UTC(), c.issuer.Load()
	// Certificates count whole seconds; rounding up keeps short ones from being shorter.
	notAfter := now.Add(c.leafLife + time.Second - time.Nanosecond).Truncate(time.Second)
	if !l.notAfter.IsZero() && notAfter.After(l.notAfter) {
		notAfter = l.notAfter.UTC().Truncate(time.Second)
	}
	if notAfter.After(issuer.cert.NotAfter) {
		notAfter = issuer.cert.NotAfter
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
	return cert, [][]byte{der, issuer.cert.Raw}, nil
}
