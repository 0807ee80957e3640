package ident_test

import (
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
)

// meet connects the two configurations over loopback. The server speaks first, so that
// the client learns whether it was accepted. Each end answers with its state and error.
func meet(t testing.TB, server, client *tls.Config) (serverState, clientState tls.ConnectionState, serverErr, clientErr error) {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = listener.Close() }()
	var wg sync.WaitGroup
	wg.Go(func() {
		nc, err := listener.Accept()
		if err != nil {
			serverErr = err
			return
		}
		defer func() { _ = nc.Close() }()
		_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
		conn := tls.Server(nc, server)
		if serverErr = conn.Handshake(); serverErr == nil {
			serverState = conn.ConnectionState()
			_, serverErr = conn.Write([]byte("a"))
			_, _ = io.Copy(io.Discard, conn)
		}
	})
	nc, err := net.Dial("tcp", listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	conn := tls.Client(nc, client)
	if clientErr = conn.Handshake(); clientErr == nil {
		clientState = conn.ConnectionState()
		_, clientErr = io.ReadFull(conn, make([]byte, 1))
	}
	_ = nc.Close()
	wg.Wait()
	return serverState, clientState, serverErr, clientErr
}

func trust(t testing.TB, clk clock.Clock, c *cluster, cert *tls.Certificate) *ident.Trust {
	t.Helper()
	tr := ident.NewTrust(clk)
	tr.SetRoots([]*x509.Certificate{c.root.cert, nil})
	if cert != nil {
		if err := tr.SetCertificate(*cert); err != nil {
			t.Fatal(err)
		}
	}
	return tr
}

func TestHandshake(t *testing.T) {
	t.Parallel()
	for _, proto := range []string{"telford/1", "h2"} {
		t.Run(strings.ReplaceAll(proto, "/", ""), func(t *testing.T) {
			t.Parallel()
			c, clk := newCluster(t, domain), clock.NewManual(epoch)
			callee, caller := c.leaf(t, leafTemplate(instance("payments", "in_1"))), c.leaf(t, leafTemplate(instance("orders", "in_2")))
			server, client := trust(t, clk, c, &callee), trust(t, clk, c, &caller)
			ss, cs, serverErr, clientErr := meet(t, server.ServerConfig("telford/1", "h2"),
				client.ClientConfig(ident.Expect{Instance: "in_1", Service: "payments", Namespace: "default"}, proto))
			if serverErr != nil || clientErr != nil {
				t.Fatalf("server: %v, client: %v", serverErr, clientErr)
			}
			if ss.NegotiatedProtocol != proto || ss.Version != tls.VersionTLS13 {
				t.Errorf("agreed on %q, version %x", ss.NegotiatedProtocol, ss.Version)
			}
			seen, ok := server.Peer(ss)
			if diff := cmp.Diff(client.Identity(), seen); !ok || diff != "" {
				t.Errorf("the callee sees another caller: %s", diff)
			}
			seen, ok = client.Peer(cs)
			if diff := cmp.Diff(server.Identity(), seen); !ok || diff != "" {
				t.Errorf("the caller sees another callee: %s", diff)
			}
		})
	}
}

