package admin

import (
	"encoding/json"
	"strings"
	"testing"
)

func TestBadInput(t *testing.T) {
	t.Parallel()
	s := setup(t)
	s.register(t, "default", "payments", "in-1")
	token := s.authority.OperatorToken()
	for _, c := range []struct {
		method, path, body string
		status             int
		says               string
	}{
		{"GET", "/api/v1/services?page_size=1001", "", 400, "1001"},
		{"GET", "/api/v1/services?page_size=-1", "", 400, "-1"},
		{"GET", "/api/v1/services?page_size=many", "", 400, "many"},
		{"GET", "/api/v1/services?page_token=!!", "", 400, "!!"},
		{"GET", "/api/v1/services?pagesize=1", "", 400, "pagesize"},
		{"GET", "/api/v1/services?status=GREEN", "", 400, "GREEN"},
		{"GET", "/api/v1/services/nobody", "", 404, "registered are payments"},
		{"GET", "/api/v1/services/nobody?namespace=empty", "", 404, "nothing is registered"},
		{"GET", "/api/v1/nothing", "", 404, "/api/v1/nothing"},
		{"DELETE", "/api/v1/keys", "", 404, "DELETE"},
		{"POST", "/api/v1/keys", `{"service":`, 400, ""},
		{"POST", "/api/v1/keys", `{"service":"payments","colour":"red"}`, 400, "colour"},
		{"POST", "/api/v1/keys", `{"service":"Payments!"}`, 400, "Payments!"},
		{"POST", "/api/v1/keys", `{}`, 400, "service"},
		{"POST", "/api/v1/keys", `{"service":"payments","kind":"magic"}`, 400, "magic"},
		{"POST", "/api/v1/keys", `{"service":"payments","ttl":"soon"}`, 400, "soon"},
		{"POST", "/api/v1/keys", `{"service":"payments","namespace":"nowhere"}`, 404, "nowhere"},
		{"POST", "/api/v1/keys/key_unknown:revoke", `{}`, 404, "key_unknown"},
		{"POST", "/api/v1/keys/key_unknown:rotate", `{}`, 404, "key_unknown"},
		{"POST", "/api/v1/namespaces", `{"name":"default"}`, 409, "default"},
		{"POST", "/api/v1/namespaces", `{"name":"x","account":"abc"}`, 400, "abc"},
		{"DELETE", "/api/v1/namespaces/nowhere", "", 404, "nowhere"},
		{"DELETE", "/api/v1/namespaces/default", "", 500, "stays"},
		{"POST", "/api/v1/namespaces/default:setAccount", `{"account":"-1"}`, 400, "-1"},
		{"POST", "/api/v1/namespaces/nowhere:setAccount", `{"account":"1"}`, 404, "nowhere"},
		{"GET", "/api/v1/policy?namespace=nowhere", "", 404, "nowhere"},
		{"GET", "/api/v1/policy?service=No+Name", "", 400, "No Name"},
		{"POST", "/api/v1/policy/rules", `{}`, 400, "service"},
		{"POST", "/api/v1/policy/rules", `{"service":"payments","action":"fly","effect":"allow"}`, 400, "fly"},
		{"POST", "/api/v1/policy/rules", `{"service":"payments","action":"rpc.call","effect":"maybe"}`, 400, "maybe"},
		{"POST", "/api/v1/policy/rules", `{"namespace":"nowhere","service":"payments","action":"rpc.call","effect":"deny"}`, 404, "nowhere"},
		{"DELETE", "/api/v1/policy/rules/pol_x", "", 404, "pol_x"},
		{"DELETE", "/api/v1/policy/rules/pol_x?namespace=nowhere", "", 404, "nowhere"},
		{"POST", "/api/v1/policy/rules/pol_x:setShadow", `{"shadow":true}`, 404, "pol_x"},
		{"POST", "/api/v1/policy/capabilities", `{"service":"payments","name":"fly"}`, 400, "fly"},
		{"POST", "/api/v1/policy/capabilities", `{"service":"No Name","name":"rpc.call"}`, 400, "No Name"},
		{"GET", "/api/v1/policy:decide", "", 400, "from"},
		{"GET", "/api/v1/policy:decide?from=orders&target=charge", "", 400, "to"},
		{"GET", "/api/v1/policy:decide?from=orders&to=payments", "", 400, "target"},
		{"GET", "/api/v1/policy:decide?from=orders&to=payments&target=charge&action=fly", "", 400, "fly"},
		{"GET", "/api/v1/policy:decide?from=orders&to=payments&target=a.b&action=event.publish", "", 400, "payments"},
		{"GET", "/api/v1/policy:decide?from=orders&target=a..b&action=event.publish", "", 400, "a..b"},
		{"GET", "/api/v1/policy:decide?from=orders&target=a..b&action=event.handle", "", 400, "a..b"},
		{"GET", "/api/v1/policy:decide?from=orders&to=payments&target=%20&action=workflow.run", "", 400, "workflow"},
		{"GET", "/api/v1/policy/shadow?page_size=1001", "", 400, "1001"},
		{"GET", "/api/v1/policy/shadow?service=No+Name", "", 400, "No Name"},
		{"POST", "/api/v1/policy/shadow:clear", `{"namespace":"nowhere"}`, 404, "nowhere"},
		{"GET", "/api/v1/transports?page_token=!!", "", 400, "!!"},
		{"GET", "/api/v1/transports?service=No+Name", "", 400, "No Name"},
		{"POST", "/api/v1/transports", `{}`, 400, "says nothing"},
		{"POST", "/api/v1/transports", `{"mode":"fly"}`, 400, "fly"},
		{"POST", "/api/v1/transports", `{"timeout":"soon"}`, 400, "soon"},
		{"DELETE", "/api/v1/transports/trn_x", "", 404, "trn_x"},
		{"POST", "/api/v1/services/nobody:drain", `{}`, 404, "nobody"},
		{"POST", "/api/v1/services/payments:drain", `{}`, 400, "in-1"},
		{"POST", "/api/v1/services/nobody:deregister", `{}`, 404, "nobody"},
		{"POST", "/api/v1/keys", `{"name":"` + strings.Repeat("x", maxBody) + `"}`, 400, ""},
	} {
		code, body := s.do(t, c.method, c.path, token, c.body)
		var p struct{ Code, Detail string }
		if err := json.Unmarshal(body, &p); err != nil || p.Code == "" || p.Detail == "" {
			t.Errorf("%s %s: no problem details: %s", c.method, c.path, body)
		}
		if code != c.status || !strings.Contains(string(body), c.says) {
			t.Errorf("%s %s answered %d %s, want %d with %q", c.method, c.path, code, body, c.status, c.says)
		}
	}
}
