package admin

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
	"telford.dev/telford/server/internal/alarm"
)

func TestHeldExpiryIsToldAndConfirmed(t *testing.T) {
	t.Parallel()
	s := setup(t)
	ctx, token := s.operator(t), s.authority.OperatorToken()
	v := adminv1.NewServicesClient(s.conn)
	if got, err := v.Expire(ctx, &adminv1.ExpireServicesRequest{Confirm: true}); err != nil || len(got.GetItems()) != 0 || got.GetConfirmed() {
		t.Fatalf("nothing is held, and yet %v %v", got, err)
	}
	for i := range 20 {
		s.register(t, "default", "payments", fmt.Sprint("in-", i))
	}
	if err := s.registry.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	s.until(t, func() bool { return len(s.alarms.List()) > 0 })

	code, body := s.do(t, http.MethodPost, "/api/v1/services:expire", token, `{}`)
	var told struct {
		Items []struct {
			Namespace             string
			Instances, Registered int
			Since                 time.Time
			ResumesAt             time.Time `json:"resumes_at"`
		}
		Confirmed bool
	}
	if err := json.Unmarshal(body, &told); err != nil || code != http.StatusOK {
		t.Fatalf("%d %s %v", code, body, err)
	}
	if len(told.Items) != 1 || told.Items[0].Instances != 20 || told.Items[0].Registered != 20 || told.Confirmed ||
		told.Items[0].ResumesAt.Sub(told.Items[0].Since) != time.Hour {
		t.Fatalf("told %s", body)
	}
	if got, err := v.Expire(ctx, &adminv1.ExpireServicesRequest{Namespace: "other", Confirm: true}); err != nil || len(got.GetItems()) != 0 || got.GetConfirmed() {
		t.Fatalf("of another namespace: %v %v", got, err)
	}
	// Force works whatever is held.
	if _, err := v.Deregister(ctx, &adminv1.DeregisterServiceRequest{Id: "in-3"}); err != nil {
		t.Fatal(err)
	}
	_, body = s.do(t, http.MethodGet, "/api/v1/info", token, "")
	if !strings.Contains(string(body), `"code":"mass_expiry","severity":"critical","message":"expiry is paused`) {
		t.Fatalf("info says %s", body)
	}
	got, err := v.Expire(ctx, &adminv1.ExpireServicesRequest{Namespace: "default", Confirm: true})
	if err != nil || !got.GetConfirmed() || got.GetItems()[0].GetInstances() != 19 {
		t.Fatalf("%v %v", got, err)
	}
	s.until(t, func() bool { return s.registry.Stats().Instances == 0 && len(s.alarms.List()) == 0 })
	if !strings.Contains(s.log.String(), `"operation":"telford.admin.v1.Services/Expire"`) {
		t.Error("the confirmation is not audited")
	}
}

// until lets time pass until ok.
func (s *suite) until(t *testing.T, ok func() bool) {
	t.Helper()
	deadline := time.NewTimer(20 * time.Second)
	defer deadline.Stop()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
			s.clock.Advance(time.Second)
		case <-deadline.C:
			t.Fatalf("waited too long; alarms %v", s.alarms.List())
		}
	}
}

func TestAlarmsAndHintsAreShown(t *testing.T) {
	t.Parallel()
	s := setup(t)
	ctx := s.operator(t)
	s.alarms.Raise("disk", alarm.Warning, "the disk is nearly full")
	s.alarms.Raise("clock", alarm.Critical, "the clock is wrong")
	got, err := adminv1.NewSystemClient(s.conn).ListAlarms(ctx, &adminv1.ListAlarmsRequest{})
	if err != nil || len(got.GetItems()) != 2 || got.GetItems()[0].GetCode() != "clock" ||
		got.GetItems()[1].GetMessage() != "the disk is nearly full" || !got.GetItems()[1].GetSince().AsTime().Equal(s.clock.Now()) {
		t.Fatalf("%v %v", got, err)
	}
	s.register(t, "default", "payments", "in-1")
	s.registry.Reach("default", "in-1", true)
	s.registry.SetFailing("default", "in-1", s.clock.Now().Add(time.Minute))
	p, err := adminv1.NewServicesClient(s.conn).Get(ctx, &adminv1.GetServiceRequest{Name: "payments"})
	if err != nil || !p.GetInstances()[0].GetFailingUntil().AsTime().Equal(s.clock.Now().Add(time.Minute)) {
		t.Fatalf("%v %v", p, err)
	}
	s.registry.SetFailing("default", "in-1", s.clock.Now())
	if p, err = adminv1.NewServicesClient(s.conn).Get(ctx, &adminv1.GetServiceRequest{Name: "payments"}); err != nil || p.GetInstances()[0].FailingUntil != nil {
		t.Fatalf("%v %v", p, err)
	}
}
