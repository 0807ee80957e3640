package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"net/url"
	"strconv"
	"time"

	"telford.dev/telford/internal/errs"
)

// authority is a certificate that signs, with its private key.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// newTrustDomain names a cluster that was not given a name.
func newTrustDomain() string {
	var random [6]byte
	_, _ = rand.Read(random[:]) // never fails
	return hex.EncodeToString(random[:]) + ".telford"
}

// newRoot returns the secret of a root.
func newRoot(generation int, domain string, now time.Time, life time.Duration) ([]byte, error) {
	name := "Telford root " + domain
	if generation > 1 { // a name of its own tells it from the others
		name = "Telford root " + strconv.Itoa(generation) + " " + domain
	}
	_, encoded, err := newAuthority(caTemplate(name, domain, now, life), nil)
	return encoded, err
}

// newIssuer returns an issuer below a root, which it never outlives.
func newIssuer(root *authority, domain string, now time.Time, life time.Duration) (*authority, []byte, error) {
	template := caTemplate("Telford issuer "+domain, domain, now, life)
	template.MaxPathLen, template.MaxPathLenZero = 0, true
	if template.NotAfter.After(root.cert.NotAfter) {
		template.NotAfter = root.cert.NotAfter
	}
	if template.NotBefore.Before(root.cert.NotBefore) {
		template.NotBefore = root.cert.NotBefore
	}
	return newAuthority(template, root)
}

// noEnd is the time by which X.509 says that a certificate has no end.
func noEnd() time.Time { return time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC) }

// vouch returns a certificate for the key of another root, or for the signer's own,
// valid until an instant.
func (a *authority) vouch(of *x509.Certificate, until time.Time) ([]byte, error) {
	template := &x509.Certificate{
		Subject: of.Subject, NotBefore: of.NotBefore, NotAfter: until,
		KeyUsage: of.KeyUsage, BasicConstraintsValid: true, IsCA: true, URIs: of.URIs, SubjectKeyId: of.SubjectKeyId,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, of.PublicKey, a.key)
	if err != nil {
		return nil, errs.New(errs.Internal, "sign for %s: %w", of.Subject.CommonName, err)
	}
	return der, nil
}

// madeAt is when a root or issuer was made: certificates begin before that.
func madeAt(cert *x509.Certificate) time.Time { return cert.NotBefore.Add(caBackdate).UTC() }

func caTemplate(name, domain string, now time.Time, life time.Duration) *x509.Certificate {
	const longestName = 64 // of an X.509 common name
	return &x509.Certificate{
		Subject:   pkix.Name{CommonName: name[:min(len(name), longestName)]},
		NotBefore: now.UTC().Add(-caBackdate).Truncate(time.Second), NotAfter: now.UTC().Add(life).Truncate(time.Second),
		KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageCRLSign, BasicConstraintsValid: true, IsCA: true,
		URIs: []*url.URL{{Scheme: "spiffe", Host: domain}},
	}
}

// newAuthority makes a key pair and has parent sign for it, itself when parent is nil.
func newAuthority(template *x509.Certificate, parent *authority) (*authority, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, errs.New(errs.Internal, "make a key pair: %w", err)
	}
	signer := &authority{template, key}
	if parent != nil {
		signer = parent
	}
	der, err := x509.CreateCertificate(rand.Reader, template, signer.cert, &key.PublicKey, signer.key)
	if err != nil {
		return nil, nil, errs.New(errs.Internal, "sign %s: %w", template.Subject.CommonName, err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, nil, errs.New(errs.Internal, "sign %s: %w", template.Subject.CommonName, err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, nil, errs.New(errs.Internal, "encode a private key: %w", err)
	}
	encoded := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})
	encoded = append(encoded, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})...)
	return &authority{cert, key}, encoded, nil
}

// parseAuthority is the reverse of the encoding of newAuthority. Its errors quote
// nothing of the secret.
func parseAuthority(name string, encoded []byte) (*authority, error) {
	bad := func(why string) (*authority, error) {
		return nil, errs.New(errs.FailedPrecondition, "%s is damaged (%s); restore it from a backup", name, why).In(component, "open the certificate authority")
	}
	keyBlock, rest := pem.Decode(encoded)
	if keyBlock == nil || keyBlock.Type != "PRIVATE KEY" {
		return bad("no private key")
	}
	certBlock, _ := pem.Decode(rest)
	if certBlock == nil || certBlock.Type != "CERTIFICATE" {
		return bad("no certificate")
	}
	parsed, err := x509.ParsePKCS8PrivateKey(keyBlock.Bytes)
	if err != nil {
		return bad("the private key cannot be read")
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok {
		return bad("the private key is not ECDSA")
	}
	cert, err := x509.ParseCertificate(certBlock.Bytes)
	if err != nil {
		return bad("the certificate cannot be read")
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return bad("certificate and private key do not fit each other")
	}
	if !cert.IsCA {
		return bad("the certificate may not sign")
	}
	return &authority{cert, key}, nil
}