// TestServerRefuses gives a server every kind of client that it must not let in.
func TestServerRefuses(t *testing.T) {
	t.Parallel()
	c, foreign := newCluster(t, domain), newCluster(t, domain)
	elsewhere := newCluster(t, "fedcba987654.telford")
	good := instance("orders", "in_2")
	tests := map[string]struct {
		cert  func(t *testing.T) tls.Certificate
		now   time.Time
		setup func(server *ident.Trust)
		code  errs.Code
		want  string
	}{
		"no certificate": {
			cert: func(*testing.T) tls.Certificate { return tls.Certificate{} },
			want: "telford/1 requires a client certificate",
		},
		"expired": {now: epoch.Add(24*time.Hour + time.Second), want: "expired at 2031-05-02T12:00:00Z; the time here is 2031-05-02T12:00:01Z"},
		"clock behind": {
			now: epoch.Add(-2 * time.Minute), want: "not valid before 2031-05-01T11:59:00Z; the time here is 2031-05-01T11:58:00Z",
		},
		"other root of the same name": {
			cert: func(t *testing.T) tls.Certificate { return foreign.leaf(t, leafTemplate(good)) },
			want: "not issued by a root that is trusted here",
		},
		"other trust domain": {
			cert: func(t *testing.T) tls.Certificate {
				id := good
				id.TrustDomain = "fedcba987654.telford"
				return elsewhere.leaf(t, leafTemplate(id))
			},
			want: "another trust domain; ours is " + domain,
		},
		"other trust domain, our root": {
			cert: func(t *testing.T) tls.Certificate {
				id := good
				id.TrustDomain = "fedcba987654.telford"
				return c.leaf(t, leafTemplate(id))
			},
			want: "another trust domain",
		},
		"tampered": {
			cert: func(t *testing.T) tls.Certificate {
				cert := c.leaf(t, leafTemplate(good))
				der := append([]byte(nil), cert.Certificate[0]...)
				at := strings.Index(string(der), "orders")
				copy(der[at:], "orderz")
				cert.Certificate[0], cert.Leaf = der, nil
				return cert
			},
			want: "in_2",
		},
		"chain without its issuer": {
			cert: func(t *testing.T) tls.Certificate {
				cert := c.leaf(t, leafTemplate(good))
				cert.Certificate = cert.Certificate[:1]
				return cert
			},
			want: "not issued by a root",
		},
		"expired issuer": {
			cert: func(t *testing.T) tls.Certificate {
				old := caTemplate("old issuer", domain)
				old.NotAfter = epoch.Add(-time.Minute)
				issuer := sign(t, old, c.root, nil)
				s := sign(t, leafTemplate(good), issuer, nil)
				return tls.Certificate{Certificate: [][]byte{s.cert.Raw, issuer.cert.Raw}, PrivateKey: s.key}
			},
			want: "has an issuer that is valid from",
		},
		"server-only certificate": {
			cert: func(t *testing.T) tls.Certificate {
				template := leafTemplate(good)
				template.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth}
				return c.leaf(t, template)
			},
			want: "incompatible key usage",
		},
		"an issuer's certificate": {
			cert: func(*testing.T) tls.Certificate {
				return tls.Certificate{Certificate: [][]byte{c.issuer.cert.Raw}, PrivateKey: c.issuer.key}
			},
			want: "names no instance",
		},
		"two identities": {
			cert: func(t *testing.T) tls.Certificate {
				template := leafTemplate(good)
				template.URIs = append(template.URIs, instance("payments", "in_1").URI())
				return c.leaf(t, template)
			},
			want: "2 URI names",
		},
		"a leaf that signs": {
			cert: func(t *testing.T) tls.Certificate {
				honest := c.leaf(t, leafTemplate(good))
				s := sign(t, leafTemplate(instance("payments", "in_9")), &signer{honest.Leaf, honest.PrivateKey.(*ecdsa.PrivateKey)}, nil)
				return tls.Certificate{Certificate: [][]byte{s.cert.Raw, honest.Certificate[0], c.issuer.cert.Raw}, PrivateKey: s.key}
			},
			want: "in_9",
		},
		"too many certificates": {
			cert: func(t *testing.T) tls.Certificate {
				cert := c.leaf(t, leafTemplate(good))
				for range 30 {
					cert.Certificate = append(cert.Certificate, c.root.cert.Raw)
				}
				return cert
			},
			want: "33 certificates",
		},
		"revoked key": {
			setup: func(s *ident.Trust) { s.Revoke(false, []string{good.KeyID}, nil) }, code: errs.PermissionDenied,
			want: "its key key_of_orders is revoked",
		},
		"revoked instance": {
			setup: func(s *ident.Trust) { s.Revoke(true, nil, []string{"default/in_2"}) }, code: errs.PermissionDenied,
			want: "the instance is revoked",
		},
		"no roots yet": {
			setup: func(s *ident.Trust) { s.SetRoots(nil) }, want: "no root certificate is known",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if test.now.IsZero() {
				test.now = epoch
			}
			if test.code == "" {
				test.code = errs.Unauthenticated
			}
			callee, caller := c.leaf(t, leafTemplate(instance("payments", "in_1"))), c.leaf(t, leafTemplate(good))
			if test.cert != nil {
				caller = test.cert(t)
			}
			server := trust(t, clock.NewManual(test.now), c, &callee)
			if test.setup != nil {
				test.setup(server)
			}
			client := &tls.Config{
				InsecureSkipVerify: true, NextProtos: []string{"telford/1"}, MinVersion: tls.VersionTLS13,
				GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &caller, nil },
			}
			_, _, serverErr, clientErr := meet(t, server.ServerConfig("telford/1", "h2"), client)
			checkRefusal(t, serverErr, test.code, test.want)
			if clientErr == nil {
				t.Error("the client believes it was let in")
			}
		})
	}
}

