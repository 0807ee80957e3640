package admin

import (
	"context"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
)

// charged makes a call with a key in the idempotency domain.
func (s *suite) charged(t *testing.T, caller, method, key string, reply *message.Reply, once bool) {
	t.Helper()
	call := &message.Call{
		Service: "payments", Method: method, IdempotencyKey: key, BusinessKey: "order 1", RequestID: "req-1", Body: []byte(key),
		Caller: message.Caller{Service: caller}, Deadline: time.Now().Add(time.Minute),
	}
	_, _ = s.keyed.Call(t.Context(), "default", call, once, func(_ context.Context, _ *message.Call, claim func(string, bool) error) (*message.Reply, error) {
		if err := claim("in-1", once); err != nil {
			return nil, err
		}
		if reply == nil {
			return nil, errs.New(errs.Unavailable, "lost")
		}
		return reply, nil
	})
}

func TestIdempotencyRecords(t *testing.T) {
	t.Parallel()
	s := setup(t)
	ok := &message.Reply{Body: []byte("paid")}
	s.charged(t, "shop", "pay", "k", ok, false)
	s.charged(t, "shop", "refund", "k", &message.Reply{Err: errs.New(errs.Handler, "no")}, false)
	s.charged(t, "web", "pay", "k", &message.Reply{Body: make([]byte, 100_000)}, false)
	s.charged(t, "web", "refund", "k", nil, false)
	s.charged(t, "web", "refund", "other", nil, true)
	client := adminv1.NewIdempotencyClient(s.conn)
	var all []string
	in := &adminv1.ListIdempotencyRequest{BusinessKey: "order 1", PageSize: 2}
	for {
		page, err := client.List(s.operator(t), in)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range page.GetItems() {
			all = append(all, strings.Join([]string{r.GetCaller(), r.GetMethod(), r.GetKey(), r.GetState(), r.GetCode()}, " "))
			if r.GetNamespace() != "default" || r.GetCallee() != "payments" || r.GetInstance() != "in-1" || r.GetRequestId() != "req-1" ||
				len(r.GetBodyHash()) != 64 || !r.GetClaimedAt().AsTime().Equal(s.clock.Now()) || r.GetDeadline() == nil ||
				!r.GetExpiresAt().AsTime().Equal(s.clock.Now().Add(24*time.Hour)) {
				t.Errorf("record %v", r)
			}
		}
		if in.PageToken = page.GetNextPageToken(); in.PageToken == "" {
			break
		}
	}
	want := "shop pay k answered \nshop refund k answered handler\nweb pay k too_large \nweb refund k open \nweb refund other closed "
	if got := strings.Join(all, "\n"); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for name, in := range map[string]*adminv1.ListIdempotencyRequest{
		"nothing": {}, "both": {Key: "a", BusinessKey: "b"}, "no key": {Key: "a\nb"}, "a page": {Key: "a", PageSize: -1},
	} {
		if _, err := client.List(s.operator(t), in); status.Code(err) != codes.InvalidArgument {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := client.List(t.Context(), &adminv1.ListIdempotencyRequest{Key: "k"}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("nobody: %v", err)
	}
	if code, body := s.do(t, "GET", "/api/v1/idempotency?key=other", s.authority.OperatorToken(), ""); code != 200 || !strings.Contains(string(body), `"state":"closed"`) {
		t.Errorf("over HTTP: %d %s", code, body)
	}
}
