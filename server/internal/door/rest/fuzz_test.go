package restdoor_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzRequest sends what nobody should: whatever comes, the answer is whole, of the known
// shape, and never a failure of the server.
func FuzzRequest(f *testing.F) {
	f.Add("GET", "/v1.0/1000/services?limit=1&marker=a", "", "")
	f.Add("POST", "/v1.0/1000/services", "application/json", `{"id":"abc","heartbeat_timeout":"3.0","tags":["a"],"metadata":{"k":"v"}}`)
	f.Add("PUT", "/v1.0/1000/services/abc", "", `{"tags":null,"metadata":{"service":"X","host":"::1","port":"1","methods":"a,b"}}`)
	f.Add("POST", "/v1.0/1000/services/abc/heartbeat", "", `{"token":"6bc8d050-f86a-11e1-a89e-ca2ffe480b20"}`)
	f.Add("GET", "/v1.0/1000/events?type=service.join&marker=6bc8d050-f86a-11e1-a89e-ca2ffe480b20", "", "")
	f.Add("POST", "/v2.0/tokens", "", `{"auth":{"RAX-KSKEY:apiKeyCredentials":{"username":"a","apiKey":"b"}}}`)
	f.Add("DELETE", "//v1.0/1000//services/%80", "x", "null")
	f.Add("GET", "/v1.0/1000/configuration//a/%2Fb/", "", "")
	fix := start(f)
	f.Fuzz(func(t *testing.T, method, target, contentType, body string) {
		r, err := http.NewRequestWithContext(t.Context(), method, "http://h/", strings.NewReader(body))
		if err != nil {
			return
		}
		u, err := r.URL.Parse(target)
		if err != nil || !strings.HasPrefix(target, "/") {
			return
		}
		r.URL, r.RequestURI = u, target
		if contentType != "" {
			r.Header.Set("Content-Type", contentType)
		}
		r.Header.Set("X-Auth-Token", fix.token)
		if !fix.door.Takes(r) {
			return
		}
		w := httptest.NewRecorder()
		fix.door.ServeHTTP(w, r)
		if w.Header().Get("X-Response-Id") == "" || w.Code >= 500 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if w.Body.Len() == 0 {
			return
		}
		var v map[string]any
		if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil || !utf8.Valid(w.Body.Bytes()) {
			t.Fatalf("%v: %s", err, w.Body)
		}
		if w.Code >= 400 && strings.HasPrefix(strings.ToLower(target), "/v1.0") && (len(v) != 5 || v["txnId"] != w.Header().Get("X-Response-Id")) {
			t.Errorf("no fault: %s", w.Body)
		}
	})
}
