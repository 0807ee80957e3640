package ident

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
)

// linkProtocol is the ALPN name of the link protocol, whose dialers must show a
// certificate.
const linkProtocol = "telford/1"

// Expect says whom a dialer means to reach. Every field that is set must match; one
// at least must be set.
type Expect struct {
	Runtime   bool // a runtime, and nothing else
	Instance  string
	Service   string
	Namespace string
}

// ServerConfig returns the configuration of a listener for the protocols, most wanted
// first. A certificate is asked for; it is required with telford/1, and whoever shows
// one is judged by it: chain, time, one SPIFFE id, trust domain, revocation.
func (t *Trust) ServerConfig(protos ...string) *tls.Config {
	config := t.base(protos)
	config.ClientAuth = tls.RequestClientCert
	config.GetCertificate = t.serverCertificate
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		if len(cs.PeerCertificates) == 0 {
			if cs.NegotiatedProtocol == linkProtocol {
				return refuse("%s requires a client certificate, and none was shown", linkProtocol)
			}
			return nil
		}
		_, err := t.current.Load().verify(t.clock.Now(), cs.PeerCertificates, x509.ExtKeyUsageClientAuth)
		return err
	}
	return config
}

// HTTPConfig returns the configuration of a listener for browsers and other HTTP
// clients, which are not asked for certificates.
func (t *Trust) HTTPConfig(protos ...string) *tls.Config {
	config := t.base(protos)
	config.GetCertificate = t.serverCertificate
	return config
}

// ClientConfig returns the configuration of a dialer that means to reach exactly whom
// expect says. It shows the certificate in force, if there is one.
func (t *Trust) ClientConfig(expect Expect, protos ...string) *tls.Config {
	config := t.base(protos)
	// The names in certificates are SPIFFE ids, not hosts: VerifyConnection does all of
	// the verifying, and a handshake cannot succeed without it.
	config.InsecureSkipVerify = true
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		if cert := t.Certificate(); cert != nil {
			return cert, nil
		}
		return &tls.Certificate{}, nil
	}
	config.VerifyConnection = func(cs tls.ConnectionState) error {
		id, err := t.current.Load().verify(t.clock.Now(), cs.PeerCertificates, x509.ExtKeyUsageServerAuth)
		if err != nil {
			return err
		}
		return expect.check(id)
	}
	return config
}

// Peer returns who is at the other end of a handshaken connection of one of the
// configurations of t; false when it has shown no certificate.
func (t *Trust) Peer(cs tls.ConnectionState) (Identity, bool) {
	if !cs.HandshakeComplete || len(cs.PeerCertificates) == 0 {
		return Identity{}, false
	}
	id, err := FromCertificate(cs.PeerCertificates[0])
	return id, err == nil
}

func (t *Trust) base(protos []string) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: protos, SessionTicketsDisabled: true, Time: t.clock.Now,
	}
}

func (t *Trust) serverCertificate(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	if cert := t.Certificate(); cert != nil {
		return cert, nil
	}
	return nil, errs.New(errs.Unavailable, "this process has no certificate yet").Unstarted()
}

func (e Expect) check(id Identity) error {
	for _, part := range []struct{ what, want, got string }{
		{"instance", e.Instance, id.Instance}, {"service", e.Service, id.Service}, {"namespace", e.Namespace, id.Namespace},
	} {
		if part.want != "" && part.want != part.got {
			return refuse("expected %s %s, got %s of %s", part.what, part.want, part.got, id)
		}
	}
	if e.Runtime && !id.IsRuntime() {
		return refuse("expected a runtime, got %s", id)
	}
	if e == (Expect{}) {
		return refuse("nobody is expected, got %s: the dialer must say whom it means to reach", id)
	}
	return nil
}

// PinnedConfig returns the configuration of the first connection of a process that has
// nothing but its key: the runtime's chain must end in a root, sent along, whose public
// key is the one the key names. Since it is a public key that is pinned, any certificate
// of it will do, also one that is younger than the key. Cross-certificates on the way
// are allowed: by them a key that was printed before the root was replaced, however
// often, is good for the roots that came after.
func PinnedConfig(key Key, clk clock.Clock) *tls.Config {
	pin, keyID := key.RootSPKI, key.ID
	return &tls.Config{
		MinVersion: tls.VersionTLS13, SessionTicketsDisabled: true, Time: clk.Now,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection does all of the verifying, against the pinned root
		VerifyConnection: func(cs tls.ConnectionState) error {
			now := clk.Now()
			id, err := checkLeaf(now, cs.PeerCertificates)
			if err != nil {
				return err
			}
			roots := x509.NewCertPool()
			found := false
			for _, cert := range cs.PeerCertificates[1:] {
				if cert.IsCA && SPKI(cert) == pin {
					roots.AddCert(cert)
					found = true
				}
			}
			if !found {
				return refuse("%s does not belong to the cluster that made key %s: its root is another; "+
					"use a key of this cluster, or the address of the other", id, keyID)
			}
			if err := checkChain(now, id, cs.PeerCertificates, roots, x509.ExtKeyUsageServerAuth); err != nil {
				return err
			}
			return Expect{Runtime: true}.check(id)
		},
	}
}

// SPKI returns the SHA-256 of the SubjectPublicKeyInfo of a certificate.
func SPKI(cert *x509.Certificate) [32]byte { return sha256.Sum256(cert.RawSubjectPublicKeyInfo) }
