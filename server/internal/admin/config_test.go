package admin

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
)

func TestConfigOverGRPC(t *testing.T) {
	t.Parallel()
	s := setup(t)
	ctx := s.operator(t)
	c := adminv1.NewConfigClient(s.conn)
	for _, text := range []string{"one", "two"} {
		r, err := c.Set(ctx, &adminv1.SetConfigRequest{Id: "/prod/seeds", Value: text})
		if err != nil || !r.GetChanged() || r.GetValue().GetAuthor() != operator {
			t.Fatal(r, err)
		}
	}
	for id, text := range map[string]string{"abc": "three", "abd": "four"} {
		if _, err := c.Set(ctx, &adminv1.SetConfigRequest{Namespace: "1000", Id: id, Value: text}); err != nil {
			t.Fatal(err)
		}
	}
	stale := int64(1)
	_, err := c.Set(ctx, &adminv1.SetConfigRequest{Id: "/prod/seeds", Value: "x", IfRevision: &stale})
	if status.Code(err) != codes.Aborted || !strings.Contains(err.Error(), "revision 2") || !strings.Contains(err.Error(), "revision 1") {
		t.Errorf("a stale revision: %v", err)
	}
	var ids []string
	for token := ""; ; {
		p, err := c.List(ctx, &adminv1.ListConfigRequest{PageSize: 2, PageToken: token})
		if err != nil || p.GetRevision() != 4 || p.GetCount() != 3 {
			t.Fatal(p, err)
		}
		for _, v := range p.GetItems() {
			ids = append(ids, v.GetId())
		}
		if token = p.GetNextPageToken(); token == "" {
			break
		}
	}
	if d := cmp.Diff([]string{"/prod/seeds", "abc", "abd"}, ids); d != "" {
		t.Error(d)
	}
	h, err := c.ListHistory(ctx, &adminv1.ListConfigHistoryRequest{Id: "/prod/seeds", PageSize: 1})
	if err != nil || len(h.GetItems()) != 1 || h.GetItems()[0].GetValue().GetValue() != "two" {
		t.Fatal(h, err)
	}
	h, err = c.ListHistory(ctx, &adminv1.ListConfigHistoryRequest{Id: "/prod/seeds", PageToken: h.GetNextPageToken()})
	if err != nil || len(h.GetItems()) != 1 || h.GetItems()[0].GetValue().GetValue() != "one" {
		t.Fatal(h, err)
	}
	old, err := c.Get(ctx, &adminv1.GetConfigRequest{Id: "/prod/seeds", Revision: 1})
	if err != nil || old.GetValue().GetValue() != "one" {
		t.Error(old, err)
	}
	d, err := c.GetDiff(ctx, &adminv1.GetConfigDiffRequest{Id: "/prod/seeds"})
	if err != nil || d.GetText() != "-one\n+two\n" {
		t.Error(d, err)
	}
	back, err := c.Rollback(ctx, &adminv1.RollbackConfigRequest{Id: "/prod/seeds", To: 1})
	if err != nil || !back.GetChanged() || back.GetRevision().GetRestored() != 1 {
		t.Error(back, err)
	}
	if v, err := c.Remove(ctx, &adminv1.RemoveConfigRequest{Id: "abc"}); err != nil || v.GetValue() != "three" {
		t.Error(v, err)
	}
	w, err := c.Watch(ctx, &adminv1.WatchConfigRequest{After: 4})
	if err != nil {
		t.Fatal(err)
	}
	u, err := w.Recv()
	if err != nil || u.GetSnapshot() || len(u.GetChanges()) != 2 || !u.GetChanges()[1].GetRemoved() || u.GetRevision() != 6 {
		t.Error(u, err)
	}
	s.api.Stop()
	if _, err := w.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the end of a watch: %v", err)
	}
	for _, err := range []error{
		second(c.List(ctx, &adminv1.ListConfigRequest{PageToken: "%"})), second(c.List(ctx, &adminv1.ListConfigRequest{PageSize: -1})),
		second(c.Get(ctx, &adminv1.GetConfigRequest{Id: "abc", Revision: -1})), second(c.Rollback(ctx, &adminv1.RollbackConfigRequest{Id: "abc"})),
		second(c.GetDiff(ctx, &adminv1.GetConfigDiffRequest{Id: "abc", From: -1})), second(c.Set(ctx, &adminv1.SetConfigRequest{Id: "/a"})),
		second(c.ListHistory(ctx, &adminv1.ListConfigHistoryRequest{Id: "abc", PageToken: "eA"})),
	} {
		if status.Code(err) != codes.InvalidArgument {
			t.Errorf("got %v, want an invalid argument", err)
		}
	}
	if _, err := c.Set(ctx, &adminv1.SetConfigRequest{Namespace: "nowhere", Id: "abc"}); status.Code(err) != codes.NotFound {
		t.Errorf("a namespace that does not exist: %v", err)
	}
}

func second[T any](_ T, err error) error { return err }

// A value may be secret: the audit log tells that it was set, not to what.
func TestAuditKeepsValuesToItself(t *testing.T) {
	t.Parallel()
	s := setup(t)
	c := adminv1.NewConfigClient(s.conn)
	if _, err := c.Set(s.operator(t), &adminv1.SetConfigRequest{Id: "password", Value: "hunter2"}); err != nil {
		t.Fatal(err)
	}
	if log := s.log.String(); strings.Contains(log, "hunter2") || !strings.Contains(log, `"value":"7 bytes"`) || !strings.Contains(log, `"id":"password"`) {
		t.Errorf("the audit log has: %s", log)
	}
}

