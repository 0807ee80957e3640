package restdoor_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/server/internal/registry"
)

func TestServiceLife(t *testing.T) {
	t.Parallel()
	f := start(t)
	a := f.send(t, "GET", "/services", "")
	if a.status != 200 || a.header.Get("Content-Type") != "application/json; charset=UTF-8" || a.header.Get("Content-Length") == "" {
		t.Errorf("%d %v", a.status, a.header)
	}
	want := `{
    "values": [],
    "metadata": {
        "count": 0,
        "limit": 100,
        "marker": null,
        "next_marker": null,
        "next_href": null
    }
}`
	if diff := cmp.Diff(want, a.body); diff != "" {
		t.Error(diff)
	}

	a = f.send(t, "POST", "/services", `{"id":"srv-1.x_Y","heartbeat_timeout":"30.0","tags":["db","mysql"],"metadata":{"port":"<3306>"},"unknown":1,"last_seen":5}`, "Content-Type: application/JSON; charset=x")
	if a.status != 201 || a.header.Get("Location") != "http://registry.test:1234/v1.0/1000/services/srv-1.x_Y" || a.header.Get("Content-Length") == "" {
		t.Fatalf("%d %v %s", a.status, a.header, a.body)
	}
	if got := strings.Split(a.header.Get("Location"), "/")[6]; got != "srv-1.x_Y" {
		t.Errorf("element 6 of Location is %s", got)
	}
	first := a.json(t)["token"].(string)
	a = f.send(t, "GET", "/SERVICES/srv-1.x_Y/", "")
	want = `{
    "id": "srv-1.x_Y",
    "tags": [
        "db",
        "mysql"
    ],
    "metadata": {
        "port": "<3306>"
    },
    "heartbeat_timeout": 30,
    "last_seen": null
}`
	if diff := cmp.Diff(want, a.body); diff != "" {
		t.Error(diff)
	}
	if inst := f.registry.List(registry.Filter{Tag: "mysql"}); len(inst) != 1 || inst[0].Door != "rest" || inst[0].Declaration.Service != "srv-1.x_y" {
		t.Errorf("instances %+v", inst)
	}

	f.clock.Advance(1500 * time.Millisecond)
	a = f.send(t, "POST", "/services/srv-1.x_Y/heartbeat", fmt.Sprintf(`{"token":%q}`, strings.ToUpper(first)))
	second, _ := a.json(t)["token"].(string)
	if a.status != 200 || len(second) != 36 || second == first || a.header.Get("Connection") != "keep-alive" {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	if got := f.send(t, "GET", "/services/srv-1.x_Y", "").json(t)["last_seen"]; got != float64(f.clock.Now().UnixMilli()) {
		t.Errorf("last seen %v", got)
	}
	faulty(t, f.send(t, "POST", "/services/srv-1.x_Y/heartbeat", fmt.Sprintf(`{"token":%q}`, first)),
		404, "notFoundError", "object does not exist", `Object "HeartbeatMarker" with key "`+first+`" does not exist`)
	faulty(t, f.send(t, "POST", "/services/%22/heartbeat", fmt.Sprintf(`{"token":%q}`, first)),
		404, "notFoundError", "object does not exist", `Object "Service" with key """ does not exist`)

	a = f.send(t, "PUT", "/services/srv-1.x_Y", `{"tags":[],"metadata":null,"id":"srv-1.x_Y"}`)
	if a.status != 204 || a.header.Get("Location") != "http://registry.test:1234/v1.0/1000/services/srv-1.x_Y" || a.body != "" {
		t.Errorf("%d %v %s", a.status, a.header, a.body)
	}
	v := f.send(t, "GET", "/services/srv-1.x_Y", "").json(t)
	if !cmp.Equal(v["tags"], []any{}) || !cmp.Equal(v["metadata"], map[string]any{}) {
		t.Errorf("after the update %v", v)
	}
	if a = f.send(t, "PUT", "/services/srv-1.x_Y", ""); a.status != 204 {
		t.Errorf("an empty update: %d", a.status)
	}
	faulty(t, f.send(t, "PUT", "/services/srv-1.x_Y", `{"id":"other"}`), 400, "badRequest", "Validation error for key 'id'", "Attempted to mutate immutable field")
	if a = f.send(t, "DELETE", "/services/srv-1.x_Y", ""); a.status != 204 || a.header.Get("Location") != "" {
		t.Errorf("%d %v", a.status, a.header)
	}
	faulty(t, f.send(t, "GET", "/services/srv-1.x_Y", ""), 404, "notFoundError", "object does not exist", `Object "Service" with key "srv-1.x_Y" does not exist`)
	if len(f.registry.List(registry.Filter{})) != 0 {
		t.Error("the instance is still there")
	}
}

func TestServiceBodies(t *testing.T) {
	t.Parallel()
	f := start(t)
	wide := strings.Repeat("𝒳", 27) // 54 UTF-16 units
	many := `"a0":"v"`
	for i := 1; i < 21; i++ {
		many += fmt.Sprintf(`,"a%d":"v"`, i)
	}
	for _, c := range []struct{ body, key, rule string }{
		{`{"heartbeat_timeout":30}`, "id", "Missing required key (id)"},
		{`[]`, "id", "Missing required key (id)"},
		{`true`, "id", "Missing required key (id)"},
		{``, "id", "Missing required key (id)"},
		{`{"id":5}`, "id", "Not a string"},
		{`{"id":"ab"}`, "id", "String is not in range (3..65)"},
		{`{"id":"` + strings.Repeat("a", 66) + `"}`, "id", "String is not in range (3..65)"},
		{`{"id":"a b"}`, "id", "Invalid characters"},
		{`{"id":"abſ"}`, "id", "Invalid characters"},
		{`{"id":"ab\u212a"}`, "id", "Invalid characters"},
		{`{"id":"abc"}`, "heartbeat_timeout", "Missing required key (heartbeat_timeout)"},
		{`{"id":"abc","heartbeat_timeout":3.5}`, "heartbeat_timeout", "Invalid integer"},
		{`{"id":"abc","heartbeat_timeout":null}`, "heartbeat_timeout", "Invalid integer"},
		{`{"id":"abc","heartbeat_timeout":true}`, "heartbeat_timeout", "Invalid integer"},
		{`{"id":"abc","heartbeat_timeout":"3x"}`, "heartbeat_timeout", "Invalid integer"},
		{`{"id":"abc","heartbeat_timeout":2}`, "heartbeat_timeout", "Value out of range (3..120)"},
		{`{"id":"abc","heartbeat_timeout":121}`, "heartbeat_timeout", "Value out of range (3..120)"},
		{`{"id":"abc","heartbeat_timeout":1e400}`, "heartbeat_timeout", "Value out of range (3..120)"},
		{`{"id":"abc","heartbeat_timeout":-30}`, "heartbeat_timeout", "Value out of range (3..120)"},
		{`{"id":"abc","tags":"x"}`, "tags", "Not an array"},
		{`{"id":"abc","tags":["a","a","a","a","a","a","a","a","a","a","a"]}`, "tags", "Object needs to have between 0 and 10 items"},
		{`{"id":"abc","tags":[1]}`, "tags", "Not a string"},
		{`{"id":"abc","tags":[""]}`, "tags", "String is not in range (1..55)"},
		{`{"id":"abc","tags":["` + wide + `𝒳"]}`, "tags", "String is not in range (1..55)"},
		{`{"id":"abc","metadata":[]}`, "metadata", "Not a hash"},
		{`{"id":"abc","metadata":{` + many + `}}`, "metadata", "Object needs to have between 0 and 20 items"},
		{`{"id":"abc","metadata":{"":"x"}}`, "metadata", "Key : String is not in range (1..255)"},
		{`{"id":"abc","metadata":{"k":1}}`, "metadata", "Value for key 'k': Not a string"},
		{`{"id":"abc","metadata":{"k":""}}`, "metadata", "Value for key 'k': String is not in range (1..255)"},
		{`{"id":"abc","metadata":{"k":1},"tags":"x"}`, "tags", "Not an array"},
	} {
		faulty(t, f.send(t, "POST", "/services", c.body), 400, "badRequest", "Validation error for key '"+c.key+"'", c.rule)
	}
	f.create(t, "abc", 3, `,"tags":["`+wide+`","`+wide+`"],"metadata":{"`+strings.Repeat("k", 255)+`":"v"}`)
	faulty(t, f.send(t, "POST", "/services", `{"id":"abc","heartbeat_timeout":3}`), 400, "serviceWithThisIdExists",
		"Service with id abc already exists.", "Service with id abc already exists.")
	for _, id := range []string{"a", "a%20b", strings.Repeat("a", 66)} {
		for _, method := range []string{"GET", "PUT", "DELETE"} {
			faulty(t, f.send(t, method, "/services/"+id, ""), 400, "badRequest", "Invalid value for 'serviceId' query string parameter", nil)
		}
	}
	for token, rule := range map[string]string{
		`{}`: "Missing required key (token)", `{"token":1}`: "Not a string", `{"token":"x"}`: "Invalid UUID",
		`{"token":"6bc8d050-f86a-11e1-289e-ca2ffe480b20"}`: "Unsupported UUID variant",
		`{"token":"6bc8d050-f86a-41e1-a89e-ca2ffe480b20"}`: "UUID is not version 1",
	} {
		faulty(t, f.send(t, "POST", "/services/abc/heartbeat", token), 400, "badRequest", "Validation error for key 'token'", rule)
	}
}

func TestPagesOfServices(t *testing.T) {
	t.Parallel()
	f := start(t)
	for i := range 5 {
		more := `,"tags":["only"]`
		if i > 2 {
			more = `,"tags":["all","only-not"]`
		}
		f.create(t, fmt.Sprintf("api-%d", i), 30, more)
	}
	ids := func(a *answer) (ids []string, meta map[string]any) {
		t.Helper()
		for _, s := range a.json(t)["values"].([]any) {
			ids = append(ids, s.(map[string]any)["id"].(string))
		}
		return ids, a.json(t)["metadata"].(map[string]any)
	}
	got, meta := ids(f.send(t, "GET", "/services?limit=2&x=a/b&marker=api-1", ""))
	want := map[string]any{
		"count": 2.0, "limit": 2.0, "marker": "api-1", "next_marker": "api-3",
		"next_href": "http://registry.test:1234/v1.0/1000/services?limit=2&x=a%2Fb&marker=api-3",
	}
	if diff := cmp.Diff([]string{"api-1", "api-2"}, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(want, meta); diff != "" {
		t.Error(diff)
	}
	if got, meta = ids(f.send(t, "GET", "/services?tag=only&limit=2&marker=api-0x", "")); len(got) != 2 || got[0] != "api-1" || meta["next_marker"] != nil {
		t.Errorf("%v %v", got, meta)
	}
	for path, details := range map[string]string{
		"tag=": "String is not in range (3..65)", "tag=%22%22%22": "Invalid characters", "tag=a%0d%0aX": "Invalid characters", "tag=abc&tag=abc": "Not a string",
	} {
		faulty(t, f.send(t, "GET", "/services?"+path, ""), 400, "badRequest", "Invalid value for 'tag' query string parameter", details)
	}
	for path, details := range map[string]string{
		"limit=": "Limit must be a number", "limit=-1": "Limit must be a number", "limit=1&limit=2": "Limit must be a number",
		"limit=0":                          "Invalid limit 0. Minimum limit is 1 and maximum limit is 1000.",
		"limit=1001":                       "Invalid limit 1001. Minimum limit is 1 and maximum limit is 1000.",
		"limit=" + strings.Repeat("9", 40): "Invalid limit " + strings.Repeat("9", 40) + ". Minimum limit is 1 and maximum limit is 1000.",
	} {
		faulty(t, f.send(t, "GET", "/services?"+path, ""), 400, "invalidLimit", "Invalid limit", details)
	}
	for _, marker := range []string{"marker=a%20b", "marker=" + strings.Repeat("a", 256), "marker=a&marker=b"} {
		faulty(t, f.send(t, "GET", "/services?"+marker, ""), 400, "badRequest", "Invalid value for 'marker' query string parameter", nil)
	}
}

func TestQuickDeath(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.create(t, "one", 3, "")
	f.clock.Advance(time.Millisecond)
	token := f.create(t, "two", 3, "")
	f.clock.Advance(4 * time.Second)
	types := func() (types []string, times []float64) {
		for _, e := range f.send(t, "GET", "/events", "").json(t)["values"].([]any) {
			types = append(types, e.(map[string]any)["type"].(string))
			times = append(times, e.(map[string]any)["timestamp"].(float64))
		}
		return types, times
	}
	var wg sync.WaitGroup
	for range 150 {
		wg.Go(func() {
			got, _ := types()
			if diff := cmp.Diff([]string{"service.join", "service.join", "service.timeout", "service.timeout"}, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	wg.Wait()
	if _, at := types(); at[2] != at[0]+3000 || at[3] != at[1]+3000 {
		t.Errorf("the events are at %v", at)
	}
	faulty(t, f.send(t, "POST", "/services/two/heartbeat", fmt.Sprintf(`{"token":%q}`, token)), 404, "notFoundError",
		"object does not exist", `Object "Service" with key "two" does not exist`)
	// The id is free again.
	f.create(t, "two", 10, `,"tags":["new"]`)
}

func TestServiceLimit(t *testing.T) {
	t.Parallel()
	f := start(t)
	for i := range 200 {
		f.create(t, fmt.Sprintf("api-%03d", i), 120, "")
	}
	faulty(t, f.send(t, "POST", "/services", `{"id":"one-more","heartbeat_timeout":30}`), 400, "limitReached",
		"Resource limit has been reached", "Limit for resource service has been reached. Maximum allowed objects: 200")
}
