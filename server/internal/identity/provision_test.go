package identity_test

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"net/url"
	"strings"
	"testing"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/id"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/server/internal/identity"
)

func request(t testing.TB, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{
		Subject:  pkix.Name{CommonName: "telford", SerialNumber: "key_of_somebody"},
		URIs:     []*url.URL{{Scheme: "spiffe", Host: "evil", Path: "/ns/telford/svc/telford/i/root"}},
		DNSNames: []string{"evil.example"},
	}, key)
	if err != nil {
		t.Fatal(err)
	}
	return der
}

// ecdsaKey makes a key pair; a nil curve is P-256.
func ecdsaKey(t testing.TB, curve elliptic.Curve) *ecdsa.PrivateKey {
	t.Helper()
	if curve == nil {
		curve = elliptic.P256()
	}
	k, err := ecdsa.GenerateKey(curve, rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func TestProvision(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, f *fixture) {
		a := f.open(t)
		k := serviceKey(t, a, "payments")
		_, edKey, err := ed25519.GenerateKey(rand.Reader)
		if err != nil {
			t.Fatal(err)
		}
		for name, signer := range map[string]crypto.Signer{
			"P-256": ecdsaKey(t, nil), "P-384": ecdsaKey(t, elliptic.P384()), "Ed25519": edKey,
		} {
			issued, err := a.Provision(context.Background(), identity.ProvisionRequest{
				KeyID: k.ID, Secret: k.Secret[:], CSR: request(t, signer), Service: "payments", Instance: "in_" + strings.ToLower(name[:1]),
			})
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			cert, err := ident.Certificate(issued.Chain, signer)
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			leaf := cert.Leaf
			want := "spiffe://" + a.TrustDomain() + "/ns/default/svc/payments/i/in_" + strings.ToLower(name[:1])
			if issued.Identity.String() != want || len(leaf.URIs) != 1 || leaf.URIs[0].String() != want {
				t.Errorf("%s: issued to %s, certificate says %v", name, issued.Identity, leaf.URIs)
			}
			if issued.Identity.KeyID != k.ID || leaf.Subject.CommonName != "" || len(leaf.DNSNames)+len(leaf.IPAddresses) > 0 || leaf.IsCA {
				t.Errorf("%s: names of the request are in the certificate: %+v", name, leaf.Subject)
			}
			if life := leaf.NotAfter.Sub(epoch); life != 24*time.Hour {
				t.Errorf("%s: lives %s", name, life)
			}
			if len(issued.Chain) != 2 || len(issued.Roots) != 1 {
				t.Errorf("%s: %d certificates, %d roots", name, len(issued.Chain), len(issued.Roots))
			}
		}
	})
}

