package httpdoor

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"go.uber.org/goleak"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/server/internal/door/doortest"
	linkdoor "telford.dev/telford/server/internal/door/link"
	"telford.dev/telford/server/internal/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a HTTP door with everything behind it, and an instance of service shop.
type fixture struct {
	*doortest.Backend
	door   *Server
	url    string
	link   string // the address of the link door
	client *http.Client
	key    string
}

func start(t *testing.T, change func(*Config)) *fixture {
	t.Helper()
	st, err := store.Open(context.Background(), store.Config{Data: t.TempDir(), Fast: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	b := doortest.New(t, st, doortest.Options{})
	links := linkdoor.New(linkdoor.Config{Sessions: b.Sessions, Router: b.Router, Authority: b.Authority, Clock: b.Clock, Log: b.Log})
	_, linkAddr := b.Listen(t, links.Serve)
	cfg := Config{Router: b.Router, Gate: b.Gate, Version: "v0", Log: b.Log}
	if change != nil {
		change(&cfg)
	}
	f := &fixture{Backend: b, door: New(cfg), link: linkAddr}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.door.Start(l); err != nil {
		t.Fatal(err)
	}
	transport := &http.Transport{DisableCompression: true}
	f.client = &http.Client{Transport: transport}
	f.url = "http://" + l.Addr().String()
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		f.door.Stop(ctx)
	})
	_, f.key = b.Key(t, "caller")
	return f
}

// provider starts an instance that declares JSON methods: echo and fail are unary,
// count is a stream.
func (f *fixture) provider(t *testing.T, h doortest.Handler) *doortest.Wire {
	t.Helper()
	key, _ := f.Key(t, "shop")
	in := doortest.NewInstance(f.link, f.Certify(t, key, "shop", "shop-1"), h)
	w := in.Connect(t, nil)
	d := doortest.Declaration("shop", "echo", "fail", "shop.v1.Shop/Buy")
	d.Methods = append(d.Methods, &telfordv1.Method{Name: "count", Kind: telfordv1.MethodKind_METHOD_KIND_SERVER_STREAM, ContentTypes: []string{"json"}})
	if refused := w.Register(d).GetRefused(); refused != nil {
		t.Fatalf("registration refused: %v", refused)
	}
	return w
}

// post sends a request with the key and the headers, pairs of name and value.
func (f *fixture) post(t *testing.T, path string, body []byte, headers ...string) *http.Response {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.url+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+f.key)
	for i := 0; i < len(headers); i += 2 {
		if headers[i+1] == "" {
			req.Header.Del(headers[i])
			continue
		}
		req.Header.Add(headers[i], headers[i+1])
	}
	res, err := f.client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = res.Body.Close() })
	return res
}

func read(t *testing.T, res *http.Response) string {
	t.Helper()
	b, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// problem reads the problem details of an answer.
func problem(t *testing.T, res *http.Response) Problem {
	t.Helper()
	if ct := res.Header.Get("Content-Type"); ct != problemType {
		t.Errorf("content type %q of a failure", ct)
	}
	var p Problem
	if err := json.NewDecoder(res.Body).Decode(&p); err != nil {
		t.Fatal(err)
	}
	if p.Status != res.StatusCode {
		t.Errorf("problem says status %d in an answer of %d", p.Status, res.StatusCode)
	}
	return p
}
