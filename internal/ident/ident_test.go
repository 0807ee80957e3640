package ident_test

import (
	"crypto/x509"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
)

func TestFromCertificate(t *testing.T) {
	t.Parallel()
	want := instance("payments", "in_A-1.x")
	cert := newCluster(t, domain).leaf(t, leafTemplate(want)).Leaf
	got, err := ident.FromCertificate(cert)
	if err != nil {
		t.Fatal(err)
	}
	want.NotBefore, want.NotAfter = cert.NotBefore, cert.NotAfter
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if uri := got.String(); uri != "spiffe://"+domain+"/ns/default/svc/payments/i/in_A-1.x" {
		t.Errorf("URI %s", uri)
	}
	if got.IsRuntime() || !runtimeID().IsRuntime() {
		t.Error("IsRuntime is wrong")
	}
	life := got.NotAfter.Sub(got.NotBefore)
	if at := got.RenewAt().Sub(got.NotBefore); at != life*2/3 {
		t.Errorf("renewed %s into a life of %s", at, life)
	}
}

func TestParseURIRefusals(t *testing.T) {
	t.Parallel()
	good := "spiffe://td/ns/n/svc/s/i/x"
	if _, err := ident.ParseURI(good); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{
		"", "https://td/ns/n/svc/s/i/x", "SPIFFE://td/ns/n/svc/s/i/x", "spiffe://td", "spiffe://td/", "spiffe:///ns/n/svc/s/i/x",
		good + "/", good + "/y", good + "?q", good + "#f", "spiffe://u@td/ns/n/svc/s/i/x", "spiffe://td:1/ns/n/svc/s/i/x",
		"spiffe://TD/ns/n/svc/s/i/x", "spiffe://td/ns//svc/s/i/x", "spiffe://td/ns/N/svc/s/i/x", "spiffe://td/ns/n/svc/S/i/x",
		"spiffe://td/ns/n/svc/../i/x", "spiffe://td/ns/n/svc/s/i/.", "spiffe://td/ns/n/svc/s/i/x%2fy", "spiffe://td/ns/n/svc/s/i/x y",
		"spiffe://td/svc/s/ns/n/i/x", "spiffe://td/ns/n/svc/" + strings.Repeat("s", 129) + "/i/x",
	} {
		if id, err := ident.ParseURI(text); err == nil {
			t.Errorf("%q is taken as %+v", text, id)
		} else if errs.CodeOf(err) != errs.Unauthenticated {
			t.Errorf("%q: code %s", text, errs.CodeOf(err))
		}
	}
}

func TestFromCertificateRefusals(t *testing.T) {
	t.Parallel()
	c := newCluster(t, domain)
	two := leafTemplate(instance("a", "x"))
	two.URIs = append(two.URIs, instance("b", "y").URI())
	none := leafTemplate(instance("a", "x"))
	none.URIs = nil
	for name, test := range map[string]struct {
		cert *x509.Certificate
		want string
	}{
		"nil":    {nil, "no certificate"},
		"issuer": {c.issuer.cert, "authority"},
		"none":   {c.leaf(t, none).Leaf, "0 URI names"},
		"two":    {c.leaf(t, two).Leaf, "2 URI names"},
	} {
		if _, err := ident.FromCertificate(test.cert); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: error %v, want %q", name, err, test.want)
		}
	}
}

func TestNewRequestAndCertificate(t *testing.T) {
	t.Parallel()
	key, der, err := ident.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil || csr.CheckSignature() != nil {
		t.Fatalf("request: %v", err)
	}
	c := newCluster(t, domain)
	mine := sign(t, leafTemplate(instance("a", "x")), c.issuer, key)
	chain := [][]byte{mine.cert.Raw, c.issuer.cert.Raw}
	if cert, err := ident.Certificate(chain, key); err != nil || cert.Leaf == nil {
		t.Errorf("Certificate: %v", err)
	}
	other, _, err := ident.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range map[string]func() error{
		"other key": func() error { _, err := ident.Certificate(chain, other); return err },
		"empty":     func() error { _, err := ident.Certificate(nil, key); return err },
		"garbage":   func() error { _, err := ident.Certificate([][]byte{{1, 2}}, key); return err },
		"authority": func() error { _, err := ident.Certificate([][]byte{c.issuer.cert.Raw}, c.issuer.key); return err },
	} {
		if f() == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func FuzzFromCertificate(f *testing.F) {
	c := newCluster(f, domain)
	f.Add(c.leaf(f, leafTemplate(instance("a", "x"))).Certificate[0])
	f.Add(c.issuer.cert.Raw)
	f.Fuzz(func(t *testing.T, der []byte) {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return
		}
		id, err := ident.FromCertificate(cert)
		if err != nil {
			if errs.CodeOf(err) != errs.Unauthenticated {
				t.Fatalf("code %s: %v", errs.CodeOf(err), err)
			}
			return
		}
		if id.Check() != nil || id.String() != cert.URIs[0].String() {
			t.Fatalf("%+v from %s", id, cert.URIs[0])
		}
	})
}

func FuzzParseURI(f *testing.F) {
	f.Add("spiffe://td/ns/n/svc/s/i/x")
	f.Fuzz(func(t *testing.T, text string) {
		id, err := ident.ParseURI(text)
		if err != nil {
			return
		}
		if id.String() != text {
			t.Fatalf("%q has another spelling, %q", text, id)
		}
		if u, err := url.Parse(text); err != nil || u.String() != text {
			t.Fatalf("%q is no URL: %v", text, err)
		}
	})
}

func TestRenewAtOfAZeroIdentity(t *testing.T) {
	t.Parallel()
	if !(ident.Identity{}).RenewAt().Equal(time.Time{}) {
		t.Error("an identity without times has a moment to renew")
	}
}
