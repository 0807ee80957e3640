package restdoor_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/server/internal/config"
)

func (f *fixture) values(t *testing.T, path string) (ids []string, meta map[string]any) {
	t.Helper()
	a := f.send(t, "GET", "/configuration"+path, "")
	if a.status != 200 {
		t.Fatalf("%s: %d %s", path, a.status, a.body)
	}
	v := a.json(t)
	ids = []string{}
	for _, x := range v["values"].([]any) {
		ids = append(ids, x.(map[string]any)["id"].(string))
	}
	return ids, v["metadata"].(map[string]any)
}

func TestConfiguration(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.clock.Advance(time.Second)
	set := func(id, value string) *answer {
		t.Helper()
		return f.send(t, "PUT", "/configuration/"+id, fmt.Sprintf(`{"value":%q}`, value))
	}
	for _, path := range []string{"", "/"} {
		if ids, _ := f.values(t, path); len(ids) != 0 {
			t.Errorf("%v", ids)
		}
	}
	a := set("cv.A-1", "<one>")
	if a.status != 204 || a.header.Get("Location") != "http://registry.test:1234/v1.0/1000/configuration/cv.A-1" {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	if a = set("/production/x-y-z", "deep"); a.header.Get("Location") != "http://registry.test:1234/v1.0/1000/configuration//production/x-y-z" {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	if a = f.send(t, "GET", "/configuration/cv.A-1?limit=5", ""); a.body != "{\n    \"id\": \"cv.A-1\",\n    \"value\": \"<one>\"\n}" {
		t.Errorf("%q", a.body)
	}
	for _, path := range []string{"//production/x-y-z", "/%2Fproduction%2Fx-y-z", "//production%2fx-y-z"} {
		if a = f.send(t, "GET", "/configuration"+path, ""); a.status != 200 || a.json(t)["value"] != "deep" {
			t.Errorf("%s: %d %s", path, a.status, a.body)
		}
	}
	set("cv.A-1", "<one>") // the same: no event
	set("cv.A-1", "two")
	if a = f.send(t, "DELETE", "/configuration/cv.A-1", ""); a.status != 204 || a.header.Get("Location") != "" {
		t.Errorf("%d %v", a.status, a.header)
	}
	faulty(t, f.send(t, "DELETE", "/configuration/cv.A-1", ""), 404, "notFoundError", "object does not exist", `Object "ConfigurationValue" with key "cv.A-1" does not exist`)
	faulty(t, f.send(t, "GET", "/configuration//production", ""), 404, "notFoundError", "object does not exist", `Object "ConfigurationValue" with key "/production" does not exist`)
	faulty(t, f.send(t, "GET", "/configuration/cv.A", ""), 404, "notFoundError", "object does not exist", nil)
	var events []any
	for _, e := range f.send(t, "GET", "/events", "").json(t)["values"].([]any) {
		e := e.(map[string]any)
		events = append(events, e["type"], e["payload"])
	}
	if diff := cmp.Diff([]any{
		"configuration_value.update",
		map[string]any{"old_value": nil, "new_value": "<one>", "configuration_value_id": "cv.A-1"},
		"configuration_value.update",
		map[string]any{"old_value": nil, "new_value": "deep", "configuration_value_id": "/production/x-y-z"},
		"configuration_value.update",
		map[string]any{"old_value": "<one>", "new_value": "two", "configuration_value_id": "cv.A-1"},
		"configuration_value.remove",
		map[string]any{"old_value": "two", "configuration_value_id": "cv.A-1"},
	}, events); diff != "" {
		t.Error(diff)
	}
}

func TestConfigurationIDs(t *testing.T) {
	t.Parallel()
	f := start(t)
	put := func(id, body string) *answer { return f.send(t, "PUT", "/configuration/"+id, body) }
	deep := strings.Repeat("/abc", 10) + "/key"
	for _, id := range []string{
		"abc", "A.B", "-_.", strings.Repeat("a", 170), "/production/cassandra", "/production/agent_endpoint/fb303.port",
		"/production/cassandra/", "/abc//def", "/abc.def", deep,
	} {
		if a := put(id, `{"value":"v","id":"abc"}`); a.status != 204 {
			t.Errorf("%s: %d %s", id, a.status, a.body)
		}
	}
	for id, rule := range map[string]string{
		"ab": "String is not in range (3..500)", strings.Repeat("a", 501): "String is not in range (3..500)",
		strings.Repeat("a", 171): "Invalid characters", "production/cassandra": "Invalid characters", "/production.foo/test": "Invalid characters",
		"/production/test.x/": "Invalid characters", "/ab/cde": "Invalid characters", "/abc/de": "Invalid characters", "/abc" + deep: "Invalid characters",
		"ab%c5%bf": "Invalid characters",
	} {
		faulty(t, put(id, `{"value":"v"}`), 400, "badRequest", "Invalid value for 'configurationId' query string parameter", rule)
	}
	faulty(t, f.send(t, "GET", "/configuration/%80", ""), 400, "badRequest", "URI malformed", nil)
	for body, want := range map[string][2]string{
		`{}`: {"value", "Missing required key (value)"}, `{"value":null}`: {"value", "Not a string"}, `{"value":""}`: {"value", "String is not in range (1..1024)"},
		`{"value":"` + strings.Repeat("é", 1025) + `"}`: {"value", "String is not in range (1..1024)"},
		`{"id":5}`:    {"id", "Not a string"},
		`{"id":"ab"}`: {"id", "String is not in range (3..500)"},
	} {
		faulty(t, put("abc", body), 400, "badRequest", "Validation error for key '"+want[0]+"'", want[1])
	}
	if a := put("abc", `{"value":"`+strings.Repeat("é", 1024)+`"}`); a.status != 204 {
		t.Errorf("1024 characters: %d %s", a.status, a.body)
	}
	faulty(t, f.send(t, "GET", "/configuration/abc?limit=x", ""), 400, "invalidLimit", "Invalid limit", "Limit must be a number")
	for _, method := range []string{"PUT", "DELETE", "POST"} {
		faulty(t, f.send(t, method, "/configuration", ""), 404, "notFoundError", "The page cannot be found.", nil)
	}
}

func TestConfigurationNamespaces(t *testing.T) {
	t.Parallel()
	f := start(t)
	for _, id := range []string{
		"plain", "Plain", "/production/cassandra", "/production/cassandra/hosts", "/production/cassandra/listen_ip", "/production/zookeeper/hosts", "/staging/zookeeper",
	} {
		if a := f.send(t, "PUT", "/configuration/"+id, `{"value":"v"}`); a.status != 204 {
			t.Fatalf("%s: %d %s", id, a.status, a.body)
		}
	}
	ids, _ := f.values(t, "?limit=1000")
	if len(ids) != 7 || ids[0] != "/production/cassandra" || ids[5] != "Plain" || ids[6] != "plain" {
		t.Errorf("%v", ids)
	}
	if ids, _ = f.values(t, "/production/"); len(ids) != 4 {
		t.Errorf("%v", ids)
	}
	if ids, _ = f.values(t, "/nothing/"); len(ids) != 0 {
		t.Errorf("%v", ids)
	}
	if ids, _ = f.values(t, "/no%20name/"); len(ids) != 0 {
		t.Errorf("%v", ids)
	}
	ids, meta := f.values(t, "/production/cassandra/?limit=1&marker=/production/cassandra/hosts")
	next := "/production/cassandra/listen_ip"
	if diff := cmp.Diff(map[string]any{
		"count": 1.0, "limit": 1.0, "marker": "/production/cassandra/hosts", "next_marker": next,
		"next_href": "http://registry.test:1234/v1.0/1000/configuration/production/cassandra/?limit=1&marker=%2Fproduction%2Fcassandra%2Flisten_ip",
	}, meta); diff != "" || ids[0] != "/production/cassandra/hosts" {
		t.Error(ids, diff)
	}
	if ids, meta = f.values(t, "/production/cassandra/?marker="+next); len(ids) != 1 || meta["next_marker"] != nil {
		t.Error(ids, meta)
	}
}

func TestConfigurationLimit(t *testing.T) {
	t.Parallel()
	f := start(t)
	var wg sync.WaitGroup
	for i := range 1000 {
		wg.Go(func() {
			if _, _, err := f.config.Set(t.Context(), "default", fmt.Sprintf("key-%04d", i), config.Input{Value: "v"}, config.Cond{}, "test"); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	faulty(t, f.send(t, "PUT", "/configuration/one-more", `{"value":"v"}`), 400, "limitReached", "Resource limit has been reached",
		"Limit for resource configuration_value has been reached. Maximum allowed objects: 1000")
	if a := f.send(t, "PUT", "/configuration/key-0007", `{"value":"changed"}`); a.status != 204 {
		t.Errorf("a change at the limit: %d %s", a.status, a.body)
	}
}
