package admin

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/encoding/protojson"

	"telford.dev/telford/internal/catalog"
	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
	"telford.dev/telford/server/internal/registry"
)

func TestLimits(t *testing.T) {
	t.Parallel()
	s := setup(t)
	token := s.authority.OperatorToken()
	declare := func(id, version string, limits ...catalog.Limit) {
		t.Helper()
		_, _, err := s.registry.Register(t.Context(), registry.Owner{Namespace: "default", Instance: id, Service: "pay", Door: "link"}, &catalog.Declaration{
			Version: version, Methods: []catalog.Method{{Name: "shop.v1.Pay/Charge", Limits: limits}, {Name: "shop.v2.Pay/Charge"}, {Name: "plain"}},
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	declare("in_1", "1.0", catalog.Limit{Concurrency: 1})
	declare("in_2", "2.0", catalog.Limit{Concurrency: 4, Queue: 2, Key: "caller"}, catalog.Limit{Rate: 0.5, Key: "func"})
	set := func(body string) *adminv1.Limit {
		t.Helper()
		status, answer := s.do(t, "POST", "/api/v1/limits", token, body)
		l := &adminv1.Limit{}
		if err := protojson.Unmarshal(answer, l); err != nil || status != 200 || l.GetId() == "" || l.GetAuthor() != operator || l.GetSource() != "set" {
			t.Fatalf("%s: %d %s", body, status, answer)
		}
		return l
	}
	first := set(`{"service":"pay","method":"shop.v1.Pay/Charge","rate":2,"burst":4,"key":"func","scope":"service"}`)
	if again := set(`{"service":"pay","method":"shop.v1.Pay/Charge","rate":3,"key":"func"}`); again.GetId() != first.GetId() {
		t.Errorf("the one set over it has another id: %s, %s", first.GetId(), again.GetId())
	}
	if l := set(`{"service":"pay","method":"plain","concurrency":1}`); l.GetScope() != "instance" {
		t.Errorf("scope %q", l.GetScope())
	}
	set(`{"instances":9}`)
	var got []string
	for page := ""; ; {
		_, body := s.do(t, "GET", "/api/v1/limits?page_size=2&page_token="+page, token, "")
		list := &adminv1.ListLimitsResponse{}
		if err := protojson.Unmarshal(body, list); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
		for _, l := range list.GetItems() {
			got = append(got, fmt.Sprintf("%s/%s %s %d+%d %v %s %d", l.GetService(), l.GetMethod(), l.GetSource(), l.GetConcurrency(), l.GetQueue(), l.GetRate(), l.GetKey(), l.GetInstances()))
		}
		if page = list.GetNextPageToken(); page == "" {
			break
		}
	}
	want := []string{
		"/ set 0+0 0  9", "pay/plain set 1+0 0  0", "pay/shop.v1.Pay/Charge set 0+0 3 func 0",
		"pay/shop.v1.Pay/Charge declared 4+2 0 caller 0", "pay/shop.v1.Pay/Charge declared 0+0 0.5 func 0",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for _, c := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"POST", "/api/v1/limits", `{}`, 400, "bounds nothing"},
		{"POST", "/api/v1/limits", `{"service":"pay","method":"Charge","concurrency":1}`, 400, "shop.v1.Pay/Charge, shop.v2.Pay/Charge"},
		{"POST", "/api/v1/limits", `{"service":"pay","method":"plain","rate":1,"key":"func"}`, 400, "declares a function"},
		{"POST", "/api/v1/limits", `{"service":"pay","concurrency":4294967295}`, 400, "4294967295"},
		{"POST", "/api/v1/limits", `{"service":"pay","concurrency":-1}`, 400, ""},
		{"POST", "/api/v1/limits", `{"service":"pay","rate":"Infinity"}`, 400, "rate +Inf"},
		{"POST", "/api/v1/limits", `{"service":"pay","concurrency":1,"namespace":"nowhere"}`, 404, "nowhere"},
		{"GET", "/api/v1/limits?namespace=nowhere", "", 404, "nowhere"},
		{"DELETE", "/api/v1/limits/lim_none", "", 404, "lim_none"},
		{"DELETE", "/api/v1/limits/" + first.GetId() + "?namespace=nowhere", "", 404, "nowhere"},
	} {
		if status, body := s.do(t, c.method, c.path, token, c.body); status != c.status || !strings.Contains(string(body), c.says) {
			t.Errorf("%s %s %s: %d %s", c.method, c.path, c.body, status, body)
		}
	}
	if status, body := s.do(t, "DELETE", "/api/v1/limits/"+first.GetId(), token, ""); status != 200 || !strings.Contains(string(body), first.GetId()) {
		t.Errorf("remove: %d %s", status, body)
	}
	if status, _ := s.do(t, "DELETE", "/api/v1/limits/"+first.GetId(), token, ""); status != 404 {
		t.Errorf("remove twice: %d", status)
	}
	if status, _ := s.do(t, "GET", "/api/v1/limits", "", ""); status != 401 {
		t.Errorf("without a credential: %d", status)
	}
}
