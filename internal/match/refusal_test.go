package match_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/match"
)

func TestRefusal(t *testing.T) {
	t.Parallel()
	long := "pb:" + strings.Repeat("ab", 32)
	speakers := []match.Speaker{
		{ID: "in_a", Version: "1.0.0", Contract: "pb:old"},
		{ID: "in_b", Version: "1.1.0", Contract: "pb:old", Unready: "draining"},
		{ID: "in_c", Version: "2.0.0", Contract: long},
		{ID: "in_d", Contract: "js:1"},
		{ID: "in_e"},
	}
	err := match.Refusal("payments", "charge", "pb:mine", speakers)
	for _, says := range []string{
		`service "payments"`, `method "charge"`, "pb:mine of the caller",
		"pb:abababababababab… (version 2.0.0, 1 instance: in_c)",
		"pb:old (version 1.1.0, 1.0.0, 2 instances: in_a, in_b (draining))",
		"js:1 (no version, 1 instance: in_d)", "no contract (no version, 1 instance: in_e)",
		"start an instance", "without a contract",
	} {
		if !strings.Contains(err.Message, says) {
			t.Errorf("it does not say %q: %s", says, err.Message)
		}
	}
	sentinel := &errs.Error{Code: errs.NoInstance, Meta: map[string]string{errs.MetaReason: errs.ReasonContract}}
	if !errors.Is(err, sentinel) || !err.NotStarted || !err.Retryable || err.Meta["contract"] != "pb:mine" || err.Meta["service"] != "payments" || err.Meta["method"] != "charge" {
		t.Errorf("%+v", err)
	}
}

// TestRefusalIsBounded: names from outside and many instances make no long message.
func TestRefusalIsBounded(t *testing.T) {
	t.Parallel()
	var speakers []match.Speaker
	for i := range 500 {
		speakers = append(speakers, match.Speaker{
			ID: fmt.Sprintf("in_%s%d", strings.Repeat("x", 500), i), Version: strings.Repeat("9", 1000+i), Contract: fmt.Sprintf("pb:%d", i%40),
		})
	}
	err := match.Refusal(strings.Repeat("s", 5000), strings.Repeat("m", 5000), "pb:"+strings.Repeat("c", 5000), speakers)
	if len(err.Message) > 2000 || !strings.Contains(err.Message, "and 35 more") || !strings.Contains(err.Message, "and 10 more") {
		t.Errorf("%d bytes: %s", len(err.Message), err.Message)
	}
	for k, v := range err.Meta {
		if len(v) > 200 {
			t.Errorf("%s has %d bytes", k, len(v))
		}
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	other, own := match.Speaker{Contract: "pb:2"}, match.Speaker{Contract: "pb:1"}
	away := func(s match.Speaker) match.Speaker { s.Unready = "draining"; return s }
	for name, c := range map[string]struct {
		w        match.Wish
		speakers []match.Speaker
		want     bool
	}{
		"others are ready":     {match.Wish{Contract: "pb:1"}, []match.Speaker{other}, true},
		"own one is not ready": {match.Wish{Contract: "pb:1"}, []match.Speaker{other, away(own)}, true},
		"own one is ready":     {match.Wish{Contract: "pb:1"}, []match.Speaker{other, own}, false},
		"nobody is ready":      {match.Wish{Contract: "pb:1"}, []match.Speaker{away(other), away(own)}, false},
		"a wish":               {match.Wish{Contract: "pb:1", Lenient: true}, []match.Speaker{other}, false},
		"no contract":          {match.Wish{}, []match.Speaker{other}, false},
	} {
		if got := match.Refused(c.w, c.speakers); got != c.want {
			t.Errorf("%s: %v", name, got)
		}
	}
}
