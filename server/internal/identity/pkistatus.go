package identity

import (
	"crypto/x509"
	"time"

	"telford.dev/telford/internal/ident"
)

// The roles of certificates.
const (
	RoleRoot   = "root"
	RoleIssuer = "issuer"
	RoleNode   = "node" // the runtime's own
)

// Certificate is one certificate of the cluster.
type Certificate struct {
	Role string
	// State is of roots: "active", "next", "retiring" or "former"; else "active".
	State     string
	Subject   string
	Serial    string // hexadecimal
	SPKI      [32]byte
	NotBefore time.Time
	NotAfter  time.Time
	DaysLeft  int // whole days until NotAfter; negative when it is over
}

// Former reports whether it is that of a root which is trusted no more.
func (c *Certificate) Former() bool { return c.State == rootFormer }

// PKIStatus is how the certificates of the cluster stand.
type PKIStatus struct {
	TrustDomain  string
	Certificates []Certificate // roots, oldest first; issuer; the node's own
	Phase        Phase
	Since        time.Time
	NextAt       time.Time // when the next phase begins by itself; zero when steady
	RotateAt     time.Time // when a rotation begins by itself
}

// PKI returns how the certificates stand.
func (a *Authority) PKI() PKIStatus {
	return a.ca.status(a.clock.Now(), a.trust.Certificate().Leaf)
}

func (c *ca) status(now time.Time, own *x509.Certificate) PKIStatus {
	h := c.current.Load()
	_, at := h.due(c.lives())
	out := PKIStatus{TrustDomain: c.domain, Phase: h.Phase, Since: h.Since, RotateAt: h.rotateAt()}
	if h.Phase != Steady {
		out.NextAt = at
	}
	add := func(role, state, subject string, cert *x509.Certificate) {
		out.Certificates = append(out.Certificates, describe(role, state, subject, cert, now))
	}
	for _, f := range h.Former {
		spki := ident.SPKI(f.anchor)
		if inForce := func() bool {
			for _, r := range h.Roots {
				if ident.SPKI(r.cert) == spki {
					return true
				}
			}
			return false
		}(); !inForce {
			add(RoleRoot, rootFormer, f.anchor.Subject.CommonName, f.anchor)
		}
	}
	for _, r := range h.Roots {
		add(RoleRoot, r.State, r.cert.Subject.CommonName, r.cert)
	}
	if issuer := c.issuer.Load(); issuer != nil {
		add(RoleIssuer, rootActive, issuer.cert.Subject.CommonName, issuer.cert)
	}
	if own != nil {
		name := own.Subject.CommonName
		if id, err := ident.FromCertificate(own); err == nil {
			name = id.String()
		}
		add(RoleNode, rootActive, name, own)
	}
	return out
}

func describe(role, state, subject string, cert *x509.Certificate, now time.Time) Certificate {
	return Certificate{
		Role: role, State: state, Subject: subject, Serial: cert.SerialNumber.Text(16), SPKI: ident.SPKI(cert),
		NotBefore: cert.NotBefore.UTC(), NotAfter: cert.NotAfter.UTC(), DaysLeft: daysLeft(cert.NotAfter, now),
	}
}

// daysLeft counts whole days; what is over counts below zero at once.
func daysLeft(end, now time.Time) int {
	const day = 24 * time.Hour
	left := end.Sub(now)
	if left < 0 {
		return int((left - day + 1) / day)
	}
	return int(left / day)
}
