package sdktest

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"slices"
	"strings"
	"testing"
	"time"

	"telford.dev/telford"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/telfordtest"
)

// found waits until a caller knows the callee, and returns what it knows.
func found(t *testing.T, caller *telford.Service) telford.InstanceInfo {
	t.Helper()
	must(t, caller.WaitReady(t.Context(), "echo"))
	return caller.ServiceMap()["echo"].Instances[0]
}

// intruder is a credential that is good for everything.
func (w *world) intruder(key string) credential {
	w.t.Helper()
	trust, err := certify(w.t, w.srv, key, "intruder", "in-intruder")
	must(w.t, err)
	return credential{key, trust.Certificate()}
}

// situation is what is wrong with somebody's identity.
type situation struct {
	who credential
	// cert are words one of which the refusal of the certificate has, key those of the key.
	cert, key []string
}

// Who has no good identity is refused on every way, and is told why.
func TestBadIdentities(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.target()
	honest := w.start(w.make("honest", telford.CallerOnly(), telford.Uses("echo")))
	callee := found(t, honest)
	good := w.intruder(w.srv.Key(t, "intruder"))
	unknown := []string{"unauthenticated", "Unauthenticated"}
	for name, s := range map[string]situation{
		"revoked": {w.revoked(t), []string{"revoked", "certificate"}, []string{"revoked"}},
		"foreign": {foreign(t), []string{"certificate", "trust domain"}, unknown},
		"forged":  {forged(t, good), []string{"certificate"}, unknown},
		"missing": {credential{"", &tls.Certificate{}}, []string{"certificate"}, unknown},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w.refused(t, s, callee)
		})
	}
	for path, call := range w.rawWays(t, good, callee) {
		if err := call.try(t); err != nil {
			t.Errorf("%s with a good identity: %v", path, err)
		}
	}
}

// The same for certificates and keys whose time is over, where others renew theirs.
func TestExpiredIdentities(t *testing.T) { //nolint:tparallel // its parts share what has expired
	t.Parallel()
	w := newWorld(t, telfordtest.LeafLife(2*time.Second))
	w.target()
	honest := w.start(w.make("honest", telford.CallerOnly(), telford.Uses("echo")))
	callee := found(t, honest)
	w.refused(t, situation{w.expired(t), []string{"expired", "certificate"}, []string{"expired"}}, callee)
	for path, call := range sdkWays(honest) {
		if err := call.try(t); err != nil {
			t.Errorf("%s of somebody else: %v", path, err)
		}
	}
}

// refused tries every way, each in a test of its own.
func (w *world) refused(t *testing.T, s situation, callee telford.InstanceInfo) {
	t.Helper()
	for path, call := range w.rawWays(t, s.who, callee) {
		t.Run(path, func(t *testing.T) {
			says := s.cert
			switch {
			case strings.HasPrefix(path, "HTTP"), strings.Contains(path, "with a key"):
				says = s.key
			case strings.HasPrefix(path, "gRPC through") && len(s.who.cert.Certificate) == 0:
				says = s.key // who shows no certificate is asked for a key
			default:
				// TLS refuses with an alert, which is lost when something was written meanwhile.
				says = append(says[:len(says):len(says)], "broken pipe", "connection reset", "EOF")
			}
			err := call.try(t)
			if err == nil {
				t.Fatal("it was served")
			}
			if !slices.ContainsFunc(says, func(word string) bool { return strings.Contains(err.Error(), word) }) {
				t.Errorf("refused with %v, want one of %q", err, says)
			}
		})
	}
	t.Run("SDK", func(t *testing.T) {
		if len(s.who.cert.Certificate) == 0 {
			return // there is no SDK without an identity
		}
		if err := w.startWith(t, s.who); err == nil {
			t.Error("it was started")
		}
	})
}

