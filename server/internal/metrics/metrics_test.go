package metrics_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/alarm"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/metrics"
	"telford.dev/telford/server/internal/router"
	"telford.dev/telford/server/internal/rules"
)

func scrape(t *testing.T, m *metrics.Metrics) string {
	t.Helper()
	w := httptest.NewRecorder()
	m.Handler().ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", http.NoBody))
	if w.Code != http.StatusOK {
		t.Fatalf("status %d: %s", w.Code, w.Body)
	}
	return w.Body.String()
}

func TestFamilies(t *testing.T) {
	t.Parallel()
	m, err := metrics.New("v1.2.3", "abc", "go1.26")
	if err != nil {
		t.Fatal(err)
	}
	instances := []*catalog.Instance{
		{Namespace: "default", ID: "a", Reachable: true, Declaration: catalog.Declaration{Service: "payments", Status: catalog.OK}},
		{Namespace: "default", ID: "b", Reachable: true, Declaration: catalog.Declaration{Service: "payments", Status: catalog.OK}},
		{Namespace: "default", ID: "c", Draining: true, Declaration: catalog.Declaration{Service: "payments", Status: catalog.Error}},
	}
	stats := []router.Stats{{
		Namespace: "default", Service: "payments", InFlight: 2, Streams: 1, Repicks: 4, Transcoded: 5, BytesIn: 6, BytesOut: 7,
		Calls: map[errs.Code]uint64{"": 10, errs.Unavailable: 3}, StreamsEnded: map[errs.Code]uint64{errs.Canceled: 1},
		Latency: router.Histogram{Bounds: []time.Duration{time.Millisecond, time.Second}, Counts: []uint64{7, 2, 1}, Sum: 3 * time.Second},
	}}
	value := 1.0
	err = m.Register(
		metrics.Calls(func() []router.Stats { return stats }), metrics.Instances(func() []*catalog.Instance { return instances }),
		metrics.Alarms(func() []alarm.Alarm {
			return []alarm.Alarm{{Code: alarm.MassExpiry, Severity: alarm.Critical, Since: time.Unix(1e9, 0)}}
		}),
		metrics.Certificates(func() identity.PKIStatus {
			return identity.PKIStatus{Phase: identity.Signing, RotateAt: time.Unix(2e9, 0), Certificates: []identity.Certificate{
				{Role: identity.RoleRoot, State: "former"},
				{Role: identity.RoleRoot, State: "active", NotAfter: time.Unix(1e9, 0).Add(36 * time.Hour)},
				{Role: identity.RoleNode, State: "active", NotAfter: time.Unix(1e9, 0).Add(-12 * time.Hour)},
			}}
		}, func() time.Time { return time.Unix(1e9, 0) }),
		metrics.Rules(func() []rules.Stats {
			return []rules.Stats{{
				Namespace: "default", Denied: map[string]uint64{"capability": 3, "self_egress": 0}, ShadowDenied: 4, Rules: map[string]int{"policy": 5},
			}}
		}),
		metrics.Gauge("level", "A level.", func() float64 { return value }), metrics.Counter("things_total", "Things.", func() float64 { return 9 }),
	)
	if err != nil {
		t.Fatal(err)
	}
	value = 2 // asked for at the scrape
	text := scrape(t, m)
	for _, line := range []string{
		`telford_build_info{commit="abc",go_version="go1.26",version="v1.2.3"} 1`,
		`telford_calls_total{code="ok",namespace="default",service="payments"} 10`,
		`telford_calls_total{code="unavailable",namespace="default",service="payments"} 3`,
		`telford_streams_total{code="canceled",namespace="default",service="payments"} 1`,
		`telford_calls_in_flight{namespace="default",service="payments"} 2`,
		`telford_streams_in_flight{namespace="default",service="payments"} 1`,
		`telford_call_repicks_total{namespace="default",service="payments"} 4`,
		`telford_call_transcoded_total{namespace="default",service="payments"} 5`,
		`telford_call_bytes_total{direction="in",namespace="default",service="payments"} 6`,
		`telford_call_bytes_total{direction="out",namespace="default",service="payments"} 7`,
		`telford_call_duration_seconds_bucket{namespace="default",service="payments",le="0.001"} 7`,
		`telford_call_duration_seconds_bucket{namespace="default",service="payments",le="1"} 9`,
		`telford_call_duration_seconds_bucket{namespace="default",service="payments",le="+Inf"} 10`,
		`telford_call_duration_seconds_sum{namespace="default",service="payments"} 3`,
		`telford_call_duration_seconds_count{namespace="default",service="payments"} 10`,
		`telford_instances{draining="false",namespace="default",reachable="true",service="payments",status="OK"} 2`,
		`telford_instances{draining="true",namespace="default",reachable="false",service="payments",status="ERROR"} 1`,
		`telford_alarm{code="mass_expiry",severity="critical"} 1`,
		`telford_alarm_since_seconds{code="mass_expiry",severity="critical"} 1e+09`,
		`telford_policy_denials_total{namespace="default",side="capability"} 3`,
		`telford_policy_denials_total{namespace="default",side="self_egress"} 0`,
		`telford_policy_shadow_denials_total{namespace="default"} 4`,
		`telford_rules{kind="policy",namespace="default"} 5`,
		`telford_certificate_days_left{role="root",state="active"} 1.5`,
		`telford_certificate_days_left{role="node",state="active"} -0.5`,
		`telford_root_rotation_phase{phase="signing"} 1`,
		`telford_root_rotation_phase{phase="steady"} 0`,
		`telford_root_rotation_timestamp_seconds 2e+09`,
		`telford_level 2`,
		`telford_things_total 9`,
	} {
		if !strings.Contains(text, "\n"+line+"\n") {
			t.Errorf("lacks %s", line)
		}
	}
	if t.Failed() {
		t.Log(text)
	}
}

func TestNamesAreTakenOnce(t *testing.T) {
	t.Parallel()
	m, err := metrics.New("", "", "")
	if err != nil {
		t.Fatal(err)
	}
	g := func() float64 { return 0 }
	if err := m.Register(metrics.Gauge("x", "", g), metrics.Gauge("x", "", g)); err == nil {
		t.Error("two families have one name")
	}
	// Two runtimes in one process share nothing.
	other, err := metrics.New("", "", "")
	if err != nil {
		t.Fatal(err)
	}
	if err := other.Register(metrics.Gauge("x", "", g)); err != nil {
		t.Error(err)
	}
}
