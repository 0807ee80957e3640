package rest_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/registry/rest"
)

func ptr[T any](v T) *T { return &v }

func db1() rest.Service {
	return rest.Service{
		ID: "dfw1-db1", Tags: []string{"db", "mysql"}, HeartbeatTimeout: 30 * time.Second,
		Metadata: map[string]string{"region": "dfw", "port": "3306", "ip": "127.0.0.1", "version": "5.5.24-0ubuntu0.12.04.1 (Ubuntu)"},
	}
}

func seen(s rest.Service) rest.Service {
	s.LastSeen = time.UnixMilli(1362900438).UTC()
	return s
}

func api1() rest.Service {
	return seen(rest.Service{ID: "dfw1-api", Tags: []string{}, Metadata: map[string]string{}, HeartbeatTimeout: 30 * time.Second})
}

// TestRoutes asks for everything once and compares the request byte by byte and what was
// read from the answer.
func TestRoutes(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	page := func(count, limit int, marker *string) rest.PageMetadata {
		return rest.PageMetadata{Count: count, Limit: limit, Marker: marker}
	}
	const token = "6bc8d050-f86a-11e1-a89e-ca2ffe480b20"
	tests := []struct {
		name              string
		method, uri, body string
		status            int
		answer            string
		do                func(c *rest.Client) (any, error)
		want              any
	}{
		{
			"limits", "GET", "/v1.0/7777/limits", "", 200, fixture(t, "response/limits-get.json"),
			func(c *rest.Client) (any, error) { return c.Limits(ctx) },
			rest.Limits{Resource: map[string]int{}, Rate: map[string]rest.RateLimit{"/.*": {Limit: 500000, Window: "24.0 hours"}}},
		},
		{
			"services", "GET", "/v1.0/7777/services", "", 200, fixture(t, "response/services-get.json"),
			func(c *rest.Client) (any, error) { return c.ListServices(ctx, rest.ServiceQuery{}) },
			rest.Page[rest.Service]{Values: []rest.Service{api1(), seen(db1())}, Metadata: page(2, 100, nil)},
		},
		{
			"services, first page", "GET", "/v1.0/7777/services?limit=1", "", 200, fixture(t, "response/services-get-limit-1-page-1.json"),
			func(c *rest.Client) (any, error) { return c.ListServices(ctx, rest.ServiceQuery{Limit: 1}) },
			rest.Page[rest.Service]{Values: []rest.Service{api1()}, Metadata: rest.PageMetadata{
				Count: 1, Limit: 1, NextMarker: ptr("dfw1-db1"),
				NextHref: ptr("https://todo.api.rackspacecloud.com/v1.0/7777/services?limit=1&marker=dfw1-db1"),
			}},
		},
		{
			"services, second page", "GET", "/v1.0/7777/services?marker=dfw1-db1", "", 200, fixture(t, "response/services-get-with-marker-page-2.json"),
			func(c *rest.Client) (any, error) { return c.ListServices(ctx, rest.ServiceQuery{Marker: "dfw1-db1"}) },
			rest.Page[rest.Service]{Values: []rest.Service{seen(db1())}, Metadata: page(1, 100, ptr("dfw1-db1"))},
		},
		{
			"services by tag", "GET", "/v1.0/7777/services?tag=db", "", 200, fixture(t, "response/services-tag-db-get.json"),
			func(c *rest.Client) (any, error) { return c.ListServices(ctx, rest.ServiceQuery{Tag: "db"}) },
			rest.Page[rest.Service]{Values: []rest.Service{seen(db1())}, Metadata: page(1, 100, nil)},
		},
		{
			"create", "POST", "/v1.0/7777/services", fixture(t, "request/services-post.json"), 201, fixture(t, "response/services-post.json"),
			func(c *rest.Client) (any, error) { return c.CreateService(ctx, db1()) }, token,
		},
		{
			"create with the least", "POST", "/v1.0/7777/services", `{"id":"abc","heartbeat_timeout":3}`, 201, fixture(t, "response/services-post.json"),
			func(c *rest.Client) (any, error) {
				return c.CreateService(ctx, rest.Service{ID: "abc", HeartbeatTimeout: 3 * time.Second, LastSeen: time.Unix(1, 0)})
			}, token,
		},
		{
			"get", "GET", "/v1.0/7777/services/dfw1-db1", "", 200, fixture(t, "response/services-dfw1-db1-get.json"),
			func(c *rest.Client) (any, error) { return c.GetService(ctx, "dfw1-db1") }, seen(db1()),
		},
		{
			"an id of the strangest kind", "GET", "/v1.0/7777/services/a%2Fb%3Fc%20d", "", 200, fixture(t, "response/services-dfw1-db1-get.json"),
			func(c *rest.Client) (any, error) { return c.GetService(ctx, "a/b?c d") }, seen(db1()),
		},
		{
			"update", "PUT", "/v1.0/7777/services/dfw1-db1", `{"tags":[],"metadata":{"a":"b"},"heartbeat_timeout":60}`, 204, "",
			func(c *rest.Client) (any, error) {
				return nil, c.UpdateService(ctx, "dfw1-db1", rest.ServiceUpdate{Tags: []string{}, Metadata: map[string]string{"a": "b"}, HeartbeatTimeout: time.Minute})
			}, nil,
		},
		{
			"update of nothing", "PUT", "/v1.0/7777/services/dfw1-db1", `{}`, 204, "",
			func(c *rest.Client) (any, error) {
				return nil, c.UpdateService(ctx, "dfw1-db1", rest.ServiceUpdate{})
			}, nil,
		},
		{
			"remove", "DELETE", "/v1.0/7777/services/dfw1-db1", "", 204, "",
			func(c *rest.Client) (any, error) { return nil, c.RemoveService(ctx, "dfw1-db1") }, nil,
		},
		{
			"heartbeat", "POST", "/v1.0/7777/services/dfw1-db1/heartbeat", `{"token":"` + token + `"}`, 200, fixture(t, "response/services-dfw1-db1-heartbeat-post.json"),
			func(c *rest.Client) (any, error) { return c.Heartbeat(ctx, "dfw1-db1", token) }, token,
		},
		{
			"configuration", "GET", "/v1.0/7777/configuration", "", 200, fixture(t, "response/configuration-get.json"),
			func(c *rest.Client) (any, error) { return c.ListConfiguration(ctx, rest.ConfigurationQuery{}) },
			rest.Page[rest.ConfigurationValue]{Values: []rest.ConfigurationValue{{ID: "configId", Value: "test value 123456"}}, Metadata: page(1, 100, nil)},
		},
		{
			"configuration of a namespace", "GET", "/v1.0/7777/configuration/api/?limit=5&marker=%2Fapi%2Fkey-1", "", 200, fixture(t, "response/configuration-api-get.json"),
			func(c *rest.Client) (any, error) {
				return c.ListConfiguration(ctx, rest.ConfigurationQuery{Namespace: "/api", Limit: 5, Marker: "/api/key-1"})
			},
			rest.Page[rest.ConfigurationValue]{
				Values:   []rest.ConfigurationValue{{ID: "/api/key-1", Value: "test value 123456"}, {ID: "/api/key-2", Value: "test value 23456"}},
				Metadata: page(2, 100, nil),
			},
		},
		{
			"configuration value", "GET", "/v1.0/7777/configuration/configId", "", 200, fixture(t, "response/configuration-configId-get.json"),
			func(c *rest.Client) (any, error) { return c.GetConfiguration(ctx, "configId") },
			rest.ConfigurationValue{ID: "configId", Value: "test value 123456"},
		},
		{
			"set configuration", "PUT", "/v1.0/7777/configuration/configId", fixture(t, "request/configuration-configId-put.json"), 204, "",
			func(c *rest.Client) (any, error) {
				return nil, c.SetConfiguration(ctx, "configId", "test value 123456")
			}, nil,
		},
		{
			"set configuration in a namespace", "PUT", "/v1.0/7777/configuration//production/cassandra/listen_ip", `{"value":"127.0.0.1"}`, 204, "",
			func(c *rest.Client) (any, error) {
				return nil, c.SetConfiguration(ctx, "/production/cassandra/listen_ip", "127.0.0.1")
			}, nil,
		},
		{
			"remove configuration", "DELETE", "/v1.0/7777/configuration//abc//def/", "", 204, "",
			func(c *rest.Client) (any, error) { return nil, c.RemoveConfiguration(ctx, "/abc//def/") }, nil,
		},
		{
			// The fixture lacks its first brace.
			"events", "GET", "/v1.0/7777/events?limit=3&marker=" + token + "&type=service.join", "", 200, "{" + fixture(t, "response/events-get.json"),
			func(c *rest.Client) (any, error) {
				p, err := c.ListEvents(ctx, rest.EventQuery{Marker: token, Type: rest.ServiceJoin, Limit: 3})
				if err != nil || len(p.Values) != 3 {
					return p, err
				}
				first, err1 := p.Values[0].Service()
				second, err2 := p.Values[1].Service()
				third, err3 := p.Values[2].Configuration()
				return []any{p.Metadata, p.Values[0].ID, p.Values[0].Time, first, second, third}, errors.Join(err1, err2, err3)
			},
			[]any{
				page(3, 100, nil), token, time.UnixMilli(1346967146370).UTC(),
				rest.Service{ID: "dfw1-api", Tags: []string{}, Metadata: map[string]string{}},
				rest.Service{ID: "dfw1-db1", Tags: db1().Tags, Metadata: db1().Metadata},
				rest.ConfigurationChange{ID: "configId", New: ptr("test value 123456")},
			},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			srv := newCanned(t, withToken(func(received) answer { return answer{status: test.status, body: test.answer} }))
			got, err := test.do(newClient(t, srv.URL))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("read from the answer (-want +got):\n%s", diff)
			}
			requests, auths := srv.api()
			if len(requests) != 1 || auths != 1 {
				t.Fatalf("%d requests and %d authentications, want one of each", len(requests), auths)
			}
			r := requests[0]
			if r.Method != test.method || r.URI != test.uri {
				t.Errorf("sent %s %s, want %s %s", r.Method, r.URI, test.method, test.uri)
			}
			header := http.Header{
				"Accept": {"application/json"}, "X-Auth-Token": {"dev"}, "X-Tenant-Id": {"7777"},
				"User-Agent": {"telford-registry-rest"}, "Accept-Encoding": {"gzip"},
			}
			if test.body == "" {
				if r.Body != "" {
					t.Errorf("sent a body: %s", r.Body)
				}
			} else {
				header.Set("Content-Type", "application/json")
				if diff := cmp.Diff(compact(t, test.body), compact(t, r.Body)); diff != "" {
					t.Errorf("body (-want +got):\n%s", diff)
				}
			}
			r.Header.Del("Content-Length")
			if diff := cmp.Diff(header, r.Header); diff != "" {
				t.Errorf("headers (-want +got):\n%s", diff)
			}
		})
	}
}

