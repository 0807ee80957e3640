package httpdoor

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"telford.dev/telford/server/internal/door/doortest"
)

func TestTLSSpeaksHTTP2AndIsNotSpokenToPlain(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	f.provider(t, doortest.Echo())
	door := New(Config{Router: f.Router, Gate: f.Gate, TLS: f.Authority.Trust().HTTPConfig("h2", "http/1.1"), Log: f.Log})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := door.Start(l); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { door.Stop(t.Context()) })
	roots := x509.NewCertPool()
	for _, c := range f.Authority.Roots() {
		roots.AddCert(c)
	}
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS13}
	transport.ForceAttemptHTTP2 = true
	defer transport.CloseIdleConnections()
	f.client, f.url = &http.Client{Transport: transport}, "https://"+l.Addr().String()
	res := f.post(t, "/call/shop/echo", []byte(`{"a":1}`))
	if body := read(t, res); res.ProtoMajor != 2 || body != `{"a":1}` {
		t.Errorf("HTTP/%d %s", res.ProtoMajor, body)
	}
	plain, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	if _, err := plain.Write([]byte("GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	_ = plain.SetReadDeadline(time.Now().Add(5 * time.Second))
	b := make([]byte, 200)
	if n, _ := plain.Read(b); !strings.Contains(string(b[:n]), "HTTP request to an HTTPS server") {
		t.Errorf("plain HTTP was answered with %q", b[:n])
	}
}
