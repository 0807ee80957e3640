package ident

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"

	"telford.dev/telford/internal/errs"
)

// NewRequest makes a key pair (ECDSA P-256) and a certificate request for it, DER. The
// request names nobody: who the certificate is for comes from the credential that it
// is sent with.
func NewRequest() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, errs.New(errs.Internal, "make a key pair: %w", err)
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	if err != nil {
		return nil, nil, errs.New(errs.Internal, "make a certificate request: %w", err)
	}
	return key, csr, nil
}

// Certificate joins the chain that a runtime issued (leaf first, DER each) with the
// key of the request. The error says what does not fit.
func Certificate(chain [][]byte, key crypto.Signer) (tls.Certificate, error) {
	if len(chain) == 0 {
		return tls.Certificate{}, errs.New(errs.InvalidArgument, "an empty certificate chain")
	}
	certs, err := ParseCertificates(chain)
	if err != nil {
		return tls.Certificate{}, err
	}
	if _, err := FromCertificate(certs[0]); err != nil {
		return tls.Certificate{}, err
	}
	if !holds(key, certs[0]) {
		return tls.Certificate{}, errs.New(errs.InvalidArgument, "the certificate is for another private key")
	}
	return tls.Certificate{Certificate: chain, PrivateKey: key, Leaf: certs[0]}, nil
}

// ParseCertificates parses certificates in DER.
func ParseCertificates(der [][]byte) ([]*x509.Certificate, error) {
	certs := make([]*x509.Certificate, len(der))
	for i, raw := range der {
		cert, err := x509.ParseCertificate(raw)
		if err != nil {
			return nil, errs.New(errs.InvalidArgument, "certificate %d of %d: %w", i+1, len(der), err)
		}
		certs[i] = cert
	}
	return certs, nil
}

func holds(key crypto.PrivateKey, cert *x509.Certificate) bool {
	signer, ok := key.(crypto.Signer)
	if !ok {
		return false
	}
	public, ok := signer.Public().(interface{ Equal(crypto.PublicKey) bool })
	return ok && public.Equal(cert.PublicKey)
}
