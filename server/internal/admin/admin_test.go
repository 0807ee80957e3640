package admin

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/testing/protocmp"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errpb"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/api"
	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
	"telford.dev/telford/server/internal/identity"
)

func TestReadsAreTheSameOverBothDoors(t *testing.T) {
	t.Parallel()
	s := setup(t)
	ctx, token := s.operator(t), s.authority.OperatorToken()
	if _, _, err := s.authority.CreateKey(ctx, identity.CreateKey{Service: "payments", Author: "test"}); err != nil {
		t.Fatal(err)
	}
	s.register(t, "default", "payments", "in-1", "blue")
	s.register(t, "default", "payments", "in-2")
	s.register(t, "default", "gone", "in-3")
	if err := s.registry.Deregister(ctx, "default", "in-3", catalog.Deregistered); err != nil {
		t.Fatal(err)
	}
	k, n, v, y := adminv1.NewKeysClient(s.conn), adminv1.NewNamespacesClient(s.conn), adminv1.NewServicesClient(s.conn), adminv1.NewSystemClient(s.conn)
	for path, call := range map[string]func() (proto.Message, error){
		"/api/v1/keys":                  func() (proto.Message, error) { return k.List(ctx, &adminv1.ListKeysRequest{}) },
		"/api/v1/keys?service=payments": func() (proto.Message, error) { return k.List(ctx, &adminv1.ListKeysRequest{Service: "payments"}) },
		"/api/v1/keys?service=none":     func() (proto.Message, error) { return k.List(ctx, &adminv1.ListKeysRequest{Service: "none"}) },
		"/api/v1/namespaces":            func() (proto.Message, error) { return n.List(ctx, &adminv1.ListNamespacesRequest{}) },
		"/api/v1/services":              func() (proto.Message, error) { return v.List(ctx, &adminv1.ListServicesRequest{}) },
		"/api/v1/services?tag=blue":     func() (proto.Message, error) { return v.List(ctx, &adminv1.ListServicesRequest{Tag: "blue"}) },
		"/api/v1/services?page_size=1":  func() (proto.Message, error) { return v.List(ctx, &adminv1.ListServicesRequest{PageSize: 1}) },
		"/api/v1/services/payments":     func() (proto.Message, error) { return v.Get(ctx, &adminv1.GetServiceRequest{Name: "payments"}) },
		"/api/v1/services/in-2":         func() (proto.Message, error) { return v.Get(ctx, &adminv1.GetServiceRequest{Name: "in-2"}) },
		"/api/v1/services/in-3":         func() (proto.Message, error) { return v.Get(ctx, &adminv1.GetServiceRequest{Name: "in-3"}) },
		"/api/v1/tombstones":            func() (proto.Message, error) { return v.ListTombstones(ctx, &adminv1.ListTombstonesRequest{}) },
		"/api/v1/version":               func() (proto.Message, error) { return y.GetVersion(ctx, &adminv1.GetVersionRequest{}) },
		"/api/v1/alarms":                func() (proto.Message, error) { return y.ListAlarms(ctx, &adminv1.ListAlarmsRequest{}) },
		"/api/v1/info":                  func() (proto.Message, error) { return y.GetInfo(ctx, &adminv1.GetInfoRequest{}) },
	} {
		want, err := call()
		if err != nil {
			t.Errorf("%s over gRPC: %v", path, err)
			continue
		}
		code, got := s.do(t, http.MethodGet, path, token, "")
		if code != http.StatusOK {
			t.Errorf("%s answered %d: %s", path, code, got)
			continue
		}
		sameBytes(t, got, want)
	}
}

func TestJSONNamesAndEmptyFields(t *testing.T) {
	t.Parallel()
	s := setup(t)
	_, got := s.do(t, http.MethodGet, "/api/v1/services", s.authority.OperatorToken(), "")
	if string(got) != `{"items":[], "next_page_token":""}` && string(got) != `{"items":[],"next_page_token":""}` {
		t.Errorf("an empty list is %s", got)
	}
	code, got := s.do(t, http.MethodPost, "/api/v1/keys", s.authority.OperatorToken(), `{"service":"payments","ttl":"2h"}`)
	var key map[string]any
	if err := json.Unmarshal(got, &key); err != nil || code != 200 {
		t.Fatalf("create answered %d: %s", code, got)
	}
	for _, field := range []string{"id", "secret", "key", "namespace", "service"} {
		if text, _ := key[field].(string); text == "" {
			t.Errorf("the new key has no %s: %s", field, got)
		}
	}
	if key["expires_at"] != "2030-03-01T14:00:00Z" || key["namespace"] != "default" {
		t.Errorf("new key %s", got)
	}
}

