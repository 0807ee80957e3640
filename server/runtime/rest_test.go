package runtime_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"telford.dev/telford/internal/ident"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/runtime"
)

// restClient speaks to the REST registry of a runtime.
type restClient struct {
	url, token string
	http       *http.Client
}

func restKey(t *testing.T, r *runtime.Runtime) ident.Key {
	t.Helper()
	_, text, err := r.Authority().CreateKey(t.Context(), identity.CreateKey{Kind: identity.KindAPI, Name: "test", Author: "test"})
	if err != nil {
		t.Fatal(err)
	}
	k, err := ident.ParseKey(text)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func newRESTClient(t *testing.T, r *runtime.Runtime, k ident.Key) *restClient {
	t.Helper()
	c := &restClient{url: r.HTTPURL(), http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	status, v := c.do(t, "POST", "/v2.0/tokens", fmt.Sprintf(`{"auth":{"RAX-KSKEY:apiKeyCredentials":{"username":%q,"apiKey":%q}}}`, k.ID, k.SecretText()))
	if status != 200 {
		t.Fatal(status, v)
	}
	c.token = v["access"].(map[string]any)["token"].(map[string]any)["id"].(string)
	return c
}

func (c *restClient) do(t *testing.T, method, path, body string, headers ...string) (int, map[string]any) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("X-Auth-Token", c.token)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	res, err := c.http.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	raw, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var v map[string]any
	if len(raw) > 0 {
		if err := json.Unmarshal(raw, &v); err != nil {
			t.Fatalf("%v in %s", err, raw)
		}
	}
	return res.StatusCode, v
}

func TestRESTOverRestarts(t *testing.T) {
	t.Parallel()
	callee := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) }))
	defer callee.Close()
	host, port, _ := net.SplitHostPort(callee.Listener.Addr().String())
	cfg := plain(t)
	r := start(t, cfg)
	k := restKey(t, r)
	c := newRESTClient(t, r, k)
	status, v := c.do(t, "POST", "/v1.0/1000/services", fmt.Sprintf(
		`{"id":"shop-1","heartbeat_timeout":60,"metadata":{"service":"shop","methods":"buy","host":%q,"port":%q}}`, host, port))
	if status != 201 {
		t.Fatal(status, v)
	}
	first := v["token"].(string)
	_, v = c.do(t, "POST", "/v1.0/1000/services/shop-1/heartbeat", fmt.Sprintf(`{"token":%q}`, first))
	second, _ := v["token"].(string)
	called := func() {
		t.Helper()
		status, v := c.do(t, "POST", "/call/shop/buy", `{"n":1}`, "Authorization", "Bearer "+k.ID+":"+k.SecretText(), "Content-Type", "application/json")
		if status != 200 || v["n"] != 1.0 {
			t.Error(status, v)
		}
	}
	called()
	if status, v = c.do(t, "PUT", "/v1.0/1000/configuration//a/../b", `{"value":"x"}`); status != 400 || v["type"] != "badRequest" {
		t.Errorf("a path was cleaned: %d %v", status, v)
	}

	// The tokens of both kinds are good for the next runtime, and those used are not.
	if err := r.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	r = start(t, cfg)
	c.url = r.HTTPURL()
	called()
	if status, _ = c.do(t, "POST", "/v1.0/1000/services/shop-1/heartbeat", fmt.Sprintf(`{"token":%q}`, first)); status != 404 {
		t.Errorf("a used token: %d", status)
	}
	if status, v = c.do(t, "POST", "/v1.0/1000/services/shop-1/heartbeat", fmt.Sprintf(`{"token":%q}`, second)); status != 200 {
		t.Error(status, v)
	}
	if status, v = c.do(t, "GET", "/v1.0/1000/events", ""); status != 200 || len(v["values"].([]any)) != 1 {
		t.Error(status, v)
	}
}

func TestRESTOff(t *testing.T) {
	t.Parallel()
	cfg := plain(t)
	cfg.REST = runtime.Off
	r := start(t, cfg)
	c := &restClient{url: r.HTTPURL(), http: &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}}
	for _, path := range []string{"/v2.0/tokens", "/v1.0/1000/services"} {
		if _, v := c.do(t, "POST", path, ""); v["type"] != "urn:telford:error:unauthenticated" {
			t.Errorf("%s: %v", path, v)
		}
	}
}

// A client in another language, written without any code of ours.
func TestRESTFromNode(t *testing.T) {
	t.Parallel()
	node, err := exec.LookPath("node")
	if err != nil {
		t.Fatalf("%v: this test is a client in Node; install nodejs 20 or later (make need)", err)
	}
	r := start(t, plain(t))
	k := restKey(t, r)
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	script := filepath.Join("..", "internal", "door", "rest", "testdata", "client.mjs")
	cmd := exec.CommandContext(ctx, node, script, r.HTTPURL(), k.ID, k.SecretText())
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("ok")) {
		t.Fatalf("%v\n%s", err, out)
	}
}