func TestConfigAndFeedOverHTTP(t *testing.T) {
	t.Parallel()
	s := setup(t)
	do := func(method, path, body string) (int, string) {
		t.Helper()
		req, err := http.NewRequestWithContext(t.Context(), method, s.http.URL+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+s.authority.OperatorToken())
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		line, err := bufio.NewReader(resp.Body).ReadString('\n')
		if err != nil && line == "" {
			t.Fatal(err)
		}
		return resp.StatusCode, line
	}
	// The largest value, escaped as long as can be.
	large := strings.Repeat(`\u0001`, 1<<20)
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "/api/v1/config/value", `{"id":"/prod/seeds","value":"☂","if_revision":"0"}`, 200, `"changed":true`},
		{"POST", "/api/v1/config/value", `{"id":"/prod/seeds","value":"x","if_revision":"0"}`, 409, `revision 1`},
		{"POST", "/api/v1/config/value", `{"id":"large","value":"` + large + `"}`, 200, `"changed":true`},
		{"POST", "/api/v1/config/value", `{"id":"large","value":"` + strings.Repeat("x", 1<<20+1) + `"}`, 400, `1048577 bytes`},
		{"POST", "/api/v1/config/value", "{\"id\":\"binary\",\"value\":\"\xff\"}", 400, `UTF-8`},
		{"GET", "/api/v1/config/value?id=/prod/seeds", "", 200, `"value":"☂"`},
		{"GET", "/api/v1/config/value?id=%2Fprod%2Fseeds&revision=1", "", 200, `"value":"☂"`},
		{"GET", "/api/v1/config?prefix=/prod/", "", 200, `"id":"/prod/seeds"`},
		{"GET", "/api/v1/config?prefx=/prod/", "", 400, `prefx`},
		{"GET", "/api/v1/config/history?id=/prod/seeds", "", 200, `"revision":"1"`},
		{"GET", "/api/v1/config/diff?id=/prod/seeds", "", 200, `"text":"+☂\n"`},
		{"GET", "/api/v1/config:watch?prefix=/prod/", "", 200, `"snapshot":true`},
		{"POST", "/api/v1/config/value:rollback", `{"id":"/prod/seeds","to":"1"}`, 200, `"changed":false`},
		{"POST", "/api/v1/config/value:remove", `{"id":"/prod/seeds"}`, 200, `"value":"☂"`},
		{"GET", "/api/v1/config/value?id=/prod/seeds", "", 404, `telford config list`},
		{"GET", "/api/v1/feed?page_size=1", "", 200, `"type":"configuration_value.update"`},
		{"GET", "/api/v1/feed?types=configuration_value.remove", "", 200, `"old_value":"☂"`},
		{"GET", "/api/v1/feed?types=nothing", "", 400, `no type of an event`},
		{"GET", "/api/v1/feed:follow?since=2030-01-01T00:00:00Z&types=configuration_value.remove", "", 200, `"configuration_value_id":"/prod/seeds"`},
		{"GET", "/api/v1/feed:follow?after=x", "", 400, `is no id of an event`},
	} {
		status, body := do(c.method, c.path, c.body)
		if status != c.status || !strings.Contains(body, c.want) {
			t.Errorf("%s %s %.60s: %d %.300s; want %d with %s", c.method, c.path, c.body, status, body, c.status, c.want)
		}
	}
}

func TestFeedOverGRPC(t *testing.T) {
	t.Parallel()
	s := setup(t)
	ctx := s.operator(t)
	c, config := adminv1.NewFeedClient(s.conn), adminv1.NewConfigClient(s.conn)
	for _, text := range []string{"one", "two", "three"} {
		if _, err := config.Set(ctx, &adminv1.SetConfigRequest{Id: "abc", Value: text}); err != nil {
			t.Fatal(err)
		}
	}
	first, err := c.List(ctx, &adminv1.ListFeedRequest{PageSize: 2})
	if err != nil || len(first.GetItems()) != 2 {
		t.Fatal(first, err)
	}
	rest, err := c.List(ctx, &adminv1.ListFeedRequest{PageToken: first.GetNextPageToken()})
	if err != nil || len(rest.GetItems()) != 1 || rest.GetNextPageToken() != "" {
		t.Fatal(rest, err)
	}
	payload, err := json.Marshal(rest.GetItems()[0].GetPayload().AsMap())
	if want := `{"configuration_value_id":"abc","new_value":"three","old_value":"two"}`; err != nil || string(payload) != want {
		t.Errorf("payload %s, want %s (%v)", payload, want, err)
	}
	w, err := c.Follow(ctx, &adminv1.FollowFeedRequest{After: first.GetItems()[1].GetId()})
	if err != nil {
		t.Fatal(err)
	}
	got, err := w.Recv()
	if err != nil || len(got.GetItems()) != 1 || got.GetItems()[0].GetId() != rest.GetItems()[0].GetId() {
		t.Fatal(got, err)
	}
	s.api.Stop()
	if _, err := w.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the end of a follower: %v", err)
	}
	if _, err := c.List(ctx, &adminv1.ListFeedRequest{PageToken: "eA"}); status.Code(err) != codes.InvalidArgument {
		t.Errorf("a token that was not made here: %v", err)
	}
}