func TestAuthorisation(t *testing.T) {
	t.Parallel()
	s := setup(t)
	_, service, err := s.authority.CreateKey(t.Context(), identity.CreateKey{Service: "payments", Author: "test"})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, token string
		grpc        codes.Code
		http        int
	}{
		{"nobody", "", codes.Unauthenticated, 401},
		{"garbage", "tla_garbage", codes.Unauthenticated, 401},
		{"service key", service, codes.PermissionDenied, 403},
		{"operator", s.authority.OperatorToken(), codes.OK, 200},
	} {
		ctx := t.Context()
		if c.token != "" {
			ctx = bearer(ctx, c.token)
		}
		_, err := adminv1.NewKeysClient(s.conn).List(ctx, &adminv1.ListKeysRequest{})
		if got := status.Code(err); got != c.grpc {
			t.Errorf("%s over gRPC: %v, want %v (%v)", c.name, got, c.grpc, err)
		}
		stream, err := adminv1.NewServicesClient(s.conn).Watch(ctx, &adminv1.WatchServicesRequest{})
		if err == nil && c.grpc != codes.OK {
			_, err = stream.Recv()
		}
		if got := status.Code(err); got != c.grpc {
			t.Errorf("%s watching over gRPC: %v, want %v", c.name, got, c.grpc)
		}
		for _, path := range []string{"/api/v1/keys", OpenAPIPath} {
			if code, body := s.do(t, http.MethodGet, path, c.token, ""); code != c.http {
				t.Errorf("%s over HTTP at %s: %d, want %d: %s", c.name, path, code, c.http, body)
			}
		}
	}
	// Without a credential nobody learns what exists.
	for _, path := range []string{"/api/v1/nothing", "/api/v1/services/payments", "/api/v1/services:watch"} {
		if code, _ := s.do(t, http.MethodGet, path, "", ""); code != 401 {
			t.Errorf("%s without a credential: %d", path, code)
		}
	}
	if code, _ := s.do(t, http.MethodGet, "/api/v1/keys", "", ""); code != 401 {
		t.Errorf("no credential: %d", code)
	}
}

func TestRevokeAndRotate(t *testing.T) {
	t.Parallel()
	s := setup(t)
	ctx, k := s.operator(t), adminv1.NewKeysClient(s.conn)
	first, err := k.Create(ctx, &adminv1.CreateKeyRequest{Service: "payments", Name: "laptop"})
	if err != nil {
		t.Fatal(err)
	}
	second, err := k.Rotate(ctx, &adminv1.RotateKeyRequest{Id: first.GetId(), Grace: "1h"})
	if err != nil {
		t.Fatal(err)
	}
	if second.GetId() == first.GetId() || second.GetService() != "payments" || second.GetKey() == first.GetKey() {
		t.Errorf("successor %v of %v", second.GetId(), first.GetId())
	}
	if _, err := s.authority.Authenticate(ctx, first.GetKey()); err != nil {
		t.Errorf("the old key within its grace: %v", err)
	}
	revoked, err := k.Revoke(ctx, &adminv1.RevokeKeyRequest{Id: second.GetId(), Reason: "lost"})
	if err != nil {
		t.Fatal(err)
	}
	if revoked.GetState() != "revoked" || revoked.GetRevokedAt() == nil || revoked.GetAuthor() != operator {
		t.Errorf("revoked key: %v", revoked)
	}
	s.clock.Advance(2 * time.Hour)
	list, err := k.List(ctx, &adminv1.ListKeysRequest{Service: "payments"})
	if err != nil {
		t.Fatal(err)
	}
	states := map[string]string{}
	for _, key := range list.GetItems() {
		states[key.GetId()] = key.GetState()
	}
	if diff := cmp.Diff(map[string]string{first.GetId(): "expired", second.GetId(): "revoked"}, states); diff != "" {
		t.Errorf("states (-want +got):\n%s", diff)
	}
}