// TestWrongInput: what no request can be made of is refused before one is.
func TestWrongInput(t *testing.T) {
	t.Parallel()
	srv := newCanned(t, func(received) answer { return answer{status: 500} })
	c := newClient(t, srv.URL)
	ctx := t.Context()
	for name, test := range map[string]struct {
		do   func() error
		want string
	}{
		"no id":           {func() error { _, err := c.GetService(ctx, ""); return err }, `get service: "" is not the id of a service`},
		"dots":            {func() error { return c.RemoveService(ctx, "..") }, `remove service: ".." is not the id`},
		"no id to create": {func() error { _, err := c.CreateService(ctx, rest.Service{}); return err }, "the id is empty"},
		"short timeout": {func() error {
			_, err := c.CreateService(ctx, rest.Service{ID: "abc", HeartbeatTimeout: 2 * time.Second})
			return err
		}, "heartbeat timeout 2s: want whole seconds, 3s to 2m0s"},
		"half a second": {func() error {
			return c.UpdateService(ctx, "abc", rest.ServiceUpdate{HeartbeatTimeout: 3500 * time.Millisecond})
		}, "heartbeat timeout 3.5s"},
		"limit":          {func() error { _, err := c.ListServices(ctx, rest.ServiceQuery{Limit: 1001}); return err }, "limit 1001 is outside 1 to 1000"},
		"negative limit": {func() error { _, err := c.ListEvents(ctx, rest.EventQuery{Limit: -1}); return err }, "limit -1 is outside"},
		"slashes only":   {func() error { return c.SetConfiguration(ctx, "//", "x") }, `"//" is not the id of a value`},
		"namespace":      {func() error { _, err := c.GetConfiguration(ctx, "/production/"); return err }, "this is a namespace"},
		"heartbeater": {func() error {
			_, err := c.NewHeartbeater(rest.Service{ID: "abc"}, rest.HeartbeaterOptions{})
			return err
		}, "heartbeat timeout 0s"},
		"slow heartbeater": {func() error {
			_, err := c.NewHeartbeater(db1(), rest.HeartbeaterOptions{Interval: 30 * time.Second})
			return err
		}, "the interval 30s is not below the heartbeat timeout 30s"},
		"rare poller":    {func() error { _, err := c.NewPoller(rest.PollerOptions{Interval: time.Hour}); return err }, "the interval 1h0m0s is outside 0 to 30m0s"},
		"greedy poller":  {func() error { _, err := c.NewPoller(rest.PollerOptions{Limit: 2000}); return err }, "limit 2000"},
		"negative cache": {func() error { _, err := c.NewServiceCache(rest.CacheOptions{Fresh: -1}); return err }, "negative"},
		"contrary cache": {func() error { _, err := c.NewServiceCache(rest.CacheOptions{Fresh: 9, MaxStale: 8}); return err }, "MaxStale 8ns is less than Fresh 9ns"},
		"no credentials": {func() error { _, err := rest.New(srv.URL); return err }, "there are no credentials"},
		"two credentials": {func() error {
			_, err := rest.New(srv.URL, rest.WithAPIKey("a", "b"), rest.WithToken("c", "1"))
			return err
		}, "exclude each other"},
		"every mistake": {func() error {
			_, err := rest.New(srv.URL, rest.WithAPIKey("", "b"), rest.WithTimeout(-1), rest.WithHTTPClient(nil))
			return err
		}, "WithTimeout: -1ns is no time to wait"},
		"tenant":    {func() error { _, err := rest.New(srv.URL, rest.WithToken("c", "1/2")); return err }, `the tenant "1/2" is no part of a path`},
		"no scheme": {func() error { _, err := rest.New("localhost:80", rest.WithToken("c", "1")); return err }, "is not an http or https URL"},
		"auth URL": {func() error {
			_, err := rest.New(srv.URL, rest.WithAPIKey("a", "b"), rest.WithAuthURL("ftp://x"))
			return err
		}, "auth URL"},
		"secret in the URL": {func() error { _, err := rest.New("http://u:p@h", rest.WithToken("c", "1")); return err }, "http://u:xxxxx@h has more than"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := test.do()
			if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("got %v, want it to say %q", err, test.want)
			}
			if !errors.Is(err, &errs.Error{Code: errs.InvalidArgument}) {
				t.Errorf("%v is not of code invalid_argument", err)
			}
		})
	}
	t.Cleanup(func() {
		if requests, auths := srv.api(); len(requests)+auths > 0 {
			t.Errorf("requests were sent: %v", requests)
		}
	})
}

