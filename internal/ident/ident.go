// Package ident owns what both ends of a connection know about who is who: service
// keys, the SPIFFE ids in certificates, and the TLS configurations that let in exactly
// the peers they should. It issues nothing and stores nothing; the program's
// certificate authority does. It starts no goroutines: callbacks run on the goroutine
// of whoever caused them.
package ident

import (
	"crypto/x509"
	"net/url"
	"strings"
	"time"

	"telford.dev/telford/internal/errs"
)

// The identity that a runtime has. Nobody else can be issued it.
const (
	RuntimeNamespace = "telford"
	RuntimeService   = "telford"
)

// Identity is who a certificate says its holder is.
type Identity struct {
	TrustDomain string
	Namespace   string
	Service     string
	Instance    string
	// KeyID is the key by which the certificate was issued; "" for a runtime.
	KeyID     string
	NotBefore time.Time
	NotAfter  time.Time
}

// URI returns the SPIFFE id, spiffe://<trust domain>/ns/<namespace>/svc/<service>/i/<instance>.
func (id Identity) URI() *url.URL {
	return &url.URL{
		Scheme: "spiffe", Host: id.TrustDomain,
		Path: "/ns/" + id.Namespace + "/svc/" + id.Service + "/i/" + id.Instance,
	}
}

// String returns the SPIFFE id as text.
func (id Identity) String() string { return id.URI().String() }

// IsRuntime reports whether this is a runtime, and not an instance of a service.
func (id Identity) IsRuntime() bool {
	return id.Namespace == RuntimeNamespace && id.Service == RuntimeService
}

// RenewAt is the moment at which two thirds of the certificate's life are over.
func (id Identity) RenewAt() time.Time {
	return id.NotBefore.Add(id.NotAfter.Sub(id.NotBefore) * 2 / 3)
}

// QualifiedInstance returns "namespace/instance", by which revocations name an instance.
func (id Identity) QualifiedInstance() string { return id.Namespace + "/" + id.Instance }

// Check returns an error that names the first part that cannot be in a SPIFFE id.
func (id Identity) Check() error {
	if !plain(id.TrustDomain, 255, false) {
		return errs.New(errs.InvalidArgument, "trust domain %q: want 1 to 255 of a-z, 0-9, '.', '_', '-'", clip(id.TrustDomain))
	}
	if err := CheckNamespace(id.Namespace); err != nil {
		return err
	}
	if err := CheckService(id.Service); err != nil {
		return err
	}
	return CheckInstance(id.Instance)
}

// CheckService returns an InvalidArgument error unless name can name a service.
func CheckService(name string) error {
	if !plain(name, 128, false) {
		return errs.New(errs.InvalidArgument, "service name %q: want 1 to 128 of a-z, 0-9, '.', '_', '-'", clip(name))
	}
	return nil
}

// CheckNamespace returns an InvalidArgument error unless name can name a namespace.
func CheckNamespace(name string) error {
	if !plain(name, 64, false) {
		return errs.New(errs.InvalidArgument, "namespace %q: want 1 to 64 of a-z, 0-9, '.', '_', '-'", clip(name))
	}
	return nil
}

// CheckInstance returns an InvalidArgument error unless name can be an instance id.
func CheckInstance(name string) error {
	if !plain(name, 128, true) {
		return errs.New(errs.InvalidArgument, "instance id %q: want 1 to 128 of a-z, A-Z, 0-9, '.', '_', '-'", clip(name))
	}
	return nil
}

// FromCertificate reads the identity in a certificate. It does not verify the
// certificate. The error says which rule the certificate breaks.
func FromCertificate(cert *x509.Certificate) (Identity, error) {
	if cert == nil {
		return Identity{}, errs.New(errs.Unauthenticated, "no certificate")
	}
	if cert.IsCA {
		return Identity{}, errs.New(errs.Unauthenticated, "a certificate authority's certificate names no instance")
	}
	if len(cert.URIs) != 1 || cert.URIs[0] == nil {
		return Identity{}, errs.New(errs.Unauthenticated, "the certificate has %d URI names, want one SPIFFE id", len(cert.URIs))
	}
	text := cert.URIs[0].String()
	id, err := ParseURI(text)
	if err != nil {
		return Identity{}, err
	}
	id.KeyID = cert.Subject.SerialNumber
	id.NotBefore, id.NotAfter = cert.NotBefore.UTC(), cert.NotAfter.UTC()
	return id, nil
}

// ParseURI reads a SPIFFE id of Telford's shape in its only spelling.
func ParseURI(text string) (Identity, error) {
	bad := func(why string) (Identity, error) {
		return Identity{}, errs.New(errs.Unauthenticated,
			"%q is not spiffe://<trust domain>/ns/<namespace>/svc/<service>/i/<instance>: %s", clip(text), why)
	}
	rest, ok := strings.CutPrefix(text, "spiffe://")
	if !ok {
		return bad("another scheme")
	}
	parts := strings.Split(rest, "/")
	if len(parts) != 7 || parts[1] != "ns" || parts[3] != "svc" || parts[5] != "i" {
		return bad("another path")
	}
	id := Identity{TrustDomain: parts[0], Namespace: parts[2], Service: parts[4], Instance: parts[6]}
	if err := id.Check(); err != nil {
		return bad(errs.From(err).Message)
	}
	return id, nil
}

// plain reports whether s has 1 to limit of the characters that a SPIFFE path may
// have without escaping, and is neither of the two path segments with a meaning.
func plain(s string, limit int, upper bool) bool {
	if s == "" || len(s) > limit || s == "." || s == ".." {
		return false
	}
	for i := range len(s) {
		switch c := s[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9', c == '.', c == '_', c == '-':
		case upper && 'A' <= c && c <= 'Z':
		default:
			return false
		}
	}
	return true
}

// clip keeps a value from outside short enough to be quoted in an error.
func clip(s string) string {
	const most = 160
	if len(s) > most {
		return s[:most] + "..."
	}
	return s
}