func checkRefusal(t *testing.T, err error, code errs.Code, want string) {
	t.Helper()
	var e *errs.Error
	if !errors.As(err, &e) {
		t.Fatalf("error %v, want one of the model", err)
	}
	if e.Code != code || !strings.Contains(e.Message, want) {
		t.Errorf("refused with %q, want code %s and %q", e, code, want)
	}
	if !e.NotStarted {
		t.Errorf("%q does not say that nothing was started", e)
	}
}

// TestClientRefuses gives a dialer every kind of server that is not whom it means.
func TestClientRefuses(t *testing.T) {
	t.Parallel()
	c, foreign := newCluster(t, domain), newCluster(t, domain)
	callee := instance("payments", "in_1")
	exact := ident.Expect{Instance: "in_1", Service: "payments", Namespace: "default"}
	tests := map[string]struct {
		server ident.Identity
		by     *cluster
		expect ident.Expect
		now    time.Time
		setup  func(client *ident.Trust)
		code   errs.Code
		want   string
	}{
		"another instance": {expect: ident.Expect{Instance: "in_7"}, want: "expected instance in_7, got in_1 of spiffe://" + domain},
		"another service":  {expect: ident.Expect{Instance: "in_1", Service: "orders"}, want: "expected service orders, got payments"},
		"another namespace": {
			expect: ident.Expect{Instance: "in_1", Service: "payments", Namespace: "acme"}, want: "expected namespace acme, got default",
		},
		"no runtime":     {expect: ident.Expect{Runtime: true}, want: "expected a runtime"},
		"nobody meant":   {expect: ident.Expect{}, want: "nobody is expected"},
		"foreign root":   {by: foreign, expect: exact, want: "not issued by a root"},
		"expired":        {expect: exact, now: epoch.Add(25 * time.Hour), want: "expired at"},
		"not yet valid":  {expect: exact, now: epoch.Add(-59 * time.Minute), want: "not valid before"},
		"revoked key":    {expect: exact, setup: func(c *ident.Trust) { c.Revoke(false, []string{callee.KeyID}, nil) }, code: errs.PermissionDenied, want: "key_of_payments is revoked"},
		"revoked callee": {expect: exact, setup: func(c *ident.Trust) { c.Revoke(false, nil, []string{"default/in_1"}) }, code: errs.PermissionDenied, want: "instance is revoked"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if test.by == nil {
				test.by = c
			}
			if test.now.IsZero() {
				test.now = epoch
			}
			if test.code == "" {
				test.code = errs.Unauthenticated
			}
			cert := test.by.leaf(t, leafTemplate(callee))
			server := trust(t, clock.NewManual(epoch), test.by, &cert)
			own := c.leaf(t, leafTemplate(instance("orders", "in_2")))
			client := trust(t, clock.NewManual(test.now), c, &own)
			if test.setup != nil {
				test.setup(client)
			}
			_, _, _, clientErr := meet(t, server.ServerConfig("telford/1", "h2"), client.ClientConfig(test.expect, "telford/1"))
			checkRefusal(t, clientErr, test.code, test.want)
		})
	}
}

