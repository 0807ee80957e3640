package rest_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"telford.dev/telford/registry/rest"
)

const (
	authPath = "/v2.0/tokens"
	authBody = `{"auth":{"RAX-KSKEY:apiKeyCredentials":{"username":"joe","apiKey":"dev"}}}`
)

// access is an answer to an authentication as section 2.2 of the API has it.
func access(token, expires string) string {
	return fmt.Sprintf(`{"access": {
  "token": {"id": %q, "expires": %q, "tenant": {"id": "7777", "name": "7777"}},
  "serviceCatalog": [
    {"name": "cloudServers", "type": "compute", "endpoints": [{"tenantId": "7777", "publicURL": "http://127.0.0.1:8080/v1.0/7777"}]},
    {"name": "cloudMonitoring", "type": "rax:monitor", "endpoints": [{"tenantId": "7777", "publicURL": "http://127.0.0.1:8080/v1.0/7777"}]}],
  "user": {"id": "1", "name": "joe", "roles": []}}}`, token, expires)
}

// answer is what a canned server says to one request.
type answer struct {
	status int
	body   string
	header http.Header
}

// received is a request as it arrived.
type received struct {
	Method, URI, Body string
	Header            http.Header
}

// canned is a server that gives prepared answers and keeps the requests.
type canned struct {
	*httptest.Server
	mu       sync.Mutex
	requests []received
	conns    map[string]struct{}
	answers  func(r received) answer
}

func newCanned(t *testing.T, answers func(r received) answer) *canned {
	t.Helper()
	c := &canned{answers: answers, conns: make(map[string]struct{})}
	c.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		if err != nil {
			t.Errorf("read the body of %s %s: %v", r.Method, r.RequestURI, err)
		}
		got := received{r.Method, r.RequestURI, string(body), r.Header.Clone()}
		c.mu.Lock()
		c.requests = append(c.requests, got)
		c.conns[r.RemoteAddr] = struct{}{}
		c.mu.Unlock()
		a := c.answers(got)
		for k, v := range a.header {
			w.Header()[k] = v
		}
		w.WriteHeader(a.status)
		_, _ = io.WriteString(w, a.body)
	}))
	t.Cleanup(c.Close)
	return c
}

// api returns the requests that are no authentications, and how many of the latter
// there were.
func (c *canned) api() (requests []received, authentications int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, r := range c.requests {
		if r.URI == authPath {
			authentications++
		} else {
			requests = append(requests, r)
		}
	}
	return requests, authentications
}

// withToken answers authentications by itself.
func withToken(api func(r received) answer) func(r received) answer {
	return func(r received) answer {
		if r.URI == authPath {
			return answer{status: 200, body: access("dev", "2999-01-01T00:00:00.000-05:00")}
		}
		return api(r)
	}
}

func fixture(t testing.TB, name string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func newClient(t testing.TB, base string, opts ...rest.Option) *rest.Client {
	t.Helper()
	c, err := rest.New(base, append([]rest.Option{rest.WithAPIKey("joe", "dev")}, opts...)...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// compact is JSON without the space between its parts.
func compact(t *testing.T, text string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %s", err, text)
	}
	return v
}