func TestProvisionDefaults(t *testing.T) {
	t.Parallel()
	a := newFixture(newMemory()).open(t)
	k := serviceKey(t, a, "payments")
	issued, err := a.Provision(context.Background(), identity.ProvisionRequest{
		KeyID: k.ID, Secret: k.Secret[:], CSR: request(t, ecdsaKey(t, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	if issued.Identity.Service != "payments" || !id.Valid("in", issued.Identity.Instance) {
		t.Errorf("issued to %s", issued.Identity)
	}
}

func TestProvisionRefusals(t *testing.T) {
	t.Parallel()
	f := newFixture(newMemory())
	ctx, a := context.Background(), f.open(t, dev, func(cfg *identity.Config) {
		cfg.Holder = func(namespace, instance string) (string, bool) { return "inventory", instance == "in_registered" }
	})
	k, short := serviceKey(t, a, "payments"), key(t, a, identity.CreateKey{Service: "payments", TTL: time.Minute})
	gone, api := serviceKey(t, a, "payments"), key(t, a, identity.CreateKey{Kind: identity.KindAPI, Name: "m"})
	if _, err := a.RevokeKey(ctx, gone.ID, "ada", ""); err != nil {
		t.Fatal(err)
	}
	if err := a.RevokeInstance(ctx, "default", "in_revoked", "ada", ""); err != nil {
		t.Fatal(err)
	}
	provision(t, a, f.clk, serviceKey(t, a, "orders"), "orders", "in_orders")
	f.clk.Advance(time.Minute)

	good := request(t, ecdsaKey(t, nil))
	rsaKey, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	tampered := append([]byte(nil), good...)
	tampered[len(tampered)-3] ^= 1
	renamed := []byte(strings.Replace(string(good), "evil.example", "good.example", 1))
	wrong := k
	wrong.Secret[0] ^= 1
	for name, test := range map[string]struct {
		key               ident.Key
		service, instance string
		csr               []byte
		code              errs.Code
		want              string
	}{
		"wrong secret":       {wrong, "payments", "in_1", good, errs.Unauthenticated, "its secret is another"},
		"unknown key":        {ident.Key{ID: "key_x"}, "payments", "in_1", good, errs.Unauthenticated, `key "key_x" is not known`},
		"no key":             {ident.Key{}, "payments", "in_1", good, errs.Unauthenticated, `key "" is not known`},
		"expired key":        {short, "payments", "in_1", good, errs.Unauthenticated, "expired at 2031-05-01T12:01:00Z"},
		"revoked key":        {gone, "payments", "in_1", good, errs.Unauthenticated, "was revoked"},
		"key of another":     {k, "orders", "in_1", good, errs.PermissionDenied, `is the key of service "payments", not of "orders"`},
		"api key":            {api, "payments", "in_1", good, errs.PermissionDenied, "an api key"},
		"the runtime":        {*a.DevKey(), "telford", "in_1", good, errs.InvalidArgument, "reserved"},
		"dev, no service":    {*a.DevKey(), "", "in_1", good, errs.InvalidArgument, "say which"},
		"dev, bad service":   {*a.DevKey(), "A/B", "in_1", good, errs.InvalidArgument, `"A/B"`},
		"bad instance":       {k, "payments", "a/b", good, errs.InvalidArgument, `"a/b"`},
		"long instance":      {k, "payments", strings.Repeat("i", 129), good, errs.InvalidArgument, "1 to 128"},
		"revoked instance":   {k, "payments", "in_revoked", good, errs.PermissionDenied, "instance default/in_revoked is revoked; its id is free again at 2031-05-02T13:00:00Z"},
		"another's instance": {k, "payments", "in_orders", good, errs.AlreadyExists, `"in_orders" is that of a live instance of service "orders"`},
		"registered":         {k, "payments", "in_registered", good, errs.AlreadyExists, `service "inventory"`},
		"no request":         {k, "payments", "in_1", nil, errs.InvalidArgument, "empty"},
		"garbage":            {k, "payments", "in_1", []byte("-----BEGIN CERTIFICATE REQUEST-----"), errs.InvalidArgument, "not PKCS#10 in DER"},
		"huge":               {k, "payments", "in_1", make([]byte, 16<<10+1), errs.InvalidArgument, "16385 bytes"},
		"with a tail":        {k, "payments", "in_1", append(append([]byte(nil), good...), 0), errs.InvalidArgument, "not PKCS#10"},
		"tampered signature": {k, "payments", "in_1", tampered, errs.InvalidArgument, "signature is wrong"},
		"tampered names":     {k, "payments", "in_1", renamed, errs.InvalidArgument, "signature is wrong"},
		"RSA":                {k, "payments", "in_1", request(t, rsaKey), errs.InvalidArgument, "a RSA key; want"},
		"P-521":              {k, "payments", "in_1", request(t, ecdsaKey(t, elliptic.P521())), errs.InvalidArgument, "curve P-521"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			issued, err := a.Provision(ctx, identity.ProvisionRequest{
				KeyID: test.key.ID, Secret: test.key.Secret[:], CSR: test.csr, Service: test.service, Instance: test.instance,
			})
			if issued != nil {
				t.Errorf("issued %s", issued.Identity)
			}
			wantError(t, err, test.code, test.want)
			if err != nil && strings.Contains(err.Error(), test.key.SecretText()[:16]) {
				t.Errorf("the error quotes the secret: %v", err)
			}
		})
	}
}

// TestInstanceIDs: an id stays with its service while a certificate for it lives.
func TestInstanceIDs(t *testing.T) {
	t.Parallel()
	f := newFixture(newMemory())
	a := f.open(t, leafLife(time.Hour))
	orders, payments := serviceKey(t, a, "orders"), serviceKey(t, a, "payments")
	provision(t, a, f.clk, orders, "orders", "in_1")
	provision(t, a, f.clk, orders, "orders", "in_1") // a restarted process
	take := func() error {
		_, err := a.Provision(context.Background(), identity.ProvisionRequest{
			KeyID: payments.ID, Secret: payments.Secret[:], CSR: request(t, ecdsaKey(t, nil)), Instance: "in_1",
		})
		return err
	}
	wantError(t, take(), errs.AlreadyExists)
	f.clk.Advance(time.Hour)
	wantError(t, take(), errs.AlreadyExists)
	f.clk.Advance(time.Second)
	if err := take(); err != nil {
		t.Errorf("after the last certificate: %v", err)
	}
	held := true
	a.SetHolder(func(string, string) (string, bool) { return "orders", held })
	f.clk.Advance(2 * time.Hour)
	wantError(t, take(), errs.AlreadyExists)
	held = false
	if err := take(); err != nil {
		t.Error(err)
	}
}

func TestRenewRefusals(t *testing.T) {
	t.Parallel()
	f := newFixture(newMemory())
	ctx, a := context.Background(), f.open(t, dev)
	k := serviceKey(t, a, "payments")
	p := provision(t, a, f.clk, k, "payments", "in_1")
	devP := provision(t, a, f.clk, *a.DevKey(), "anything", "in_2")
	if err := p.renew(t, a); err != nil {
		t.Fatal(err)
	}
	if err := devP.renew(t, a); err != nil {
		t.Fatal(err)
	}
	wantError(t, devP.renew(t, f.open(t)), errs.PermissionDenied, "not in dev mode")
	csr := request(t, ecdsaKey(t, nil))
	for name, test := range map[string]struct {
		change func(*ident.Identity)
		csr    []byte
		code   errs.Code
		want   string
	}{
		"foreign":         {func(id *ident.Identity) { id.TrustDomain = "elsewhere" }, csr, errs.Unauthenticated, "another trust domain"},
		"the runtime":     {func(id *ident.Identity) { *id = a.Trust().Identity() }, csr, errs.PermissionDenied, "not issued by a service key"},
		"unknown key":     {func(id *ident.Identity) { id.KeyID = "key_x" }, csr, errs.Unauthenticated, "key key_x, which is not known"},
		"another service": {func(id *ident.Identity) { id.Service = "orders" }, csr, errs.PermissionDenied, "is not what key"},
		"other namespace": {func(id *ident.Identity) { id.Namespace = "acme" }, csr, errs.PermissionDenied, "is not what key"},
		"expired":         {func(id *ident.Identity) { id.NotAfter = epoch.Add(-time.Second) }, csr, errs.Unauthenticated, "provision again"},
		"bad request":     {func(*ident.Identity) {}, []byte{1}, errs.InvalidArgument, "not PKCS#10"},
	} {
		id := p.trust.Identity()
		test.change(&id)
		issued, err := a.Renew(ctx, id, test.csr)
		if issued != nil {
			t.Errorf("%s: issued", name)
		}
		wantError(t, err, test.code, test.want)
	}
	if err := a.RevokeInstance(ctx, "default", "in_1", "ada", "odd"); err != nil {
		t.Fatal(err)
	}
	wantError(t, p.renew(t, a), errs.PermissionDenied, "instance default/in_1 is revoked")
	q := provision(t, a, f.clk, k, "payments", "in_3")
	if _, err := a.RevokeKey(ctx, k.ID, "ada", "leaked"); err != nil {
		t.Fatal(err)
	}
	wantError(t, q.renew(t, a), errs.Unauthenticated, "was revoked")
}

func TestRenewIsLimited(t *testing.T) {
	t.Parallel()
	f := newFixture(newMemory())
	a := f.open(t)
	k := serviceKey(t, a, "payments")
	p, other := provision(t, a, f.clk, k, "payments", "in_1"), provision(t, a, f.clk, k, "payments", "in_2")
	renewed := 0
	for range 100 {
		if p.renew(t, a) == nil {
			renewed++
		}
	}
	if renewed != 10 {
		t.Errorf("renewed %d times in a row", renewed)
	}
	err := p.renew(t, a)
	wantError(t, err, errs.ResourceExhausted, "renews too often")
	wait := errs.From(err).RetryAfter
	if wait <= 0 || wait > time.Hour {
		t.Fatalf("come back after %s", wait)
	}
	if err := other.renew(t, a); err != nil {
		t.Errorf("another instance pays for it: %v", err)
	}
	f.clk.Advance(wait)
	if err := p.renew(t, a); err != nil {
		t.Errorf("after the wait: %v", err)
	}
}

func TestALeafEndsWithItsKey(t *testing.T) {
	t.Parallel()
	f := newFixture(newMemory())
	a := f.open(t)
	p := provision(t, a, f.clk, key(t, a, identity.CreateKey{Service: "payments", TTL: time.Hour}), "payments", "in_1")
	if end := p.trust.Identity().NotAfter; !end.Equal(epoch.Add(time.Hour)) {
		t.Errorf("ends at %s", end)
	}
}

func FuzzCSR(f *testing.F) {
	fix := newFixture(newMemory())
	a := fix.open(f)
	k := serviceKey(f, a, "payments")
	good := request(f, ecdsaKey(f, nil))
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add(request(f, ecdsaKey(f, elliptic.P224())))
	f.Fuzz(func(t *testing.T, der []byte) {
		issued, err := a.Provision(context.Background(), identity.ProvisionRequest{KeyID: k.ID, Secret: k.Secret[:], CSR: der, Instance: "in_1"})
		if err != nil {
			wantError(t, err, errs.InvalidArgument, "certificate request")
			return
		}
		if issued.Identity.Service != "payments" || issued.Identity.Instance != "in_1" || issued.Identity.KeyID != k.ID {
			t.Fatalf("the request decided who it is for: %+v", issued.Identity)
		}
	})
}