func TestAtItsLastSecondACertificateIsGood(t *testing.T) {
	t.Parallel()
	c, clk := newCluster(t, domain), clock.NewManual(epoch)
	callee, caller := c.leaf(t, leafTemplate(instance("payments", "in_1"))), c.leaf(t, leafTemplate(instance("orders", "in_2")))
	server, client := trust(t, clk, c, &callee), trust(t, clk, c, &caller)
	dial := func() error {
		_, _, serverErr, clientErr := meet(t, server.ServerConfig("telford/1"), client.ClientConfig(ident.Expect{Instance: "in_1"}, "telford/1"))
		return errors.Join(serverErr, clientErr)
	}
	clk.Set(callee.Leaf.NotAfter)
	if err := dial(); err != nil {
		t.Errorf("at NotAfter: %v", err)
	}
	clk.Advance(time.Nanosecond)
	if err := dial(); err == nil {
		t.Error("after NotAfter: no error")
	}
}

func TestGRPCClientsNeedNoCertificate(t *testing.T) {
	t.Parallel()
	c, clk := newCluster(t, domain), clock.NewManual(epoch)
	cert := c.leaf(t, leafTemplate(runtimeID()))
	server := trust(t, clk, c, &cert)
	for name, config := range map[string]*tls.Config{
		"h2":      server.ServerConfig("telford/1", "h2"),
		"no ALPN": server.ServerConfig("telford/1", "h2"),
		"HTTP":    server.HTTPConfig("h2", "http/1.1"),
	} {
		client := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}}
		if name == "no ALPN" {
			client.NextProtos = nil
		}
		if name == "HTTP" {
			client.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				t.Error("a browser is asked for a certificate")
				return &tls.Certificate{}, nil
			}
		}
		ss, _, serverErr, clientErr := meet(t, config, client)
		if serverErr != nil || clientErr != nil {
			t.Errorf("%s: server %v, client %v", name, serverErr, clientErr)
		}
		if _, ok := server.Peer(ss); ok {
			t.Errorf("%s: a client without a certificate has an identity", name)
		}
	}
}

func TestOldTLSAndTicketsAreOff(t *testing.T) {
	t.Parallel()
	c, clk := newCluster(t, domain), clock.NewManual(epoch)
	cert := c.leaf(t, leafTemplate(runtimeID()))
	server := trust(t, clk, c, &cert).ServerConfig("h2")
	old := &tls.Config{InsecureSkipVerify: true, MinVersion: tls.VersionTLS12, MaxVersion: tls.VersionTLS12}
	if _, _, serverErr, _ := meet(t, server, old); serverErr == nil {
		t.Error("TLS 1.2 is let in")
	}
	client := &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2"}, ClientSessionCache: tls.NewLRUClientSessionCache(4), ServerName: "x"}
	for i := range 2 {
		_, cs, serverErr, clientErr := meet(t, server, client)
		if serverErr != nil || clientErr != nil {
			t.Fatal(serverErr, clientErr)
		}
		if cs.DidResume {
			t.Errorf("handshake %d was a resumption, which checks no certificate", i)
		}
	}
}

func TestACertificateIsReplacedUnderTraffic(t *testing.T) {
	t.Parallel()
	c, clk := newCluster(t, domain), clock.NewManual(epoch)
	callee, caller := c.leaf(t, leafTemplate(instance("payments", "in_1"))), c.leaf(t, leafTemplate(instance("orders", "in_2")))
	server, client := trust(t, clk, c, &callee), trust(t, clk, c, &caller)
	serverConfig, clientConfig := server.ServerConfig("telford/1"), client.ClientConfig(ident.Expect{Instance: "in_1"}, "telford/1")
	var wg sync.WaitGroup
	done := make(chan struct{})
	wg.Go(func() {
		for {
			select {
			case <-done:
				return
			default:
			}
			for tr, id := range map[*ident.Trust]ident.Identity{server: instance("payments", "in_1"), client: instance("orders", "in_2")} {
				if err := tr.SetCertificate(c.leaf(t, leafTemplate(id))); err != nil {
					t.Error(err)
					return
				}
				tr.SetRoots(tr.Roots())
				tr.Revoke(true, []string{"key_other"}, nil)
			}
		}
	})
	for range 30 {
		if _, _, serverErr, clientErr := meet(t, serverConfig, clientConfig); serverErr != nil || clientErr != nil {
			t.Errorf("server %v, client %v", serverErr, clientErr)
		}
	}
	before := server.Certificate()
	close(done)
	wg.Wait()
	fresh := c.leaf(t, leafTemplate(instance("payments", "in_1")))
	if err := server.SetCertificate(fresh); err != nil || before == nil {
		t.Fatal(err)
	}
	_, cs, _, _ := meet(t, serverConfig, clientConfig)
	if !cs.PeerCertificates[0].Equal(fresh.Leaf) {
		t.Error("the configuration still shows an old certificate")
	}
}

