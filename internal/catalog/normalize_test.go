package catalog_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
)

// whole is a declaration with everything in it.
func whole() *catalog.Declaration {
	return &catalog.Declaration{
		Service: "payments", Realm: "EU-1", Version: "1.2.0+build.7", CompatibleVersions: []string{"1.1", "1.0"},
		Methods: []catalog.Method{
			{
				Name: "shop.v1.Payments/Charge", Kind: catalog.Unary, Contract: "pb:0123abcd", ContentTypes: []string{"proto", "json"},
				InputMessage: "shop.v1.ChargeRequest", OutputMessage: "shop.v1.ChargeResponse", Description: "Takes money.",
				AllowedCallers: []string{"orders"}, Timeout: time.Second, NotRetryable: true,
				Limits: []catalog.Limit{
					{Concurrency: 4, Queue: 10, Key: "caller", Scope: "service"},
					{Rate: 0.5, Burst: 2, Key: "header:x-tenant"},
					{Rate: 1e6, Key: "field:tenant_id", Scope: "instance"},
					{Concurrency: 1, Key: "func"},
				},
			},
			{
				Name: "user:list", Kind: catalog.ServerStream, Contract: "js:ff", ContentTypes: []string{"json", "msgpack"},
				InputSchema: `{"type":"object"}`, OutputSchema: `true`,
			},
		},
		Endpoints: []catalog.Endpoint{
			{Kind: "link", Host: "10.0.0.7", Port: 14445},
			{Kind: "http", Host: "pay-1.shop.internal.", Port: 80},
			{Kind: "link", Host: "fe80::1%eth0", Port: 1},
		},
		Tags:         []string{"eu", "fast lane"},
		Metadata:     map[string]string{"team": "money", "note": "ünïcode\nlines"},
		Capabilities: []string{"rpc.handle"},
		Menu: []catalog.MenuItem{
			{ID: "m1", Label: "Payments", Kind: "LINK", Path: "/payments?x=1", Roles: []string{"admin"}, Order: 3, Icon: "coin"},
			{ID: "m2", Label: "Docs", Kind: "IFRAME", Path: "https://example.com/docs"},
		},
		Scope: catalog.ScopeGlobal, Locality: "eu-west-1a", Weight: 5, TTL: 30 * time.Second,
		Dependencies: []catalog.Dependency{
			{Kind: "rpc", Target: "orders", Names: []string{"shop.v1.Orders/Get"}},
			{Kind: "event", Target: "order.paid"},
			{Kind: "workflow", Target: "billing", Names: []string{"dunning"}},
		},
		Descriptors: []byte{1, 2, 3}, Status: catalog.Warning, StatusMessage: "warming up", SDK: "go/1.0",
	}
}

func TestNormalizeKeepsWhatIsRight(t *testing.T) {
	t.Parallel()
	d := whole()
	got, warnings, err := catalog.Normalize(d)
	if err != nil || warnings != nil {
		t.Fatal(err, warnings)
	}
	if diff := cmp.Diff(whole(), got); diff != "" {
		t.Fatal(diff)
	}
	// The copy is one.
	got.Methods[0].ContentTypes[0] = "x"
	got.Methods[0].AllowedCallers[0] = "x"
	got.Methods[0].Limits[0].Key = "x"
	got.Menu[0].Roles[0] = "x"
	got.Dependencies[0].Names[0] = "x"
	got.Metadata["team"] = "x"
	got.Descriptors[0] = 9
	got.Tags[0] = "x"
	got.Endpoints[0].Port = 9
	got.Capabilities[0] = "x"
	got.CompatibleVersions[0] = "x"
	if diff := cmp.Diff(whole(), d); diff != "" {
		t.Fatal(diff)
	}
}

func TestNormalizeFillsDefaults(t *testing.T) {
	t.Parallel()
	got, _, err := catalog.Normalize(&catalog.Declaration{Service: "a", Methods: []catalog.Method{{Name: "m"}}})
	if err != nil {
		t.Fatal(err)
	}
	want := &catalog.Declaration{
		Service: "a", Realm: "global", Scope: catalog.ScopeZone, Weight: 1, TTL: 90 * time.Second, Status: catalog.OK,
		Methods: []catalog.Method{{Name: "m", Kind: catalog.Unary}},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Fatal(diff)
	}
}

