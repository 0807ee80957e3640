package restdoor_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/restreg"
)

func TestTransport(t *testing.T) {
	t.Parallel()
	f := start(t)
	transaction := regexp.MustCompile(`^\.rh-[A-Za-z0-9]{4}\.h-telford\.r-[A-Za-z0-9]{8}\.c-\d+\.ts-\d+\.v-0\.1$`)
	bare := func(head, body string) *answer {
		t.Helper()
		return f.raw(t, head+"\r\nHost: h\r\nX-Auth-Token: "+f.token+"\r\n"+body)
	}
	t.Run("an unknown path", func(t *testing.T) {
		t.Parallel()
		for _, path := range []string{"", "/", "/nothing", "//services", "/services//", "/./services", "/services/abc/x", "/services/abc/heartbeat/x", "/limits/x", "/views/overview", "/sessions"} {
			a := f.send(t, "GET", path, "")
			faulty(t, a, 404, "notFoundError", "The page cannot be found.", nil)
			if diff := cmp.Diff(any(map[string]any{"requested_path": "/v1.0/1000" + path}), a.json(t)["details"]); diff != "" {
				t.Error(diff)
			}
			if id := a.header.Get("X-Response-Id"); !transaction.MatchString(id) {
				t.Errorf("transaction %s", id)
			}
		}
		for _, method := range []string{"OPTIONS", "PATCH", "POST", "DELETE"} {
			faulty(t, f.send(t, method, "/limits", ""), 404, "notFoundError", "The page cannot be found.", nil)
		}
	})
	t.Run("head is get", func(t *testing.T) {
		t.Parallel()
		get, head := f.send(t, "GET", "/services", ""), f.send(t, "HEAD", "/services", "")
		if head.status != 200 || head.body != "" || head.header.Get("Content-Length") != fmt.Sprint(len(get.body)) {
			t.Errorf("%d %v %q", head.status, head.header, head.body)
		}
	})
	t.Run("content types", func(t *testing.T) {
		t.Parallel()
		for _, method := range []string{"GET", "POST", "DELETE"} {
			faulty(t, f.send(t, method, "/services", "", "Content-Type: foo/bar"), 400, "badRequest",
				"Unsupported content type: foo/bar", "Unsupported content type: foo/bar")
		}
	})
	t.Run("bodies", func(t *testing.T) {
		t.Parallel()
		for _, body := range []string{"{", "{}{}", " ", `{"a":}`, "nul"} {
			a := f.send(t, "GET", "/services", body)
			if v := a.json(t); a.status != 400 || v["type"] != "badRequest" || v["message"] != v["details"] ||
				!strings.HasPrefix(v["message"].(string), "Failed to parse request body: ") {
				t.Errorf("%q: %d %s", body, a.status, a.body)
			}
		}
		for _, body := range []string{"null", "false", "0", "-0.0", `""`} {
			faulty(t, f.send(t, "GET", "/services", body), 400, "badRequest", "Empty Request Body", "Empty Request Body")
		}
	})
	t.Run("too large", func(t *testing.T) {
		t.Parallel()
		huge := `{"a":"` + strings.Repeat("x", 4992) + `"}`
		for _, a := range []*answer{
			f.send(t, "POST", "/services", huge),
			bare("POST /v1.0/1000/services HTTP/1.1", "Content-Length: 9999999\r\n\r\n"),
			bare("POST /v1.0/1000/services HTTP/1.1", fmt.Sprintf("Transfer-Encoding: chunked\r\n\r\n%x\r\n%s\r\n0\r\n\r\n", len(huge), huge)),
		} {
			if a.status != 413 || a.body != "" || a.header.Get("Connection") != "close" || a.header.Get("X-Response-Id") == "" {
				t.Errorf("%d %v %q", a.status, a.header, a.body)
			}
		}
		if a := f.send(t, "POST", "/services", huge[:4999]); a.status != 400 {
			t.Errorf("4999 bytes: %d", a.status)
		}
	})
	t.Run("malformed parameters", func(t *testing.T) {
		t.Parallel()
		faulty(t, f.send(t, "GET", "/services/%80", ""), 400, "badRequest", "URI malformed", "URI malformed")
	})
	t.Run("order of checks", func(t *testing.T) {
		t.Parallel()
		a := f.raw(t, "POST /v1.0/undefined/services HTTP/1.1\r\nHost: h\r\nContent-Type: foo/bar\r\nContent-Length: 1\r\n\r\n{")
		faulty(t, a, 400, "badRequest", "Unsupported content type: foo/bar", nil)
		a = f.raw(t, "POST /v1.0/undefined/services HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n{")
		if a.status != 400 {
			t.Errorf("%d", a.status)
		}
	})
	t.Run("what is not taken", func(t *testing.T) {
		t.Parallel()
		for _, path := range []string{"/", "/v1.0x", "/v2.0/tokens/x", "/call/x/y", "/v1"} {
			if a := f.raw(t, "GET "+path+" HTTP/1.1\r\nHost: h\r\n\r\n"); a.status != 418 {
				t.Errorf("%s: %d", path, a.status)
			}
		}
	})
	t.Run("rate headers and limits", func(t *testing.T) {
		t.Parallel()
		f := start(t)
		a := f.send(t, "GET", "/limits", "")
		if a.header.Get("X-Ratelimit-Path-Regex") != "/.*" || a.header.Get("X-Ratelimit-Limit") != "500000" ||
			a.header.Get("X-Ratelimit-Window") != "86400 seconds" || a.header.Get("X-Ratelimit-Used") == "" || a.header.Get("Reply-After") == "" {
			t.Error(a.header)
		}
		v := a.json(t)
		if diff := cmp.Diff(map[string]any{"service": 200.0, "configuration_value": 1000.0, "session": 100.0}, v["resource"].(map[string]any)); diff != "" {
			t.Error(diff)
		}
		rate := v["rate"].(map[string]any)["/.*"].(map[string]any)
		if rate["limit"] != 500000.0 || rate["window"] != "24.0 hours" || fmt.Sprint(rate["used"]) != a.header.Get("X-Ratelimit-Used") {
			t.Error(rate)
		}
	})
}