// startWith starts an SDK that has this certificate.
func (w *world) startWith(t *testing.T, who credential) error {
	t.Helper()
	var chain bytes.Buffer
	for _, der := range who.cert.Certificate {
		must(t, pem.Encode(&chain, &pem.Block{Type: "CERTIFICATE", Bytes: der}))
	}
	private, err := x509.MarshalPKCS8PrivateKey(who.cert.PrivateKey)
	must(t, err)
	var roots bytes.Buffer
	for _, root := range w.srv.Runtime().Authority().Trust().Roots() {
		must(t, pem.Encode(&roots, &pem.Block{Type: "CERTIFICATE", Bytes: root.Raw}))
	}
	s, err := telford.New("intruder", telford.WithServer(w.srv.Addr()), telford.CallerOnly(),
		telford.WithTLS(chain.Bytes(), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private}), roots.Bytes(), ""))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
	defer cancel()
	defer func() { _ = s.Stop(context.Background()) }() // it has not started
	return s.Start(ctx)
}

// revoked had a good identity until its key was revoked.
func (w *world) revoked(t *testing.T) credential {
	t.Helper()
	key := w.srv.Key(t, "intruder")
	who := w.intruder(key)
	k, err := ident.ParseKey(key)
	must(t, err)
	_, err = w.srv.Runtime().Authority().RevokeKey(t.Context(), k.ID, "test", "")
	must(t, err)
	return who
}

// expired had a good identity until its time was over, in a cluster whose certificates
// live for two seconds.
func (w *world) expired(t *testing.T) credential {
	t.Helper()
	_, key, err := w.srv.Runtime().Authority().CreateKey(t.Context(), identity.CreateKey{
		Service: "intruder", Kind: identity.KindService, TTL: time.Second, Author: "test",
	})
	must(t, err)
	who := w.intruder(w.srv.Key(t, "intruder")) // its key is good, so that it is the certificate that is refused
	who.key = key
	leaf, err := x509.ParseCertificate(who.cert.Certificate[0])
	must(t, err)
	late := time.NewTimer(time.Until(leaf.NotAfter) + 100*time.Millisecond)
	defer late.Stop()
	<-late.C
	return who
}

// foreign has a good identity, of another cluster.
func foreign(t *testing.T) credential {
	t.Helper()
	other := telfordtest.Start(t)
	key := other.Key(t, "intruder")
	trust, err := certify(t, other, key, "intruder", "in-intruder")
	must(t, err)
	return credential{key, trust.Certificate()}
}

// forged has a certificate that says all that a good one does, and comes with the
// certificates that a good one comes with, but is signed with a key of its own; and a
// service key with another secret.
func forged(t *testing.T, good credential) credential {
	t.Helper()
	key, err := ident.ParseKey(good.key)
	must(t, err)
	leaf, err := x509.ParseCertificate(good.cert.Certificate[0])
	must(t, err)
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	issuer := &x509.Certificate{RawSubject: leaf.RawIssuer, SubjectKeyId: leaf.AuthorityKeyId}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: leaf.SerialNumber, Subject: leaf.Subject, URIs: leaf.URIs, NotBefore: leaf.NotBefore, NotAfter: leaf.NotAfter,
		KeyUsage: leaf.KeyUsage, ExtKeyUsage: leaf.ExtKeyUsage, BasicConstraintsValid: true,
	}, issuer, &private.PublicKey, private)
	must(t, err)
	chain := append([][]byte{der}, good.cert.Certificate[1:]...)
	key.Secret[0] ^= 1
	return credential{key.String(), &tls.Certificate{Certificate: chain, PrivateKey: private}}
}

// denied reports whether a call was refused by policy or identity, and not for another
// reason.
func denied(err error) bool {
	return err != nil && (errs.CodeOf(err) == errs.PermissionDenied || strings.Contains(err.Error(), "PermissionDenied") ||
		strings.Contains(err.Error(), "permission_denied") || strings.Contains(err.Error(), "status 403"))
}