func TestNormalizeRefuses(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 200)
	cases := []struct {
		name   string
		change func(*catalog.Declaration)
		says   string
	}{
		{"no service", func(d *catalog.Declaration) { d.Service = "" }, `service ""`},
		{"service", func(d *catalog.Declaration) { d.Service = "Payments" }, `service "Payments"`},
		{"long service", func(d *catalog.Declaration) { d.Service = long }, "1 to 128"},
		{"realm", func(d *catalog.Declaration) { d.Realm = "eu*" }, `realm "eu*"`},
		{"version", func(d *catalog.Declaration) { d.Version = "1 2" }, `version "1 2"`},
		{"compatible version", func(d *catalog.Declaration) { d.CompatibleVersions = []string{""} }, `compatible version ""`},
		{"compatible versions", func(d *catalog.Declaration) { d.CompatibleVersions = many(65) }, "65 compatible_versions"},
		{"scope", func(d *catalog.Declaration) { d.Scope = "moon" }, `scope "moon"`},
		{"locality", func(d *catalog.Declaration) { d.Locality = "a/b" }, `locality "a/b"`},
		{"status", func(d *catalog.Declaration) { d.Status = "GOOD" }, `status "GOOD"`},
		{"status message", func(d *catalog.Declaration) { d.StatusMessage = strings.Repeat("x", 1025) }, "1025 bytes"},
		{"status text", func(d *catalog.Declaration) { d.StatusMessage = "\xff" }, "UTF-8"},
		{"sdk", func(d *catalog.Declaration) { d.SDK = long }, "sdk of 200 bytes"},
		{"weight", func(d *catalog.Declaration) { d.Weight = 1001 }, "weight 1001"},
		{"negative weight", func(d *catalog.Declaration) { d.Weight = -1 }, "weight -1"},
		{"ttl", func(d *catalog.Declaration) { d.TTL = time.Millisecond }, "ttl 1ms"},
		{"long ttl", func(d *catalog.Declaration) { d.TTL = 25 * time.Hour }, "ttl 25h"},
		{"descriptors", func(d *catalog.Declaration) { d.Descriptors = make([]byte, 1<<20+1) }, "descriptors of 1048577"},
		{"method", func(d *catalog.Declaration) { d.Methods[0].Name = "a b" }, `method "a b"`},
		{"no method", func(d *catalog.Declaration) { d.Methods[0].Name = "" }, `method ""`},
		{"leading slash", func(d *catalog.Declaration) { d.Methods[0].Name = "/a/B" }, `method "/a/B"`},
		{"dots", func(d *catalog.Declaration) { d.Methods[0].Name = "a/../b" }, `method "a/../b"`},
		{"two methods", func(d *catalog.Declaration) { d.Methods[1].Name = d.Methods[0].Name }, "declared twice"},
		{"methods", func(d *catalog.Declaration) { d.Methods = make([]catalog.Method, 4097) }, "4097 methods"},
		{"kind", func(d *catalog.Declaration) { d.Methods[0].Kind = "both" }, `kind "both"`},
		{"contract", func(d *catalog.Declaration) { d.Methods[0].Contract = "sha:1" }, `contract "sha:1"`},
		{"content types", func(d *catalog.Declaration) { d.Methods[0].ContentTypes = many(17) }, "17 content types"},
		{"message", func(d *catalog.Declaration) { d.Methods[0].InputMessage = "a..b" }, `"a..b"`},
		{"schema", func(d *catalog.Declaration) { d.Methods[0].InputSchema = "{" }, `schema "{"`},
		{"schemas", func(d *catalog.Declaration) { d.Methods[0].InputSchema = `"` + strings.Repeat("x", 1<<20) + `"` }, "schemas of 1048"},
		{"description", func(d *catalog.Declaration) { d.Methods[0].Description = strings.Repeat("x", 5000) }, "5000 bytes"},
		{"callers", func(d *catalog.Declaration) { d.Methods[0].AllowedCallers = many(1025) }, "1025 allowed callers"},
		{"caller", func(d *catalog.Declaration) { d.Methods[0].AllowedCallers = []string{"or*"} }, `allowed caller "or*"`},
		{"timeout", func(d *catalog.Declaration) { d.Methods[0].Timeout = -1 }, "timeout -1ns"},
		{"long timeout", func(d *catalog.Declaration) { d.Methods[0].Timeout = 31 * 24 * time.Hour }, "timeout 744h0m0s"},
		{"limits", func(d *catalog.Declaration) { d.Methods[0].Limits = make([]catalog.Limit, 9) }, "9 limits"},
		{"limit of nothing", limited(catalog.Limit{}), "limit 1: it bounds nothing"},
		{"concurrency", limited(catalog.Limit{Concurrency: -1}), "concurrency -1"},
		{"much concurrency", limited(catalog.Limit{Concurrency: 1_000_001}), "concurrency 1000001"},
		{"queue", limited(catalog.Limit{Concurrency: 1, Queue: -5}), "queue -5"},
		{"queue alone", limited(catalog.Limit{Rate: 1, Queue: 5}), "queue 5 means nothing"},
		{"rate", limited(catalog.Limit{Rate: -1}), "rate -1"},
		{"high rate", limited(catalog.Limit{Rate: 1e7}), "rate 1e+07"},
		{"no rate", limited(catalog.Limit{Rate: math.NaN()}), "rate NaN"},
		{"endless rate", limited(catalog.Limit{Rate: math.Inf(1)}), "rate +Inf"},
		{"burst", limited(catalog.Limit{Rate: 1, Burst: -1}), "burst -1"},
		{"burst alone", limited(catalog.Limit{Concurrency: 1, Burst: 1}), "burst 1 means nothing"},
		{"key", limited(catalog.Limit{Rate: 1, Key: "ip"}), `key "ip"`},
		{"header", limited(catalog.Limit{Rate: 1, Key: "header:X-Tenant"}), `key "header:X-Tenant"`},
		{"no header", limited(catalog.Limit{Rate: 1, Key: "header:"}), `key "header:"`},
		{"field", limited(catalog.Limit{Rate: 1, Key: "field:a.b"}), `key "field:a.b"`},
		{"limit scope", limited(catalog.Limit{Rate: 1, Scope: "moon"}), `scope "moon"`},
		{"wildcard", func(d *catalog.Declaration) { d.Endpoints[0].Host = "0.0.0.0" }, "wildcard"},
		{"wildcard 6", func(d *catalog.Declaration) { d.Endpoints[0].Host = "::" }, "wildcard"},
		{"wildcard mapped", func(d *catalog.Declaration) { d.Endpoints[0].Host = "::ffff:0.0.0.0" }, "wildcard"},
		{"star", func(d *catalog.Declaration) { d.Endpoints[0].Host = "*" }, "wildcard"},
		{"multicast", func(d *catalog.Declaration) { d.Endpoints[0].Host = "224.0.0.1" }, "224.0.0.1"},
		{"broadcast", func(d *catalog.Declaration) { d.Endpoints[0].Host = "255.255.255.255" }, "255.255.255.255"},
		{"no host", func(d *catalog.Declaration) { d.Endpoints[0].Host = "" }, `endpoint ""`},
		{"host", func(d *catalog.Declaration) { d.Endpoints[0].Host = "a b" }, `"a b"`},
		{"host with port", func(d *catalog.Declaration) { d.Endpoints[0].Host = "a:80" }, `"a:80"`},
		{"short address", func(d *catalog.Declaration) { d.Endpoints[0].Host = "10.1" }, `"10.1"`},
		{"dash", func(d *catalog.Declaration) { d.Endpoints[0].Host = "-a.b" }, `"-a.b"`},
		{"port", func(d *catalog.Declaration) { d.Endpoints[0].Port = 0 }, "port 0"},
		{"high port", func(d *catalog.Declaration) { d.Endpoints[0].Port = 65536 }, "port 65536"},
		{"endpoint kind", func(d *catalog.Declaration) { d.Endpoints[0].Kind = "ftp" }, `kind "ftp"`},
		{"endpoints", func(d *catalog.Declaration) { d.Endpoints = make([]catalog.Endpoint, 33) }, "33 endpoints"},
		{"tag", func(d *catalog.Declaration) { d.Tags = []string{"a\nb"} }, `tag "a\nb"`},
		{"tags", func(d *catalog.Declaration) { d.Tags = many(65) }, "65 tags"},
		{"metadata", func(d *catalog.Declaration) { d.Metadata["x"] = strings.Repeat("x", 64<<10) }, "metadata of 65"},
		{"metadata key", func(d *catalog.Declaration) { d.Metadata[""] = "x" }, `metadata key ""`},
		{"metadata value", func(d *catalog.Declaration) { d.Metadata["x"] = "\xff" }, "UTF-8"},
		{"capability", func(d *catalog.Declaration) { d.Capabilities = []string{"RPC"} }, `capability "RPC"`},
		{"capabilities", func(d *catalog.Declaration) { d.Capabilities = many(65) }, "65 capabilities"},
		{"menu id", func(d *catalog.Declaration) { d.Menu[0].ID = "" }, `menu item ""`},
		{"menu twice", func(d *catalog.Declaration) { d.Menu[1].ID = "m1" }, `menu item "m1" is declared twice`},
		{"menu label", func(d *catalog.Declaration) { d.Menu[0].Label = "" }, "no label"},
		{"menu kind", func(d *catalog.Declaration) { d.Menu[0].Kind = "link" }, `kind "link"`},
		{"script", func(d *catalog.Declaration) { d.Menu[0].Path = "javascript:alert(1)" }, `"javascript:alert(1)"`},
		{"other host", func(d *catalog.Declaration) { d.Menu[0].Path = "//evil.example/" }, `"//evil.example/"`},
		{"menu path", func(d *catalog.Declaration) { d.Menu[0].Path = "payments" }, `path "payments"`},
		{"menu role", func(d *catalog.Declaration) { d.Menu[0].Roles = []string{"A"} }, `role "A"`},
		{"menu", func(d *catalog.Declaration) { d.Menu = make([]catalog.MenuItem, 65) }, "65 menu items"},
		{"dependency kind", func(d *catalog.Declaration) { d.Dependencies[0].Kind = "x" }, `kind "x"`},
		{"dependency", func(d *catalog.Declaration) { d.Dependencies[0].Target = "A" }, `dependency on "A"`},
		{"topic", func(d *catalog.Declaration) { d.Dependencies[1].Target = "order.#" }, `"order.#"`},
		{"dependency name", func(d *catalog.Declaration) { d.Dependencies[0].Names = []string{"a b"} }, `"a b"`},
		{"dependencies", func(d *catalog.Declaration) { d.Dependencies = make([]catalog.Dependency, 1025) }, "1025 dependencies"},
		{"dependency names", func(d *catalog.Declaration) { d.Dependencies[0].Names = many(4097) }, "4098 names"},
	}
	for _, c := range cases {
		d := whole()
		c.change(d)
		got, _, err := catalog.Normalize(d)
		if errs.CodeOf(err) != errs.InvalidArgument || got != nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v, want it to say %s", c.name, err, c.says)
		}
	}
	_, _, err := catalog.Normalize(nil)
	if errs.CodeOf(err) != errs.InvalidArgument {
		t.Error(err)
	}
}