func TestAuthentication(t *testing.T) {
	t.Parallel()
	f := start(t)
	ask := func(path string, headers ...string) *answer {
		t.Helper()
		return f.raw(t, "GET "+path+" HTTP/1.1\r\nHost: h:1\r\n"+strings.Join(append(headers, ""), "\r\n")+"\r\n")
	}
	token := "X-Auth-Token: " + f.token
	for _, c := range []struct {
		why     string
		path    string
		headers []string
	}{
		{"No tenant id provided", "/v1.0/undefined/services", []string{token}},
		{"No tenant id provided", "/v1.0", []string{token}},
		{"No tenant id provided", "/v1.0/services", []string{token}},
		{"No authentication token provided", "/v1.0/1000/services", nil},
		{"Invalid or expired authentication token", "/v1.0/1000/services", []string{"X-Auth-Token: null"}},
		{"Invalid or expired authentication token", "/v1.0/7777/services", []string{token}},
		{"Invalid or expired authentication token", "/v1.0/1000/services?x-auth-token=no", []string{token}},
		{"Invalid or expired authentication token", "/v1.0/1000/services?x-auth-token=" + f.token + "&x-auth-token=" + f.token, []string{token}},
		{"Invalid or expired authentication token", "/v1.0/1000/services", []string{token, "X-Tenant-Id: other"}},
		{"Invalid or expired authentication token", "/v1.0/1000/nothing", []string{"X-Auth-Token: " + f.key}},
	} {
		a := ask(c.path, c.headers...)
		faulty(t, a, 401, "unauthorizedError", "forbidden", c.why)
		if a.header.Get("WWW-Authenticate") != `Keystone uri="http://h:1/v2.0"` {
			t.Error(a.header)
		}
	}
	for _, c := range [][]string{
		{"/v1.0/1000/services", token},
		{"/V1.0/1000/Services/", token},
		{"/v1.0/services", token, "X-Tenant-Id: 1000"},
		{"/v1.0/services", token, "X-Tenant-Id: default"},
		{"/v1.0/anything/services", token, "X-Tenant-Id: default"},
		{"/v1.0/1000/services?x-auth-token=" + f.token, "X-Auth-Token: no"},
		{"http://h:1/v1.0/1000/services", token},
	} {
		if a := ask(c[0], c[1:]...); a.status != 200 {
			t.Errorf("%v: %d %s", c, a.status, a.body)
		}
	}

	// A token ends with its time, and with its key.
	other := f.login(t, f.id, f.key)
	f.clock.Advance(restreg.TokenLife)
	if a := ask("/v1.0/1000/services", token); a.status != 401 {
		t.Errorf("an expired token: %d", a.status)
	}
	f.token = f.login(t, f.id, f.key)
	if a := ask("/v1.0/1000/services", "X-Auth-Token: "+f.token); a.status != 200 || other == f.token {
		t.Errorf("a new token: %d", a.status)
	}
	if _, err := f.authority.RevokeKey(t.Context(), f.id, "test", "over"); err != nil {
		t.Fatal(err)
	}
	if a := ask("/v1.0/1000/services", "X-Auth-Token: "+f.token); a.status != 401 {
		t.Errorf("the token of a revoked key: %d", a.status)
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	f := start(t)
	post := func(path, body string, headers ...string) *answer {
		t.Helper()
		return f.raw(t, fmt.Sprintf("POST %s HTTP/1.1\r\nHost: h:1\r\nContent-Length: %d\r\n%s\r\n%s", path, len(body), strings.Join(append(headers, ""), "\r\n"), body))
	}
	key := fmt.Sprintf(`{"username":%q,"apiKey":%q}`, f.id, f.key)
	a := post("/v2.0/tokens/", `{"auth":{"RAX-KSKEY:apiKeyCredentials":`+key+`,"tenantName":"x"}}`, "Content-Type: application/json; charset=UTF-8")
	if a.status != 200 || a.header.Get("Content-Type") != "application/json; charset=UTF-8" {
		t.Fatalf("%d %v %s", a.status, a.header, a.body)
	}
	access := a.json(t)["access"].(map[string]any)
	token := access["token"].(map[string]any)
	expires := f.clock.Now().Add(restreg.TokenLife).UTC().Add(-5*time.Hour).Format("2006-01-02T15:04:05") + ".000-05:00"
	if token["expires"] != expires || !cmp.Equal(token["tenant"], any(map[string]any{"id": "1000", "name": "1000"})) {
		t.Errorf("token %v, want it to end at %s", token, expires)
	}
	endpoints := []any{map[string]any{"tenantId": "1000", "publicURL": "http://h:1/v1.0/1000"}}
	catalog := []any{
		map[string]any{"name": "cloudServers", "type": "compute", "endpoints": endpoints},
		map[string]any{"name": "cloudMonitoring", "type": "rax:monitor", "endpoints": endpoints},
	}
	if diff := cmp.Diff(any(catalog), access["serviceCatalog"]); diff != "" {
		t.Error(diff)
	}
	if user := access["user"].(map[string]any); user["name"] != f.id || !cmp.Equal(user["roles"], any([]any{})) {
		t.Errorf("user %v", user)
	}
	text := token["id"].(string)
	for body, want := range map[string]int{
		fmt.Sprintf(`{"auth":{"passwordCredentials":{"username":%q,"password":%q}}}`, f.id, f.key):           200,
		fmt.Sprintf(`{"auth":{"token":{"id":%q},"tenantName":"1000"}}`, text):                                200,
		fmt.Sprintf(`{"auth":{"token":{"id":%q},"tenantName":"7777"}}`, text):                                401,
		`{"auth":{"token":{"id":"x"}}}`:                                                                      401,
		`{"auth":{"RAX-KSKEY:apiKeyCredentials":{"username":"joe","apiKey":"dev"}}}`:                         401,
		fmt.Sprintf(`{"auth":{"RAX-KSKEY:apiKeyCredentials":{"username":%q,"apiKey":"%s"}}}`, f.id, f.token): 401,
		`{"auth":{"RAX-KSKEY:apiKeyCredentials":{"username":"joe"}}}`:                                        400,
		`{"auth":{"RAX-KSKEY:apiKeyCredentials":{"username":1,"apiKey":[]}}}`:                                400,
		`{"auth":{}}`: 400,
		`{"auth":5}`:  400,
		``:            400,
		`{`:           400,
	} {
		if a := post("/v2.0/tokens", body); a.status != want || a.header.Get("X-Response-Id") == "" || a.header.Get("Content-Type") == "" {
			t.Errorf("%s: %d %s", body, a.status, a.body)
		}
	}

	// A namespace without an account has nowhere to send its clients.
	if _, err := f.authority.EnsureNamespace(context.Background(), "nowhere", 0); err != nil {
		t.Fatal(err)
	}
	_, bare, err := f.authority.CreateKey(t.Context(), identity.CreateKey{Kind: identity.KindAPI, Name: "n", Namespace: "nowhere", Author: "test"})
	if err != nil {
		t.Fatal(err)
	}
	id, secret := pair(t, bare)
	a = post("/v2.0/tokens", fmt.Sprintf(`{"auth":{"RAX-KSKEY:apiKeyCredentials":{"username":%q,"apiKey":%q}}}`, id, secret))
	if a.status != 403 || !strings.Contains(a.body, "telford namespaces alias nowhere") {
		t.Errorf("%d %s", a.status, a.body)
	}
}

func TestAccountsAreApart(t *testing.T) {
	t.Parallel()
	f := start(t)
	token := f.create(t, "same", 30, "")
	_, text, err := f.authority.CreateKey(t.Context(), identity.CreateKey{Kind: identity.KindAPI, Name: "n", Namespace: "7777", Author: "test"})
	if err != nil {
		t.Fatal(err)
	}
	other := f.login(t, first(pair(t, text)), second(pair(t, text)))
	ask := func(method, path, body string) *answer {
		return f.raw(t, fmt.Sprintf("%s /v1.0/7777%s HTTP/1.1\r\nHost: h\r\nX-Auth-Token: %s\r\nContent-Length: %d\r\n\r\n%s", method, path, other, len(body), body))
	}
	if a := ask("GET", "/services/same", ""); a.status != 404 {
		t.Errorf("another account's service: %d", a.status)
	}
	if a := ask("POST", "/services", `{"id":"same","heartbeat_timeout":30}`); a.status != 201 {
		t.Errorf("the same id in another account: %d %s", a.status, a.body)
	}
	faulty(t, ask("POST", "/services/same/heartbeat", fmt.Sprintf(`{"token":%q}`, token)), 404, "notFoundError", "object does not exist",
		`Object "HeartbeatMarker" with key "`+token+`" does not exist`)
	if a := ask("GET", "/events", ""); len(a.json(t)["values"].([]any)) != 1 {
		t.Errorf("events %s", a.body)
	}
}

func first(a, _ string) string  { return a }
func second(_, b string) string { return b }

func TestEvents(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.clock.Advance(time.Second)
	list := func(query string) ([]any, map[string]any) {
		t.Helper()
		a := f.send(t, "GET", "/events"+query, "")
		if a.status != 200 {
			t.Fatalf("%d %s", a.status, a.body)
		}
		v := a.json(t)
		return v["values"].([]any), v["metadata"].(map[string]any)
	}
	if got, _ := list(""); len(got) != 0 {
		t.Errorf("%v", got)
	}
	f.create(t, "abc", 30, `,"tags":["t"],"metadata":{"k":"v"}`)
	f.send(t, "DELETE", "/services/abc", "")
	f.create(t, "abc", 31, "")
	got, meta := list("?limit=2")
	join := got[0].(map[string]any)
	if diff := cmp.Diff(any(map[string]any{
		"id": "abc", "heartbeat_timeout": 30.0, "tags": []any{"t"}, "metadata": map[string]any{"k": "v"},
	}), join["payload"]); diff != "" {
		t.Error(diff)
	}
	if removed := got[1].(map[string]any); removed["type"] != "service.remove" || !cmp.Equal(removed["payload"], join["payload"]) {
		t.Errorf("%v", removed)
	}
	next, _ := meta["next_marker"].(string)
	if meta["marker"] != nil || next == "" || meta["next_href"] != "http://registry.test:1234/v1.0/1000/events?limit=2&marker="+next {
		t.Errorf("%v", meta)
	}
	if got, meta = list("?marker=" + next); len(got) != 1 || got[0].(map[string]any)["id"] != next || meta["marker"] != nil || meta["next_marker"] != nil {
		t.Errorf("%v %v", got, meta)
	}
	if got, _ = list("?type=service.remove"); len(got) != 1 {
		t.Errorf("%v", got)
	}
	if got, _ = list("?type=service.timeout"); len(got) != 0 {
		t.Errorf("%v", got)
	}
	valid := ". Valid types are: service.join, service.timeout, service.remove, configuration_value.update, configuration_value.remove"
	at := func(d time.Duration) string {
		return restregUUID(f.clock.Now().Add(d))
	}
	for query, text := range map[string]string{
		"marker=0": "Invalid UUID", "marker=": "Invalid UUID", "marker=" + next + "&marker=" + next: "Invalid UUID",
		"marker=6bc8d050-f86a-41e1-a89e-ca2ffe480b20": "UUID is not version 1",
		"marker=6bc8d050-f86a-11e1-289e-ca2ffe480b20": "Unsupported UUID variant",
		"marker=" + at(time.Second):                   "from parameter must be smaller than the current time",
		"marker=" + at(-20*time.Second):               "from parameter must be greater than or equal to the account creation date",
		"type=no":                                     "Invalid type: no" + valid,
		"type=telford.x":                              "Invalid type: telford.x" + valid,
		"type=service.join&type=service.join":         "Invalid type: service.join,service.join" + valid,
	} {
		faulty(t, f.send(t, "GET", "/events?"+query, ""), 400, "badRequest", text, text)
	}
	// Without a marker the last hour is told.
	f.clock.Advance(31 * time.Second)
	f.send(t, "GET", "/services", "")
	f.clock.Advance(time.Hour - 30*time.Second)
	if got, _ = list(""); len(got) != 1 || got[0].(map[string]any)["type"] != "service.timeout" {
		t.Errorf("%v", got)
	}
}
