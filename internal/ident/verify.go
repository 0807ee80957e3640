package ident

import (
	"crypto/x509"
	"errors"
	"time"

	"telford.dev/telford/internal/errs"
)

// maxChain bounds the certificates that a peer may send: a leaf, its issuer, the roots
// in force, and for each former root that keys may still be pinned to its certificate
// and the cross-certificate for its successor.
const maxChain = 32

// verify judges the certificates of a peer. The error, of code Unauthenticated or,
// for who is revoked, PermissionDenied, says exactly what is wrong.
func (b *belief) verify(now time.Time, certs []*x509.Certificate, usage x509.ExtKeyUsage) (Identity, error) {
	id, err := checkLeaf(now, certs)
	if err != nil {
		return Identity{}, err
	}
	if len(b.roots) == 0 {
		return Identity{}, refuse("%s cannot be verified: no root certificate is known yet", id)
	}
	if own := b.trustDomain(); own != "" && id.TrustDomain != own {
		return Identity{}, refuse("%s is of another trust domain; ours is %s", id, own)
	}
	if err := checkChain(now, id, certs, b.pool, usage); err != nil {
		return Identity{}, err
	}
	if err := b.revoked(id); err != nil {
		return Identity{}, err
	}
	return id, nil
}

// trustDomain is the one that peers must be of: our own, before we have a certificate
// that of the roots, "" when neither says.
func (b *belief) trustDomain() string {
	if b.cert != nil {
		return b.id.TrustDomain
	}
	domain := ""
	for _, root := range b.roots {
		for _, uri := range root.URIs {
			if uri.Scheme != "spiffe" || uri.Path != "" {
				continue
			}
			if domain != "" && domain != uri.Host {
				return ""
			}
			domain = uri.Host
		}
	}
	return domain
}

func checkLeaf(now time.Time, certs []*x509.Certificate) (Identity, error) {
	if len(certs) == 0 {
		return Identity{}, refuse("the peer has shown no certificate")
	}
	if len(certs) > maxChain {
		return Identity{}, refuse("the peer has sent %d certificates, at most %d are looked at", len(certs), maxChain)
	}
	id, err := FromCertificate(certs[0])
	if err != nil {
		return Identity{}, errs.From(err).Unstarted()
	}
	if now.After(id.NotAfter) {
		return Identity{}, refuse("%s: the certificate expired at %s; the time here is %s",
			id, id.NotAfter.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	if now.Before(id.NotBefore) {
		return Identity{}, refuse("%s: the certificate is not valid before %s; the time here is %s: compare the clocks",
			id, id.NotBefore.Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return id, nil
}

func checkChain(now time.Time, id Identity, certs []*x509.Certificate, roots *x509.CertPool, usage x509.ExtKeyUsage) error {
	between := x509.NewCertPool()
	for _, cert := range certs[1:] {
		between.AddCert(cert)
	}
	_, err := certs[0].Verify(x509.VerifyOptions{
		Roots: roots, Intermediates: between, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{usage},
	})
	var unknown x509.UnknownAuthorityError
	var invalid x509.CertificateInvalidError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &invalid) && invalid.Reason == x509.Expired:
		return refuse("%s: the chain has an issuer that is valid from %s to %s only; the time here is %s", id,
			invalid.Cert.NotBefore.UTC().Format(time.RFC3339), invalid.Cert.NotAfter.UTC().Format(time.RFC3339),
			now.UTC().Format(time.RFC3339))
	case errors.As(err, &unknown):
		return refuse("%s: the certificate was not issued by a root that is trusted here: %w", id, err)
	default:
		return refuse("%s: %w", id, err)
	}
}

// refuse says no before anything of the peer has run.
func refuse(format string, args ...any) *errs.Error {
	return errs.New(errs.Unauthenticated, format, args...).Unstarted()
}
