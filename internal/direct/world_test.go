package direct

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"log/slog"
	"math/big"
	"net"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/handlers"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/message"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// world issues certificates.
type world struct {
	t    *testing.T
	root *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newWorld(t *testing.T) *world {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &world{t: t, root: root, key: key}
}

// trust is that of a new process with a certificate of the given life.
func (w *world) trust(namespace, service, instance string, life time.Duration) *ident.Trust {
	w.t.Helper()
	tr := ident.NewTrust(clock.Real())
	tr.SetRoots([]*x509.Certificate{w.root})
	w.certify(tr, namespace, service, instance, life)
	return tr
}

func (w *world) certify(tr *ident.Trust, namespace, service, instance string, life time.Duration) {
	w.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		w.t.Fatal(err)
	}
	id := ident.Identity{TrustDomain: "d", Namespace: namespace, Service: service, Instance: instance}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{SerialNumber: "key_" + instance}, NotBefore: time.Now().Add(-time.Minute),
		NotAfter: time.Now().Add(life), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	tmpl.URIs = append(tmpl.URIs, id.URI())
	der, err := x509.CreateCertificate(rand.Reader, tmpl, w.root, &key.PublicKey, w.key)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := tr.SetCertificate(tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}); err != nil {
		w.t.Fatal(err)
	}
}

// callee serves a method that says who called.
func (w *world) callee(tr *ident.Trust) (*Listener, *catalog.Instance) {
	w.t.Helper()
	id := tr.Identity()
	table := handlers.New(handlers.Options{Service: id.Service, MaxRunning: 8, MaxWaiting: 8, Log: slog.New(slog.DiscardHandler)})
	err := table.Add(&handlers.Method{Method: catalog.Method{Name: "who"}, Full: "/x/who", Unary: func(c *handlers.Context) (any, error) {
		return c.Call().Caller, nil
	}})
	if err != nil {
		w.t.Fatal(err)
	}
	table.Freeze()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	l := Serve(ln, ListenerOptions{Trust: tr, Table: table, GRPC: grpc.NewServer(grpc.Creds(Credentials()))})
	w.t.Cleanup(l.Close)
	return l, &catalog.Instance{Namespace: id.Namespace, ID: id.Instance, Declaration: catalog.Declaration{Service: id.Service}}
}

func (w *world) pool(tr *ident.Trust) *Pool {
	p := NewPool(PoolOptions{Trust: tr})
	w.t.Cleanup(p.Close)
	return p
}

func who() *message.Call {
	return &message.Call{Method: "who", ContentType: message.JSON, Deadline: time.Now().Add(10 * time.Second)}
}

func within(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	t.Cleanup(cancel)
	return ctx
}