func TestDrainAndDeregister(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.register(t, "default", "payments", "in-1")
	ctx, token := s.operator(t), s.authority.OperatorToken()
	code, body := s.do(t, http.MethodPost, "/api/v1/services/in-1:drain", token, "{}")
	if i, err := s.registry.Get("default", "in-1"); code != 200 || err != nil || !i.Draining {
		t.Fatalf("drain answered %d %s; the registry says %v %v", code, body, i, err)
	}
	if code, body = s.do(t, http.MethodPost, "/api/v1/services/in-1:drain", token, `{"undo":true}`); code != 200 {
		t.Fatalf("undo answered %d %s", code, body)
	}
	if i, _ := s.registry.Get("default", "in-1"); i.Draining {
		t.Error("still draining after undo")
	}
	gone, err := adminv1.NewServicesClient(s.conn).Deregister(ctx, &adminv1.DeregisterServiceRequest{Id: "in-1"})
	if err != nil {
		t.Fatal(err)
	}
	if gone.GetReason() != string(catalog.Operator) || gone.GetName() != "payments" {
		t.Errorf("tombstone %v", gone)
	}
	select {
	case got := <-s.ended:
		if got != "default/in-1" {
			t.Errorf("the session of %s was ended", got)
		}
	default:
		t.Error("the session goes on")
	}
	_, err = adminv1.NewServicesClient(s.conn).Drain(ctx, &adminv1.DrainServiceRequest{Id: "in-1"})
	if e := errpb.FromGRPC(err); e == nil || e.Code != errs.NotFound || !strings.Contains(e.Message, "gone since") {
		t.Errorf("draining what is gone: %v", err)
	}
}

func TestWatchOverHTTP(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.register(t, "default", "payments", "in-1")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.http.URL+"/api/v1/services:watch?names=payments", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+s.authority.OperatorToken())
	resp, err := s.http.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := json.NewDecoder(resp.Body)
	next := func() *adminv1.ServiceUpdate {
		var chunk struct {
			Result json.RawMessage `json:"result"`
		}
		if err := lines.Decode(&chunk); err != nil {
			t.Fatalf("status %d: %v", resp.StatusCode, err)
		}
		u := &adminv1.ServiceUpdate{}
		if err := protojson.Unmarshal(chunk.Result, u); err != nil {
			t.Fatal(err)
		}
		return u
	}
	if u := next(); !u.GetSnapshot() || len(u.GetUpserts()) != 1 || u.GetUpserts()[0].GetId() != "in-1" {
		t.Fatalf("first update %v", u)
	}
	s.register(t, "default", "other", "in-9") // not watched
	if err := s.registry.Deregister(ctx, "default", "in-1", catalog.Deregistered); err != nil {
		t.Fatal(err)
	}
	u := next()
	want := []*adminv1.Tombstone{{Id: "in-1", Name: "payments", Namespace: "default", Reason: "deregistered", At: timestamp(s.clock.Now())}}
	if diff := cmp.Diff(want, u.GetRemovals(), protocmp.Transform()); diff != "" || u.GetSnapshot() {
		t.Fatalf("second update %v\n%s", u, diff)
	}
	// The end of the registry ends the watch with a problem in the stream.
	if err := s.registry.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	var last struct {
		Error adminv1.Problem `json:"error"`
	}
	if err := lines.Decode(&last); err != nil || last.Error.GetCode() == "" || last.Error.GetDetail() == "" {
		t.Errorf("the stream ended with %v, %v", &last.Error, err)
	}
}

func TestWatchRefusedBeforeItBegins(t *testing.T) {
	t.Parallel()
	s := setup(t)
	code, body := s.do(t, http.MethodGet, "/api/v1/services:watch?names=NOT+A+NAME", s.authority.OperatorToken(), "")
	if code != 400 || !strings.Contains(string(body), "NOT A NAME") {
		t.Errorf("a wrong name answered %d: %s", code, body)
	}
}