// TestCrossCertificates lets a process that knows only an old root accept the issuer of
// the newest, by the certificates that the roots gave each other.
func TestCrossCertificates(t *testing.T) {
	t.Parallel()
	clk := clock.NewManual(epoch)
	first, second, third := newCluster(t, domain), newCluster(t, domain), newCluster(t, domain)
	cross := func(from, to *cluster) []byte {
		template := caTemplate("root "+domain, domain)
		template.SubjectKeyId = to.root.cert.SubjectKeyId
		return sign(t, template, from.root, to.root.key).cert.Raw
	}
	cert := third.leaf(t, leafTemplate(runtimeID()))
	cert.Certificate = append(cert.Certificate, cross(second, third), cross(first, second), second.root.cert.Raw, first.root.cert.Raw)
	server := trust(t, clk, third, &cert)
	client := trust(t, clk, first, nil)
	if _, _, serverErr, clientErr := meet(t, server.ServerConfig("h2"), client.ClientConfig(ident.Expect{Runtime: true}, "h2")); serverErr != nil || clientErr != nil {
		t.Errorf("by the first root: server %v, client %v", serverErr, clientErr)
	}
	for i, c := range []*cluster{first, second, third} {
		key := someKey()
		key.RootSPKI = ident.SPKI(c.root.cert)
		config := ident.PinnedConfig(key, clk)
		config.NextProtos = []string{"h2"}
		if _, _, serverErr, clientErr := meet(t, server.ServerConfig("h2"), config); serverErr != nil || clientErr != nil {
			t.Errorf("by a key of root %d: server %v, client %v", i+1, serverErr, clientErr)
		}
	}
}

func TestPinnedConfigRefuses(t *testing.T) {
	t.Parallel()
	c, foreign := newCluster(t, domain), newCluster(t, domain)
	key := someKey()
	key.RootSPKI = ident.SPKI(c.root.cert)
	runtime := c.leaf(t, leafTemplate(runtimeID()))
	withoutRoot := runtime
	withoutRoot.Certificate = runtime.Certificate[:2]
	// The public root sent along does not make a foreign leaf one of this cluster.
	decorated := foreign.leaf(t, leafTemplate(runtimeID()))
	decorated.Certificate = append(decorated.Certificate, c.root.cert.Raw)
	service := c.leaf(t, leafTemplate(instance("payments", "in_1")))
	for name, test := range map[string]struct {
		cert tls.Certificate
		now  time.Time
		want string
	}{
		"another cluster":          {foreign.leaf(t, leafTemplate(runtimeID())), epoch, "does not belong to the cluster that made key " + key.ID},
		"another cluster, dressed": {decorated, epoch, "not issued by a root"},
		"no root sent":             {withoutRoot, epoch, "does not belong to the cluster"},
		"a service as the runtime": {service, epoch, "expected a runtime"},
		"expired":                  {runtime, epoch.Add(25 * time.Hour), "expired at"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := trust(t, clock.NewManual(epoch), c, &test.cert)
			config := ident.PinnedConfig(key, clock.NewManual(test.now))
			config.NextProtos = []string{"h2"}
			_, _, _, clientErr := meet(t, server.ServerConfig("h2"), config)
			checkRefusal(t, clientErr, errs.Unauthenticated, test.want)
			if strings.Contains(clientErr.Error(), key.SecretText()) {
				t.Error("the error quotes the secret")
			}
		})
	}
}
