package ident_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"testing"
	"time"

	"telford.dev/telford/internal/ident"
)

var epoch = time.Date(2031, 5, 1, 12, 0, 0, 0, time.UTC)

const domain = "0123456789ab.telford"

// signer is a certificate with its key, for building chains by hand.
type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// sign makes a certificate from a template, signed by parent, or by itself when parent
// is nil, for key, or for a new one when key is nil.
func sign(t testing.TB, template *x509.Certificate, parent *signer, key *ecdsa.PrivateKey) *signer {
	t.Helper()
	if key == nil {
		var err error
		if key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader); err != nil {
			t.Fatal(err)
		}
	}
	by := &signer{template, key}
	if parent != nil {
		by = parent
	}
	der, err := x509.CreateCertificate(rand.Reader, template, by.cert, &key.PublicKey, by.key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &signer{cert, key}
}

func caTemplate(name, trustDomain string) *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: name}, NotBefore: epoch.Add(-time.Hour), NotAfter: epoch.Add(1000 * time.Hour),
		KeyUsage: x509.KeyUsageCertSign, BasicConstraintsValid: true, IsCA: true,
		URIs: []*url.URL{{Scheme: "spiffe", Host: trustDomain}},
	}
}

func leafTemplate(id ident.Identity) *x509.Certificate {
	return &x509.Certificate{
		Subject:   pkix.Name{SerialNumber: id.KeyID},
		NotBefore: epoch.Add(-time.Minute), NotAfter: epoch.Add(24 * time.Hour),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		URIs:        []*url.URL{id.URI()},
	}
}

// cluster is a root and an issuer below it.
type cluster struct{ root, issuer *signer }

func newCluster(t testing.TB, trustDomain string) *cluster {
	t.Helper()
	root := sign(t, caTemplate("root "+trustDomain, trustDomain), nil, nil)
	return &cluster{root, sign(t, caTemplate("issuer "+trustDomain, trustDomain), root, nil)}
}

func (c *cluster) leaf(t testing.TB, template *x509.Certificate) tls.Certificate {
	t.Helper()
	s := sign(t, template, c.issuer, nil)
	return tls.Certificate{Certificate: [][]byte{s.cert.Raw, c.issuer.cert.Raw, c.root.cert.Raw}, PrivateKey: s.key, Leaf: s.cert}
}

func instance(service, name string) ident.Identity {
	return ident.Identity{TrustDomain: domain, Namespace: "default", Service: service, Instance: name, KeyID: "key_of_" + service}
}

func runtimeID() ident.Identity {
	return ident.Identity{TrustDomain: domain, Namespace: ident.RuntimeNamespace, Service: ident.RuntimeService, Instance: "node_1"}
}