func many(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprint("n", i)
	}
	return out
}

func limited(l catalog.Limit) func(*catalog.Declaration) {
	return func(d *catalog.Declaration) { d.Methods[0].Limits = []catalog.Limit{l} }
}

func TestEveryProblemIsListed(t *testing.T) {
	t.Parallel()
	_, _, err := catalog.Normalize(&catalog.Declaration{
		Service: "A", Weight: -1, Tags: []string{""}, Endpoints: []catalog.Endpoint{{Kind: "x", Host: "*", Port: -1}},
	})
	for _, part := range []string{`service "A"`, "weight -1", `tag ""`, `kind "x"`, "wildcard", "port -1"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not say %s", err, part)
		}
	}
	// A hostile one is not answered at length.
	_, _, err = catalog.Normalize(&catalog.Declaration{Service: strings.Repeat("Ä", 1<<20), Methods: make([]catalog.Method, 100_000)})
	if len(err.Error()) > 64<<10 || !strings.Contains(err.Error(), "more") {
		t.Errorf("an answer of %d bytes", len(err.Error()))
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	d := whole()
	d.Descriptors = nil
	d.Methods[0].ContentTypes = []string{"json", "cbor", "json"}
	d.Tags = []string{"a", "b", "a"}
	d.Endpoints = []catalog.Endpoint{
		{Kind: "link", Host: "127.0.0.1", Port: 1},
		{Kind: "link", Host: "LocalHost", Port: 1},
		{Kind: "link", Host: "::1", Port: 1},
		{Kind: "link", Host: "::1", Port: 1},
	}
	got, warnings, err := catalog.Normalize(d)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"json"}, got.Methods[0].ContentTypes); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]string{"a", "b"}, got.Tags); diff != "" {
		t.Error(diff)
	}
	if len(got.Endpoints) != 3 {
		t.Error(got.Endpoints)
	}
	var about []string
	for _, w := range warnings {
		about = append(about, w.Declaration+" "+w.Value)
		if w.Reason == "" || w.Side == "" {
			t.Errorf("%+v says too little", w)
		}
	}
	want := []string{
		"methods json", "methods shop.v1.Payments/Charge", "descriptors shop.v1.Payments/Charge",
		"endpoints 127.0.0.1", "endpoints LocalHost", "endpoints ::1", "endpoints ::1", "tags a",
	}
	if diff := cmp.Diff(want, about); diff != "" {
		t.Error(diff)
	}
}