func TestPagesNeitherRepeatNorHide(t *testing.T) {
	t.Parallel()
	s := setup(t)
	want := map[string]bool{}
	for i := range 25 {
		id := fmt.Sprintf("in-%02d", i)
		want[id] = true
		s.register(t, "default", fmt.Sprintf("svc-%d", i%3), id)
	}
	ctx, v := s.operator(t), adminv1.NewServicesClient(s.conn)
	got := map[string]bool{}
	req := &adminv1.ListServicesRequest{PageSize: 7}
	for pages := 1; ; pages++ {
		page, err := v.List(ctx, req)
		if err != nil {
			t.Fatal(err)
		}
		for _, i := range page.GetItems() {
			if got[i.GetId()] {
				t.Errorf("%s came twice", i.GetId())
			}
			got[i.GetId()] = true
		}
		// The last item of a page goes away: the next page begins behind it all the same.
		last := page.GetItems()[len(page.GetItems())-1]
		if err := s.registry.Deregister(ctx, "default", last.GetId(), catalog.Deregistered); err != nil {
			t.Fatal(err)
		}
		if req.PageToken = page.GetNextPageToken(); req.PageToken == "" {
			if pages != 4 {
				t.Errorf("%d pages", pages)
			}
			break
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestChangesAreAudited(t *testing.T) {
	t.Parallel()
	s := setup(t)
	ctx, k := s.operator(t), adminv1.NewKeysClient(s.conn)
	made, err := k.Create(ctx, &adminv1.CreateKeyRequest{Service: "payments"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := k.List(ctx, &adminv1.ListKeysRequest{}); err != nil {
		t.Fatal(err)
	}
	if _, err := k.Revoke(ctx, &adminv1.RevokeKeyRequest{Id: "key_unknown"}); err == nil {
		t.Fatal("an unknown key was revoked")
	}
	if code, body := s.do(t, http.MethodPost, "/api/v1/namespaces", s.authority.OperatorToken(), `{"name":"blue"}`); code != http.StatusOK {
		t.Fatalf("%d %s", code, body)
	}
	text := s.log.String()
	for _, want := range []string{
		`"operation":"telford.admin.v1.Namespaces/Create","author":"telford.operator","request":{"name":"blue"},"from":"127.0.0.1"`,
		`"msg":"audit","operation":"telford.admin.v1.Keys/Create","author":"telford.operator","request":{"service":"payments"}`,
		`"operation":"telford.admin.v1.Keys/Revoke"`, `"outcome":"not_found"`, `"outcome":"ok"`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the log lacks %s:\n%s", want, text)
		}
	}
	if strings.Contains(text, "Keys/List") {
		t.Error("reading was audited")
	}
	for _, secret := range []string{made.GetSecret(), made.GetKey(), s.authority.OperatorToken()} {
		if strings.Contains(text, secret) {
			t.Error("a secret is in the log")
		}
	}
}

func TestOpenAPI(t *testing.T) {
	t.Parallel()
	s := setup(t)
	code, body := s.do(t, http.MethodGet, OpenAPIPath, s.authority.OperatorToken(), "")
	if code != 200 || !bytes.Equal(body, api.OpenAPI()) {
		t.Fatalf("answered %d, %d bytes", code, len(body))
	}
	var doc struct {
		Paths map[string]map[string]struct {
			OperationID string `json:"operationId"`
		} `json:"paths"`
	}
	if err := json.Unmarshal(body, &doc); err != nil {
		t.Fatal(err)
	}
	// Every method of every service has its place in HTTP.
	mapped := map[string]bool{}
	for _, verbs := range doc.Paths {
		for _, op := range verbs {
			mapped[op.OperationID] = true
		}
	}
	for _, d := range []grpc.ServiceDesc{adminv1.Keys_ServiceDesc, adminv1.Namespaces_ServiceDesc, adminv1.Services_ServiceDesc, adminv1.System_ServiceDesc, adminv1.Policy_ServiceDesc, adminv1.Transport_ServiceDesc} {
		short := d.ServiceName[strings.LastIndexByte(d.ServiceName, '.')+1:]
		for _, m := range d.Methods {
			if !mapped[short+"_"+m.MethodName] {
				t.Errorf("%s/%s is not mapped to HTTP", d.ServiceName, m.MethodName)
			}
		}
		for _, m := range d.Streams {
			if !mapped[short+"_"+m.StreamName] {
				t.Errorf("%s/%s is not mapped to HTTP", d.ServiceName, m.StreamName)
			}
		}
	}
}

func TestStopEndsWatches(t *testing.T) {
	t.Parallel()
	s := setup(t)
	v := adminv1.NewServicesClient(s.conn)
	stream, err := v.Watch(s.operator(t), &adminv1.WatchServicesRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Fatal(err)
	}
	s.api.Stop()
	s.api.Stop()
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("the watch ended with %v", err)
	}
	stream, err = v.Watch(s.operator(t), &adminv1.WatchServicesRequest{})
	if err == nil {
		_, err = stream.Recv()
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("a watch after Stop: %v", err)
	}
}
