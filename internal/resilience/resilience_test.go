package resilience_test

import (
	"math"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

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

func TestDecide(t *testing.T) {
	t.Parallel()
	p := resilience.Default()
	ok := resilience.Failure{Err: unstarted(errs.Unavailable), Attempts: 1}
	with := func(change func(*resilience.Failure)) resilience.Failure {
		f := ok
		change(&f)
		return f
	}
	for name, c := range map[string]struct {
		f    resilience.Failure
		want resilience.Decision
	}{
		"proof":       {ok, resilience.Decision{Retry: true, Delay: 100 * time.Millisecond, Why: resilience.Retryable}},
		"second":      {with(func(f *resilience.Failure) { f.Attempts = 2 }), resilience.Decision{Retry: true, Delay: 200 * time.Millisecond, Why: resilience.Retryable}},
		"third":       {with(func(f *resilience.Failure) { f.Attempts = 3 }), resilience.Decision{Why: resilience.UsedUp}},
		"no error":    {with(func(f *resilience.Failure) { f.Err = nil }), resilience.Decision{Why: resilience.Nothing}},
		"stream":      {with(func(f *resilience.Failure) { f.Stream = true }), resilience.Decision{Why: resilience.Streaming}},
		"maybe ran":   {with(func(f *resilience.Failure) { f.Err = errs.New(errs.Unavailable, "cut") }), resilience.Decision{Why: resilience.NotProven}},
		"handler":     {with(func(f *resilience.Failure) { f.Err = errs.New(errs.Handler, "no funds") }), resilience.Decision{Why: resilience.NotProven}},
		"no instance": {with(func(f *resilience.Failure) { f.Err = unstarted(errs.NoInstance) }), resilience.Decision{Retry: true, Delay: 100 * time.Millisecond, Why: resilience.Retryable}},
		"final":       {with(func(f *resilience.Failure) { f.Err = unstarted(errs.ServiceNotFound) }), resilience.Decision{Why: resilience.Final}},
		"denied":      {with(func(f *resilience.Failure) { f.Err = unstarted(errs.PermissionDenied) }), resilience.Decision{Why: resilience.Final}},
		"in time": {
			with(func(f *resilience.Failure) { f.HasDeadline, f.Remaining = true, 101*time.Millisecond }),
			resilience.Decision{Retry: true, Delay: 100 * time.Millisecond, Why: resilience.Retryable},
		},
		"too late": {
			with(func(f *resilience.Failure) { f.HasDeadline, f.Remaining = true, 100*time.Millisecond }),
			resilience.Decision{Why: resilience.NoTime},
		},
		"asked to wait": {
			with(func(f *resilience.Failure) { f.Err = f.Err.After(3 * time.Second) }),
			resilience.Decision{Retry: true, Delay: 3100 * time.Millisecond, Why: resilience.Retryable},
		},
		"asked to wait too long": {
			with(func(f *resilience.Failure) {
				f.Err, f.HasDeadline, f.Remaining = f.Err.After(3*time.Second), true, 2*time.Second
			}),
			resilience.Decision{Why: resilience.NoTime},
		},
	} {
		if got := p.Decide(c.f, 0.5); got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	if got := (resilience.Policy{MaxAttempts: 1}).WithDefaults().Decide(ok, 0.5); got.Retry {
		t.Error("one attempt in all is retried")
	}
}

func TestDecideKeepsItsBounds(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		p := resilience.Policy{
			MaxAttempts: rapid.IntRange(1, 20).Draw(t, "max"),
			Base:        time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "base")),
			Factor:      rapid.Float64Range(1, 1e6).Draw(t, "factor"),
		}
		p.Cap = p.Base + time.Duration(rapid.Int64Range(0, int64(time.Hour)).Draw(t, "above"))
		if err := p.Validate(); err != nil {
			t.Fatal(err)
		}
		f := resilience.Failure{
			Err: errs.New(rapid.SampledFrom(errs.Codes()).Draw(t, "code"), "x"), Attempts: rapid.IntRange(1, 25).Draw(t, "attempts"),
			Stream: rapid.Bool().Draw(t, "stream"), HasDeadline: rapid.Bool().Draw(t, "deadline"),
			Remaining: time.Duration(rapid.Int64Range(-int64(time.Second), int64(time.Hour)).Draw(t, "remaining")),
		}
		if rapid.Bool().Draw(t, "not started") {
			f.Err = f.Err.Unstarted()
		}
		after := time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "after"))
		f.Err = f.Err.After(after)
		d := p.Decide(f, rapid.Float64Range(0, math.Nextafter(1, 0)).Draw(t, "random"))
		switch {
		case !d.Retry && d.Delay != 0:
			t.Fatalf("no retry, and yet a delay of %v", d.Delay)
		case !d.Retry:
		case f.Stream || !f.Err.NotStarted || f.Attempts >= p.MaxAttempts:
			t.Fatalf("a retry that is not allowed: %+v", f)
		case d.Delay < after || d.Delay > after+p.Cap:
			t.Fatalf("delay %v is not between %v and %v", d.Delay, after, after+p.Cap)
		case f.HasDeadline && d.Delay >= f.Remaining:
			t.Fatalf("delay %v with %v left", d.Delay, f.Remaining)
		}
	})
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
