package client

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
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/handlers"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/session"
	"telford.dev/telford/internal/view"
)

// fake is a runtime that does what a test tells it.
type fake struct {
	t    *testing.T
	ln   net.Listener
	wg   sync.WaitGroup
	root *x509.Certificate
	key  *ecdsa.PrivateKey
	// refuse, when set, is said instead of Accepted.
	refuse func() *errs.Error
	// handler, when set, runs calls.
	handler message.Handler
	// answer replies to a control message; the default accepts everything.
	answer func(c *fakeConn, m *telfordv1.ClientMessage)

	mu     sync.Mutex
	conns  []*fakeConn
	hellos []*telfordv1.Hello
	byes   []*telfordv1.Goodbye
}

type fakeConn struct {
	f    *fake
	set  chan struct{}
	link *link.Conn
}

func (c *fakeConn) say(m *telfordv1.ServerMessage) {
	<-c.set
	b, err := proto.Marshal(m)
	if err == nil {
		_ = c.link.Control(b) // a connection that has ended hears nothing
	}
}

func newFake(t *testing.T) *fake {
	t.Helper()
	f := &fake{t: t}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	f.key = key
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if f.root, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	f.answer = f.agree
	if f.ln, err = net.Listen("tcp", "127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	config := f.trust(ident.RuntimeNamespace, ident.RuntimeService, "node").ServerConfig(link.ALPN)
	f.wg.Go(func() {
		for {
			nc, err := f.ln.Accept()
			if err != nil {
				return
			}
			f.wg.Go(func() { f.serve(tls.Server(nc, config)) })
		}
	})
	t.Cleanup(func() {
		_ = f.ln.Close()
		for _, c := range f.all() {
			c.link.Close(errs.New(errs.Unavailable, "over"))
		}
		f.wg.Wait()
	})
	return f
}

// trust is that of a process with a certificate of this cluster.
func (f *fake) trust(namespace, service, instance string) *ident.Trust {
	f.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.t.Fatal(err)
	}
	id := ident.Identity{TrustDomain: "d", Namespace: namespace, Service: service, Instance: instance}
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{SerialNumber: "key_x"}, NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	tmpl.URIs = append(tmpl.URIs, id.URI())
	der, err := x509.CreateCertificate(rand.Reader, tmpl, f.root, &key.PublicKey, f.key)
	if err != nil {
		f.t.Fatal(err)
	}
	tr := ident.NewTrust(clock.Real())
	tr.SetRoots([]*x509.Certificate{f.root})
	if err := tr.SetCertificate(tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}); err != nil {
		f.t.Fatal(err)
	}
	return tr
}

func (f *fake) serve(nc *tls.Conn) {
	if nc.HandshakeContext(context.Background()) != nil {
		_ = nc.Close()
		return
	}
	f.mu.Lock()
	refuse := f.refuse
	f.mu.Unlock()
	if refuse != nil {
		if e := refuse(); e != nil {
			_ = link.Refuse(nc, e)
			return
		}
	}
	c := &fakeConn{f: f, set: make(chan struct{})}
	messages := make(chan *telfordv1.ClientMessage, 100)
	lc, err := link.Accept(nc, link.Options{Handler: f.handler, Control: func(p []byte) {
		m := new(telfordv1.ClientMessage)
		if proto.Unmarshal(p, m) == nil {
			messages <- m
		}
	}})
	if err != nil {
		return
	}
	c.link = lc
	close(c.set)
	f.mu.Lock()
	f.conns = append(f.conns, c)
	f.mu.Unlock()
	for {
		select {
		case m := <-messages:
			f.mu.Lock()
			answer := f.answer
			if h := m.GetHello(); h != nil {
				f.hellos = append(f.hellos, h)
			}
			if g := m.GetGoodbye(); g != nil {
				f.byes = append(f.byes, g)
			}
			f.mu.Unlock()
			answer(c, m)
		case <-lc.Done():
			return
		}
	}
}

// agree accepts whatever an instance says.
func (f *fake) agree(c *fakeConn, m *telfordv1.ClientMessage) {
	switch v := m.GetMessage().(type) {
	case *telfordv1.ClientMessage_Hello:
		c.say(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_HelloAck{HelloAck: &telfordv1.HelloAck{
			SessionId: "ses", ResumeToken: "token", Resumed: v.Hello.GetResumeToken() == "token", Instance: v.Hello.GetInstance(),
			HeartbeatIntervalUs: (300 * time.Millisecond).Microseconds(), RuntimeEpoch: 1,
		}}})
		f.rule(c, &telfordv1.Rules{Revision: 1})
	case *telfordv1.ClientMessage_Register:
		c.say(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Registered{Registered: &telfordv1.Registered{}}})
	case *telfordv1.ClientMessage_Watch:
		c.say(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Watch{Watch: &telfordv1.WatchUpdate{Snapshot: true, Revision: &telfordv1.Revision{Epoch: 1, N: 1}}}})
	case *telfordv1.ClientMessage_Goodbye:
		if !v.Goodbye.GetDraining() {
			c.link.Close(errs.New(errs.Unavailable, "bye"))
		}
	}
}

// rule lays rules down.
func (f *fake) rule(c *fakeConn, r *telfordv1.Rules) {
	c.say(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Rules{Rules: r}})
}

func (f *fake) all() []*fakeConn {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]*fakeConn(nil), f.conns...)
}

func (f *fake) last() *fakeConn {
	all := f.all()
	return all[len(all)-1]
}

func (f *fake) set(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
}

// event is what a session told.
type event struct {
	what  string
	cause error
}

// open makes a session with the fake.
func (f *fake) open(change ...func(*Options)) (*Session, chan event) {
	f.t.Helper()
	events := make(chan event, 1000)
	table := handlers.New(handlers.Options{Service: "svc", MaxRunning: 8, MaxWaiting: 8, Log: slog.New(slog.DiscardHandler)})
	table.Freeze()
	v := view.New()
	v.Want("other")
	opt := Options{
		Server: f.ln.Addr().String(), Service: "svc", Instance: "in_a", Trust: f.trust("default", "svc", "in_a"), Table: table, View: v,
		Declaration: func(net.Addr) (*catalog.Declaration, error) { return &catalog.Declaration{Service: "svc"}, nil },
		Backoff:     session.Backoff{Min: time.Millisecond, Max: 5 * time.Millisecond},
		Events: Events{
			Connected:    func(string) { events <- event{what: "connected"} },
			Reconnecting: func(_ int, cause error, _ time.Duration) { events <- event{"reconnecting", cause} },
			Draining:     func(reason string) { events <- event{what: "draining " + reason} },
			Disconnected: func(reason string, cause error) { events <- event{"disconnected " + reason, cause} },
			Warnings:     func([]catalog.DeclarationWarning) { events <- event{what: "warnings"} },
			Violations: func(list []catalog.DeclarationWarning) {
				if len(list) > 0 {
					events <- event{what: "violations " + list[0].Value}
				}
			},
			Gone: func([]*catalog.Instance) { events <- event{what: "gone"} },
		},
	}
	for _, c := range change {
		c(&opt)
	}
	s := New(opt)
	f.t.Cleanup(func() { s.Close("test") })
	return s, events
}

// expect waits for an event, letting others pass.
func expect(t *testing.T, events chan event, what string) event {
	t.Helper()
	limit := time.NewTimer(15 * time.Second)
	defer limit.Stop()
	for {
		select {
		case e := <-events:
			if e.what == what {
				return e
			}
		case <-limit.C:
			t.Fatalf("%q did not happen", what)
		}
	}
}
