package restdoor_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The bodies that published clients send, as they are.
func TestFixtures(t *testing.T) {
	t.Parallel()
	f := start(t)
	body := func(name string) string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join("testdata", "request", name))
		must(t, err)
		return string(b)
	}
	a := f.send(t, "POST", "/services", body("services-post.json"))
	if a.status != 201 {
		t.Fatal(a.status, a.body)
	}
	a = f.send(t, "POST", "/services/dfw1-db1/heartbeat", fmt.Sprintf(`{"token":%q}`, a.json(t)["token"]))
	if a.status != 200 {
		t.Fatal(a.status, a.body)
	}
	a = f.send(t, "GET", "/services/dfw1-db1", "")
	want := fmt.Sprintf(`{
    "id": "dfw1-db1",
    "tags": [
        "db",
        "mysql"
    ],
    "metadata": {
        "ip": "127.0.0.1",
        "port": "3306",
        "region": "dfw",
        "version": "5.5.24-0ubuntu0.12.04.1 (Ubuntu)"
    },
    "heartbeat_timeout": 30,
    "last_seen": %d
}`, f.clock.Now().UnixMilli())
	if diff := cmp.Diff(want, a.body); diff != "" {
		t.Error(diff)
	}
	if a = f.send(t, "PUT", "/configuration/configId", body("configuration-configId-put.json")); a.status != 204 {
		t.Fatal(a.status, a.body)
	}
	a = f.send(t, "GET", "/configuration", "")
	want = `{
    "values": [
        {
            "id": "configId",
            "value": "test value 123456"
        }
    ],
    "metadata": {
        "count": 1,
        "limit": 100,
        "marker": null,
        "next_marker": null,
        "next_href": null
    }
}`
	if diff := cmp.Diff(want, a.body); diff != "" {
		t.Error(diff)
	}
}
