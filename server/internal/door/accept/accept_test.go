package accept_test

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/server/internal/door/accept"
	"telford.dev/telford/server/internal/door/doortest"
	"telford.dev/telford/server/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func backend(t *testing.T, opt doortest.Options) *doortest.Backend {
	t.Helper()
	st, err := store.Open(context.Background(), store.Config{Data: t.TempDir(), Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	return doortest.New(t, st, opt)
}

// refuser serves links by saying why not, or by echoing bytes.
func refuser(nc net.Conn, peer accept.Peer) {
	if peer.Rejected != nil {
		_ = link.Refuse(nc, peer.Rejected)
		return
	}
	c, err := link.Accept(nc, link.Options{})
	if err == nil {
		<-c.Done()
	}
}

func dialLink(t *testing.T, addr string, cfg *tls.Config) error {
	t.Helper()
	nc, err := (&tls.Dialer{Config: cfg}).Dial("tcp", addr)
	if err != nil {
		return err
	}
	t.Cleanup(func() { _ = nc.Close() })
	c, err := link.Dial(t.Context(), nc, link.Options{})
	if err == nil {
		t.Cleanup(func() { c.Close(nil) })
	}
	return err
}

func TestRefusalsSayWhy(t *testing.T) {
	t.Parallel()
	b, other := backend(t, doortest.Options{}), backend(t, doortest.Options{})
	_, addr := b.Listen(t, refuser)
	key, _ := b.Key(t, "payments")
	trust := b.Certify(t, key, "payments", "pay-1")
	runtime := ident.Expect{Runtime: true}
	if err := dialLink(t, addr, trust.ClientConfig(runtime, link.ALPN)); err != nil {
		t.Fatalf("a good certificate: %v", err)
	}

	none := ident.PinnedConfig(key, b.Clock)
	none.NextProtos = []string{link.ALPN}
	if err := dialLink(t, addr, none); errs.CodeOf(err) != errs.Unauthenticated {
		t.Errorf("no certificate: %v", err)
	}

	otherKey, _ := other.Key(t, "payments")
	foreign := other.Certify(t, otherKey, "payments", "pay-1").ClientConfig(runtime, link.ALPN)
	foreign.VerifyConnection = nil // it would refuse this runtime itself
	if err := dialLink(t, addr, foreign); errs.CodeOf(err) != errs.Unauthenticated || !strings.Contains(err.Error(), "trust domain") {
		t.Errorf("a certificate of another trust domain: %v", err)
	}

	// The chain of this cluster with a leaf that was tampered with.
	cert := *trust.Certificate()
	tampered := append([]byte(nil), cert.Certificate[0]...)
	tampered[len(tampered)-1] ^= 1 // in the signature
	cfg := trust.ClientConfig(runtime, link.ALPN)
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: append([][]byte{tampered}, cert.Certificate[1:]...), PrivateKey: cert.PrivateKey}, nil
	}
	if err := dialLink(t, addr, cfg); errs.CodeOf(err) != errs.Unauthenticated {
		t.Errorf("a tampered certificate: %v", err)
	}

	// Another's certificate without its key does not get through the handshake.
	stolen := b.Certify(t, key, "payments", "pay-2").Certificate()
	cfg = trust.ClientConfig(runtime, link.ALPN)
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: cert.Certificate, PrivateKey: stolen.PrivateKey}, nil
	}
	if err := dialLink(t, addr, cfg); err == nil {
		t.Error("a certificate without its key was accepted")
	}

	if err := b.Authority.RevokeInstance(t.Context(), "default", "pay-1", "test", "lost"); err != nil {
		t.Fatal(err)
	}
	if err := dialLink(t, addr, trust.ClientConfig(runtime, link.ALPN)); errs.CodeOf(err) != errs.PermissionDenied || !strings.Contains(err.Error(), "revoked") {
		t.Errorf("a revoked instance: %v", err)
	}
}

func TestOverload(t *testing.T) {
	t.Parallel()
	b := backend(t, doortest.Options{Accept: accept.Config{MaxConnections: 1}})
	s, addr := b.Listen(t, refuser)
	key, _ := b.Key(t, "payments")
	trust := b.Certify(t, key, "payments", "pay-1")
	cfg := trust.ClientConfig(ident.Expect{Runtime: true}, link.ALPN)
	if err := dialLink(t, addr, cfg); err != nil {
		t.Fatal(err)
	}
	err := dialLink(t, addr, cfg)
	var e *errs.Error
	if !errors.As(err, &e) || e.Code != errs.ResourceExhausted || e.RetryAfter <= 0 {
		t.Errorf("one connection too many: %v", err)
	}
	doortest.Eventually(t, "the refused connection is gone", func() bool { return s.Open() == 1 })
}

func TestHandshakesAreBoundedInTimeAndNumber(t *testing.T) {
	t.Parallel()
	b := backend(t, doortest.Options{Accept: accept.Config{HandshakeTimeout: 300 * time.Millisecond, MaxHandshakes: 2}})
	s, addr := b.Listen(t, refuser)
	// They say nothing: two are in their handshake, two wait for that, one is sent away.
	silent := make([]net.Conn, 5)
	for i := range silent {
		nc, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = nc.Close() })
		silent[i] = nc
	}
	doortest.Eventually(t, "two handshakes are under way", func() bool {
		return s.Stats() == accept.Stats{Handshakes: 2, Waiting: 2, Refused: 1}
	})
	for i, nc := range silent {
		if err := nc.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
			t.Fatal(err)
		}
		if _, err := nc.Read(make([]byte, 1)); !errors.Is(err, io.EOF) && !isReset(err) {
			t.Errorf("silent connection %d: %v", i, err)
		}
	}
	// Garbage instead of a handshake.
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, nc); err != nil && !isReset(err) {
		t.Error(err)
	}
	// And still it serves.
	key, _ := b.Key(t, "payments")
	if err := dialLink(t, addr, b.Certify(t, key, "payments", "pay-1").ClientConfig(ident.Expect{Runtime: true}, link.ALPN)); err != nil {
		t.Error(err)
	}
}

func isReset(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && !op.Timeout()
}

func TestStartAndStopInAnyOrder(t *testing.T) {
	t.Parallel()
	b := backend(t, doortest.Options{})
	listen := func() net.Listener {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	cfg := accept.Config{Trust: b.Authority.Trust(), Link: refuser}
	never := accept.New(cfg)
	never.Stop(t.Context())
	never.Stop(t.Context())
	if err := never.Start(listen()); errs.CodeOf(err) != errs.FailedPrecondition {
		t.Errorf("a start after the stop: %v", err)
	}
	if _, err := never.GRPC().Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("accepting from a stopped server: %v", err)
	}
	s := accept.New(cfg)
	if err := s.Start(listen()); err != nil {
		t.Fatal(err)
	}
	if err := s.Start(listen()); errs.CodeOf(err) != errs.FailedPrecondition {
		t.Errorf("a second start: %v", err)
	}
	// A connection in its handshake and one that serves do not hold up a stop that is out
	// of patience.
	key, _ := b.Key(t, "payments")
	addr := s.GRPC().Addr().String()
	if err := dialLink(t, addr, b.Certify(t, key, "payments", "pay-1").ClientConfig(ident.Expect{Runtime: true}, link.ALPN)); err != nil {
		t.Fatal(err)
	}
	nc, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	doortest.Eventually(t, "both are open", func() bool { return s.Open() == 2 })
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Stop(ctx)
	s.Stop(ctx)
	if s.Open() != 0 {
		t.Errorf("%d connections are open after the stop", s.Open())
	}
}