// TestBases: the base URL and the auth URL are taken as other clients write them.
func TestBases(t *testing.T) {
	t.Parallel()
	for _, ends := range [][2]string{{"", ""}, {"/v1.0", "/v2.0"}, {"/v1.0/", "/v2.0/tokens"}, {"/", "/v2.0/tokens/"}} {
		srv := newCanned(t, withToken(func(received) answer { return answer{status: 200, body: `{}`} }))
		c := newClient(t, srv.URL+ends[0], rest.WithAuthURL(srv.URL+ends[1]))
		if _, err := c.Limits(t.Context()); err != nil {
			t.Errorf("%v: %v", ends, err)
		}
		requests, auths := srv.api()
		if len(requests) != 1 || requests[0].URI != "/v1.0/7777/limits" || auths != 1 {
			t.Errorf("%v: sent %v and %d authentications", ends, requests, auths)
		}
	}
}

// TestConnectionsPersist: one connection serves requests that follow one another.
func TestConnectionsPersist(t *testing.T) {
	t.Parallel()
	srv := newCanned(t, withToken(func(r received) answer {
		if r.Method == http.MethodDelete {
			return answer{status: 204}
		}
		return answer{status: 200, body: `{}`}
	}))
	c := newClient(t, srv.URL)
	for range 10 {
		if _, err := c.Limits(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := c.RemoveService(t.Context(), "abc"); err != nil {
			t.Fatal(err)
		}
	}
	if len(srv.conns) != 1 {
		t.Errorf("%d connections for requests one after another", len(srv.conns))
	}
}

// TestContextEndsARequest also where the server never answers.
func TestContextEndsARequest(t *testing.T) {
	t.Parallel()
	hang := make(chan struct{})
	srv := newCanned(t, withToken(func(received) answer { <-hang; return answer{status: 200} }))
	t.Cleanup(func() { close(hang) })
	c := newClient(t, srv.URL)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Limits(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v, want canceled", err)
	}
	ctx, cancel = context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if _, err := c.Limits(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v, want deadline exceeded", err)
	}
	c = newClient(t, srv.URL, rest.WithTimeout(20*time.Millisecond))
	if _, err := c.Limits(t.Context()); !errors.Is(err, &errs.Error{Code: errs.Unavailable}) || !strings.Contains(err.Error(), "no answer from the registry in 20ms") {
		t.Errorf("got %v, want unavailable", err)
	}
}