func TestGRPCService(t *testing.T) {
	t.Parallel()
	for method, want := range map[string]string{
		"shop.v1.Payments/Charge": "shop.v1.Payments", "charge": "", "a/b/c": "", "/a": "", "a/": "",
	} {
		got, ok := catalog.GRPCService(method)
		if ok != (want != "") || (ok && got != want) {
			t.Errorf("%s: %q %v", method, got, ok)
		}
	}
}

// FuzzNormalize feeds it JSON, as a stored or posted declaration is: it must neither
// panic nor answer at length, and what it accepts it must accept again, unchanged.
func FuzzNormalize(f *testing.F) {
	full, err := json.Marshal(whole())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(full)
	f.Add([]byte(`{"service":"a","methods":[{"name":"x"},{"name":"x"}],"endpoints":[{"kind":"link","host":"::","port":1}]}`))
	f.Add([]byte(`{"service":"a","tags":["\u0000"],"ttl":-1,"weight":-9223372036854775808}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		d := new(catalog.Declaration)
		if json.Unmarshal(raw, d) != nil {
			return
		}
		before, err := json.Marshal(d)
		if err != nil {
			t.Fatal(err)
		}
		got, warnings, err := catalog.Normalize(d)
		if after, _ := json.Marshal(d); !bytes.Equal(before, after) {
			t.Fatalf("the declaration was changed:\n%s\n%s", before, after)
		}
		if len(warnings) > 50 {
			t.Fatalf("%d warnings", len(warnings))
		}
		if err != nil {
			if len(err.Error()) > 64<<10 {
				t.Fatalf("an answer of %d bytes", len(err.Error()))
			}
			return
		}
		again, _, err := catalog.Normalize(got)
		if err != nil {
			t.Fatalf("accepted, then refused: %v", err)
		}
		if diff := cmp.Diff(got, again); diff != "" {
			t.Fatal(diff)
		}
	})
}
