package telford

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// authority issues certificates for tests.
type authority struct {
	cert   *x509.Certificate
	key    *ecdsa.PrivateKey
	serial atomic.Int64
}

const testDomain = "test.telford"

func newAuthority(t testing.TB) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test root"}, NotBefore: time.Now().Add(-time.Hour),
		NotAfter: time.Now().Add(24 * time.Hour), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		URIs: []*url.URL{{Scheme: "spiffe", Host: testDomain}},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{cert: cert, key: key}
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// issue returns the PEM of a certificate for an instance, and of its key.
func (a *authority) issue(t testing.TB, service, instance, keyID string, life time.Duration) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	uri, err := url.Parse("spiffe://" + testDomain + "/ns/default/svc/" + service + "/i/" + instance)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(a.serial.Add(1) + 1), Subject: pkix.Name{SerialNumber: keyID}, NotBefore: time.Now().Add(-time.Minute),
		NotAfter: time.Now().Add(life), URIs: []*url.URL{uri}, KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, a.cert, &private.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})
}

// noRuntime is a process that has never met a runtime.
type noRuntime struct{}

func (noRuntime) Call(context.Context, *message.Call) (*message.Reply, error) {
	return nil, errs.New(errs.Unavailable, "there is no runtime").Unstarted()
}

func (noRuntime) Stream(context.Context, *message.Call) (message.Stream, error) {
	return nil, errs.New(errs.Unavailable, "there is no runtime").Unstarted()
}
func (noRuntime) Up() bool        { return false }
func (noRuntime) Available() bool { return false }

// world is a set of services that know each other without a runtime.
type world struct {
	t     testing.TB
	ca    *authority
	all   []*Service
	epoch uint64
}

func newWorld(t testing.TB) *world { return &world{t: t, ca: newAuthority(t), epoch: 1} }

// service makes one that is not started.
func (w *world) service(name, instance string, opts ...Option) *Service {
	w.t.Helper()
	cert, key := w.ca.issue(w.t, name, instance, "key_"+name, time.Hour)
	s, err := New(name, append([]Option{WithTLS(cert, key, w.ca.pem(), "")}, opts...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// start runs a service without a session.
func (w *world) start(s *Service) *Service {
	w.t.Helper()
	if !s.opt.callerOnly {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			w.t.Fatal(err)
		}
		s.serveDirect(ln)
	}
	s.table.Freeze()
	s.guard.Set(nil)
	s.serveCalls(noRuntime{})
	s.mu.Lock()
	s.state = stateRunning
	s.mu.Unlock()
	w.all = append(w.all, s)
	w.t.Cleanup(func() {
		s.table.Drain()
		s.release()
	})
	return s
}

// introduce tells every service of all others, as a watch would.
func (w *world) introduce() {
	w.t.Helper()
	var list []*catalog.Instance
	for _, s := range w.all {
		if s.listener == nil {
			continue
		}
		list = append(list, w.describe(s))
	}
	w.epoch++
	for _, s := range w.all {
		gone := s.view.Apply(&catalog.Update{Snapshot: true, Revision: catalog.Revision{Epoch: w.epoch, N: 1}, Upserts: list})
		for _, g := range gone {
			s.pool.Forget(g.ID)
		}
	}
}

func (w *world) describe(s *Service) *catalog.Instance {
	w.t.Helper()
	d, err := s.declaration(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1})
	if err != nil {
		w.t.Fatal(err)
	}
	d.Status = catalog.OK
	return &catalog.Instance{Namespace: "default", ID: s.Identity().Instance, Declaration: *d, Reachable: true, Registered: time.Now(), Revision: 1}
}

type echoReq struct {
	Text string `json:"text"`
	N    int    `json:"n,omitempty"`
}

type echoResp struct {
	Text string `json:"text"`
}

// syncBuffer is a buffer that a logger and a test share.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}
