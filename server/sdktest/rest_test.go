package sdktest

import (
	"context"
	"errors"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/registry/rest"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/telfordtest"
)

// apiKey is an api key that is nobody in particular.
func apiKey(t *testing.T, srv *telfordtest.Server) string {
	t.Helper()
	_, text, err := srv.Runtime().Authority().CreateKey(t.Context(), identity.CreateKey{
		Namespace: identity.DefaultNamespace, Kind: identity.KindAPI, Name: "inventory-ui", Author: "test",
	})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// restClient is a client of the REST registry of a runtime.
func restClient(t *testing.T, srv *telfordtest.Server, keyText string) *rest.Client {
	t.Helper()
	key, err := ident.ParseKey(keyText)
	if err != nil {
		t.Fatal(err)
	}
	c, err := rest.New(srv.HTTP(), rest.WithAPIKey(key.ID, key.SecretText()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return c
}

// TestRESTClient asks a runtime for everything once.
func TestRESTClient(t *testing.T) {
	t.Parallel()
	srv := telfordtest.Start(t)
	c := restClient(t, srv, apiKey(t, srv))
	ctx := t.Context()
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []rest.Service{
		{ID: "api-0", Tags: []string{"www", "api"}, Metadata: map[string]string{"port": "8000"}, HeartbeatTimeout: 30 * time.Second},
		{ID: "db.1", Tags: []string{"www"}, Metadata: map[string]string{}, HeartbeatTimeout: 120 * time.Second},
		{ID: "zoo_1", Tags: []string{}, Metadata: map[string]string{}, HeartbeatTimeout: 3 * time.Second},
	}
	tokens := map[string]string{}
	for _, s := range want {
		token, err := c.CreateService(ctx, s)
		must(err)
		tokens[s.ID] = token
	}
	for _, limit := range []int{0, 1, 2, 3} {
		var got []rest.Service
		for s, err := range c.EachService(ctx, rest.ServiceQuery{Limit: limit}) {
			must(err)
			got = append(got, s)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("services in pages of %d (-want +got):\n%s", limit, diff)
		}
	}
	page, err := c.ListServices(ctx, rest.ServiceQuery{Tag: "www", Marker: "b", Limit: 5})
	must(err)
	if len(page.Values) != 1 || page.Values[0].ID != "db.1" || page.Metadata.Limit != 5 || page.Metadata.Count != 1 {
		t.Errorf("by tag and marker: %+v", page)
	}
	if _, err := c.CreateService(ctx, want[0]); !errors.Is(err, rest.ErrServiceExists) || !errors.Is(err, telford.ErrAlreadyExists) {
		t.Errorf("created twice: %v", err)
	}
	next, err := c.Heartbeat(ctx, "api-0", tokens["api-0"])
	must(err)
	if _, err := c.Heartbeat(ctx, "api-0", tokens["api-0"]); !errors.Is(err, rest.ErrNotFound) {
		t.Errorf("a token used twice: %v", err)
	}
	_, err = c.Heartbeat(ctx, "api-0", next)
	must(err)
	must(c.UpdateService(ctx, "api-0", rest.ServiceUpdate{Tags: []string{}, HeartbeatTimeout: time.Minute}))
	got, err := c.GetService(ctx, "api-0")
	must(err)
	if len(got.Tags) != 0 || got.Metadata["port"] != "8000" || got.HeartbeatTimeout != time.Minute || time.Since(got.LastSeen).Abs() > time.Minute {
		t.Errorf("updated is %+v", got)
	}
	must(c.RemoveService(ctx, "db.1"))
	if _, err := c.GetService(ctx, "db.1"); !errors.Is(err, rest.ErrNotFound) {
		t.Errorf("removed: %v", err)
	}

	for _, id := range []string{"/production/cassandra/port", "plain", "/production/cassandra"} {
		must(c.SetConfiguration(ctx, id, "of "+id))
	}
	v, err := c.GetConfiguration(ctx, "/production/cassandra/port")
	must(err)
	if v != (rest.ConfigurationValue{ID: "/production/cassandra/port", Value: "of /production/cassandra/port"}) {
		t.Errorf("value %+v", v)
	}
	var ids []string
	for v, err := range c.EachConfiguration(ctx, rest.ConfigurationQuery{Namespace: "production", Limit: 1}) {
		must(err)
		ids = append(ids, v.ID)
	}
	if diff := cmp.Diff([]string{"/production/cassandra", "/production/cassandra/port"}, ids); diff != "" {
		t.Errorf("namespace (-want +got):\n%s", diff)
	}
	must(c.RemoveConfiguration(ctx, "plain"))

	var feed []rest.EventType
	for e, err := range c.EachEvent(ctx, rest.EventQuery{Limit: 2}) {
		must(err)
		feed = append(feed, e.Type)
	}
	join, set := rest.ServiceJoin, rest.ConfigurationUpdate
	if diff := cmp.Diff([]rest.EventType{join, join, join, rest.ServiceRemove, set, set, set, rest.ConfigurationRemove}, feed); diff != "" {
		t.Errorf("feed (-want +got):\n%s", diff)
	}
	limits, err := c.Limits(ctx)
	must(err)
	if limits.Resource["service"] == 0 || len(limits.Rate) == 0 {
		t.Errorf("limits %+v", limits)
	}
	// A service key is for its service, whatever the id is.
	own := restClient(t, srv, srv.Key(t, "inventory"))
	if _, err := own.CreateService(ctx, want[1]); !errors.Is(err, rest.ErrForbidden) || !errors.Is(err, telford.ErrPermissionDenied) {
		t.Errorf("a service key for another service: %v", err)
	}
	mine := rest.Service{ID: "my-host1-0", Metadata: map[string]string{"service": "inventory"}, HeartbeatTimeout: 30 * time.Second}
	_, err = own.CreateService(ctx, mine)
	must(err)
	wrong, err := rest.New(srv.HTTP(), rest.WithAPIKey("key_nobody", "secret"))
	must(err)
	if _, err := wrong.Limits(ctx); !errors.Is(err, rest.ErrUnauthorized) {
		t.Errorf("credentials of nobody: %v", err)
	}
}

// TestRESTHeartbeaterOverARestart: the chain of tokens goes on after a restart of the
// runtime, a service that was taken away comes back, and followers miss nothing.
func TestRESTHeartbeaterOverARestart(t *testing.T) {
	t.Parallel()
	srv := telfordtest.Start(t)
	c := restClient(t, srv, apiKey(t, srv))
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var beats, lost, joined atomic.Int64
	h, err := c.NewHeartbeater(rest.Service{ID: "api-0", HeartbeatTimeout: 30 * time.Second}, rest.HeartbeaterOptions{
		Interval:     50 * time.Millisecond,
		OnHeartbeat:  func(time.Time) { beats.Add(1) },
		OnLost:       func(error) { lost.Add(1) },
		OnRegistered: func() { joined.Add(1) },
	})
	if err != nil {
		t.Fatal(err)
	}
	poller, err := c.NewPoller(rest.PollerOptions{Interval: 50 * time.Millisecond})
	if err != nil {
		t.Fatal(err)
	}
	var feed []rest.EventType
	last := make(chan struct{})
	polled := make(chan error, 1)
	go func() {
		polled <- poller.Run(ctx, func(e rest.Event) error {
			feed = append(feed, e.Type)
			if e.Type == rest.ServiceRemove && slices.Index(feed, rest.ServiceRemove) != len(feed)-1 {
				close(last)
			}
			return nil
		})
	}()
	more := func(n *atomic.Int64, by int64) {
		t.Helper()
		from := n.Load()
		within(t, func() bool { return n.Load() >= from+by })
	}
	if err := h.Start(ctx); err != nil {
		t.Fatal(err)
	}
	more(&beats, 3)
	srv.Restart(t)
	more(&beats, 3)
	if lost.Load() != 0 {
		t.Error("the restart cost the service its registration")
	}
	if err := c.RemoveService(ctx, "api-0"); err != nil {
		t.Fatal(err)
	}
	more(&beats, 3)
	if lost.Load() != 1 || joined.Load() != 2 {
		t.Errorf("lost %d times, registered %d times", lost.Load(), joined.Load())
	}
	if err := h.Stop(ctx); err != nil {
		t.Fatal(err)
	}
	<-last
	cancel()
	if err := <-polled; err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]rest.EventType{rest.ServiceJoin, rest.ServiceRemove, rest.ServiceJoin, rest.ServiceRemove}, feed); diff != "" {
		t.Errorf("feed (-want +got):\n%s", diff)
	}
}

// within waits until something is so.
func within(t *testing.T, so func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(20 * time.Second); !so(); <-tick.C {
		if time.Now().After(end) {
			t.Fatal("waited in vain")
		}
	}
}
