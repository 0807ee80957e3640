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
	"time"

	"telford.dev/telford/internal/errs"
)

// authority is a certificate that signs, with its private key.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newRoot(cfg Config) ([]byte, error) {
	domain := cfg.TrustDomain
	if domain == "" {
		var random [6]byte
		_, _ = rand.Read(random[:]) // never fails
		domain = hex.EncodeToString(random[:]) + ".telford"
	}
	_, encoded, err := newAuthority(caTemplate("Telford root "+domain, domain, cfg.Clock.Now(), cfg.RootLife), nil)
	return encoded, err
}

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
