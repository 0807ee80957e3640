package restdoor_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/server/internal/config"
	restdoor "telford.dev/telford/server/internal/door/rest"
	"telford.dev/telford/server/internal/feed"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/restreg"
	"telford.dev/telford/server/internal/router"
	"telford.dev/telford/server/internal/store"
	"telford.dev/telford/server/internal/tx"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fixture is a door with everything behind it and a clock to move.
type fixture struct {
	door      *restdoor.Door
	authority *identity.Authority
	registry  *registry.Registry
	services  *restreg.Directory
	feed      *feed.Feed
	config    *config.Values
	clock     *clock.Manual
	server    *httptest.Server
	token     string
	id, key   string // of an API key
	link      func(namespace, id, address string) (end func())
}

// connect makes services callable through r from now on.
func (f *fixture) connect(r *router.Router, c *restdoor.Callees) {
	f.link = func(namespace, id, address string) func() {
		detach := r.Attach(namespace, id, c.Link(address))
		end, _ := f.registry.Session(namespace, id)
		return func() { end(); detach() }
	}
}

func start(t testing.TB) *fixture {
	t.Helper()
	ctx := context.Background()
	now := clock.NewManual(time.Now().Truncate(time.Second))
	st, err := store.Open(ctx, store.Config{Data: t.TempDir(), Fast: true, Clock: now})
	must(t, err)
	t.Cleanup(func() { _ = st.Close() })
	f := &fixture{clock: now, link: func(string, string, string) func() { return func() {} }}
	f.authority, err = identity.Open(ctx, identity.Config{DB: st, Storage: st, Clock: now, Data: t.TempDir()})
	must(t, err)
	f.registry, err = registry.Open(ctx, registry.Config{DB: st, Storage: st, Clock: now})
	must(t, err)
	f.feed, err = feed.Open(feed.Config{DB: st, Storage: st, Namespaces: f.authority, Clock: now})
	must(t, err)
	f.config, err = config.Open(config.Config{DB: st, Storage: st, Feed: f.feed, Namespaces: f.authority, Clock: now})
	must(t, err)
	f.services, err = restreg.Open(ctx, restreg.Config{
		DB: st, Storage: st, Instances: f.registry, Secret: f.authority.Derive("test"), Clock: now,
		Connect: func(namespace, id, address string) func() { return f.link(namespace, id, address) },
		Append: func(t tx.Tx, namespace string, e restreg.Event) error {
			n := feed.New{Namespace: namespace, Type: e.Type, Payload: json.RawMessage(e.Payload)}
			if e.ID != "" {
				if n.ID, err = feed.ParseID(e.ID); err != nil {
					return err
				}
			}
			_, err := f.feed.AppendTx(t, n)
			return err
		},
	})
	must(t, err)
	f.door = restdoor.New(restdoor.Config{
		Services: f.services, Tokens: restreg.NewTokens(f.authority, f.authority.Derive("test tokens"), now), Namespaces: f.authority, Clock: now, Feed: f.feed, Values: f.config,
	})
	f.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !f.door.Takes(r) {
			http.Error(w, "not taken", http.StatusTeapot)
			return
		}
		f.door.ServeHTTP(w, r)
	}))
	t.Cleanup(f.server.Close)
	_, text, err := f.authority.CreateKey(ctx, identity.CreateKey{Kind: identity.KindAPI, Name: "tests", Author: "test"})
	must(t, err)
	f.id, f.key = pair(t, text)
	f.token = f.login(t, f.id, f.key)
	return f
}

// pair splits the text of a key into user name and API key.
func pair(t testing.TB, text string) (id, secret string) {
	t.Helper()
	k, err := ident.ParseKey(text)
	must(t, err)
	return k.ID, k.SecretText()
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// answer is what came back.
type answer struct {
	status int
	header http.Header
	body   string
}

func (a *answer) json(t testing.TB) map[string]any {
	t.Helper()
	var v map[string]any
	if err := json.Unmarshal([]byte(a.body), &v); err != nil {
		t.Fatalf("%v in %q", err, a.body)
	}
	return v
}

// raw sends bytes and reads one answer.
func (f *fixture) raw(t testing.TB, text string) *answer {
	t.Helper()
	nc, err := new(net.Dialer).DialContext(context.Background(), "tcp", f.server.Listener.Addr().String())
	must(t, err)
	defer func() { _ = nc.Close() }()
	must(t, nc.SetDeadline(time.Now().Add(20*time.Second)))
	_, err = io.WriteString(nc, text)
	must(t, err)
	method, _, _ := strings.Cut(text, " ")
	res, err := http.ReadResponse(bufio.NewReader(nc), &http.Request{Method: method})
	must(t, err)
	defer func() { _ = res.Body.Close() }()
	if len(res.TransferEncoding) > 0 {
		t.Errorf("transfer encoding %v", res.TransferEncoding)
	}
	body, err := io.ReadAll(res.Body)
	must(t, err)
	if res.Close {
		res.Header.Set("Connection", "close")
	}
	return &answer{res.StatusCode, res.Header, string(body)}
}

// send sends a request below the account's path, with the token, as a client without a
// library would.
func (f *fixture) send(t testing.TB, method, path, body string, headers ...string) *answer {
	t.Helper()
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s /v1.0/1000%s HTTP/1.1\r\nHost: registry.test:1234\r\nX-Auth-Token: %s\r\n", method, path, f.token)
	for _, h := range headers {
		b.WriteString(h + "\r\n")
	}
	if body != "" {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n" + body)
	return f.raw(t, b.String())
}

func (f *fixture) login(t testing.TB, id, key string) string {
	t.Helper()
	body := fmt.Sprintf(`{"auth":{"RAX-KSKEY:apiKeyCredentials":{"username":%q,"apiKey":%q}}}`, id, key)
	a := f.raw(t, fmt.Sprintf("POST /v2.0/tokens HTTP/1.1\r\nHost: h\r\nContent-Type: application/json; charset=UTF-8\r\nContent-Length: %d\r\n\r\n%s", len(body), body))
	if a.status != 200 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	return a.json(t)["access"].(map[string]any)["token"].(map[string]any)["id"].(string)
}

// create makes a service and returns its first heartbeat token.
func (f *fixture) create(t testing.TB, id string, timeout int, more string) string {
	t.Helper()
	a := f.send(t, "POST", "/services", fmt.Sprintf(`{"id":%q,"heartbeat_timeout":%d%s}`, id, timeout, more))
	if a.status != 201 {
		t.Fatalf("%d %s", a.status, a.body)
	}
	return a.json(t)["token"].(string)
}

// faulty checks that an answer is a fault.
func faulty(t testing.TB, a *answer, status int, kind, message string, details any) {
	t.Helper()
	v := a.json(t)
	if a.status != status || v["type"] != kind || v["code"] != float64(status) || v["message"] != message ||
		details != nil && v["details"] != details || v["txnId"] != a.header.Get("X-Response-Id") {
		t.Errorf("status %d, %s, want %d %s %q %q", a.status, a.body, status, kind, message, details)
	}
}

// restregUUID is a version 1 UUID of an instant.
func restregUUID(at time.Time) string { return feed.NewID(at, [8]byte{0x80, 1}).String() }
