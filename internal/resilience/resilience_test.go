package resilience_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/resilience"
)

func unstarted(code errs.Code) *errs.Error { return errs.New(code, "no").Unstarted() }

func TestDefaultSchedule(t *testing.T) {
	t.Parallel()
	p := resilience.Policy{}.WithDefaults()
	if p != resilience.Default() {
		t.Fatalf("the defaults of nothing are %+v", p)
	}
	if err := p.Validate(); err != nil {
		t.Fatal(err)
	}
	for failed, want := range map[int]time.Duration{
		0: 200 * time.Millisecond, 1: 200 * time.Millisecond, 2: 400 * time.Millisecond, 3: 800 * time.Millisecond,
		5: 3200 * time.Millisecond, 6: 5 * time.Second, 1000: 5 * time.Second,
	} {
		if got := p.Ceiling(failed); got != want {
			t.Errorf("after %d failures the ceiling is %v, want %v", failed, got, want)
		}
	}
	if got := p.Backoff(2, 0.5); got != 200*time.Millisecond {
		t.Errorf("half the jitter of 400ms is %v", got)
	}
	if got := p.Backoff(2, 0); got != 0 {
		t.Errorf("full jitter begins at zero, not %v", got)
	}
}

func TestValidateNamesTheValue(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		p    resilience.Policy
		says string
	}{
		"attempts": {resilience.Policy{MaxAttempts: -2, Base: 1, Factor: 2, Cap: 2}, "-2"},
		"negative": {resilience.Policy{MaxAttempts: 1, Base: -time.Second, Factor: 2, Cap: 2}, "-1s"},
		"cap":      {resilience.Policy{MaxAttempts: 1, Base: time.Second, Factor: 2, Cap: time.Millisecond}, "1ms"},
		"factor":   {resilience.Policy{MaxAttempts: 1, Base: 1, Factor: 0.5, Cap: 2}, "0.5"},
		"nan":      {resilience.Policy{MaxAttempts: 1, Base: 1, Factor: math.NaN(), Cap: 2}, "NaN"},
		"infinite": {resilience.Policy{MaxAttempts: 1, Base: 1, Factor: math.Inf(1), Cap: 2}, "Inf"},
	} {
		err := c.p.Validate()
		if errs.CodeOf(err) != errs.InvalidArgument || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v does not say %q", name, err, c.says)
		}
	}
}

func TestRepick(t *testing.T) {
	t.Parallel()
	elsewhere := map[errs.Code]bool{
		errs.NotFound: true, errs.ServiceNotFound: true, errs.MethodNotFound: true, errs.NoInstance: true,
		errs.Unavailable: true, errs.ResourceExhausted: true, errs.FailedPrecondition: true, errs.Internal: true,
	}
	for _, c := range errs.Codes() {
		if got := resilience.Repick(unstarted(c)); got != elsewhere[c] {
			t.Errorf("%s before the start: picked again %v, want %v", c, got, elsewhere[c])
		}
		if resilience.Repick(errs.New(c, "x")) {
			t.Errorf("%s without proof is picked again", c)
		}
	}
	tooLarge := unstarted(errs.ResourceExhausted)
	tooLarge.Retryable = false
	if resilience.Repick(tooLarge) || resilience.Repick(nil) {
		t.Error("a payload that is too large, or no error, is picked again")
	}
}
