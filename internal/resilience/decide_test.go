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

func TestDecide(t *testing.T) {
	t.Parallel()
	p := resilience.Default()
	ok := resilience.Failure{Err: unstarted(errs.Unavailable), Attempts: 1}
	with := func(changes ...func(*resilience.Failure)) resilience.Failure {
		f := ok
		for _, change := range changes {
			change(&f)
		}
		return f
	}
	failed := func(code errs.Code) func(*resilience.Failure) {
		return func(f *resilience.Failure) { f.Err = errs.New(code, "cut") }
	}
	refused := func(code errs.Code) func(*resilience.Failure) {
		return func(f *resilience.Failure) { f.Err = unstarted(code) }
	}
	keyed := func(f *resilience.Failure) { f.Keyed = true }
	waiting := func(f *resilience.Failure) { f.Waiting = true }
	never := func(f *resilience.Failure) { f.Err = f.Err.With(resilience.MetaRetry, resilience.Never) }
	again := resilience.Decision{Retry: true, Delay: 100 * time.Millisecond, Why: resilience.Retryable, Charged: true}
	free := again
	free.Charged = false
	no := func(why resilience.Why) resilience.Decision { return resilience.Decision{Why: why} }
	late := func(d time.Duration) resilience.Decision {
		out := again
		out.Delay = d
		return out
	}
	for name, c := range map[string]struct {
		f    resilience.Failure
		want resilience.Decision
	}{
		"proof":       {ok, again},
		"second":      {with(func(f *resilience.Failure) { f.Attempts = 2 }), late(200 * time.Millisecond)},
		"third":       {with(func(f *resilience.Failure) { f.Attempts = 3 }), no(resilience.UsedUp)},
		"no error":    {with(func(f *resilience.Failure) { f.Err = nil }), no(resilience.Nothing)},
		"stream":      {with(func(f *resilience.Failure) { f.Stream = true }), no(resilience.Streaming)},
		"maybe ran":   {with(failed(errs.Unavailable)), no(resilience.NotProven)},
		"handler":     {with(failed(errs.Handler)), no(resilience.NotProven)},
		"no instance": {with(refused(errs.NoInstance)), free},
		"final":       {with(refused(errs.ServiceNotFound)), no(resilience.Final)},
		"denied":      {with(refused(errs.PermissionDenied)), no(resilience.Final)},
		"too busy":    {with(refused(errs.ResourceExhausted)), again},
		"too large": {with(refused(errs.ResourceExhausted), func(f *resilience.Failure) {
			e := *f.Err
			e.Retryable = false
			f.Err = &e
		}), no(resilience.Final)},
		"forbidden": {with(never), no(resilience.Final)},

		"key, maybe ran":                 {with(keyed, failed(errs.Unavailable)), again},
		"key, broken on the way":         {with(keyed, failed(errs.Internal)), again},
		"key, no proof, forbidden":       {with(keyed, failed(errs.Internal), never), no(resilience.Final)},
		"key, late":                      {with(keyed, failed(errs.DeadlineExceeded)), no(resilience.NotProven)},
		"key, cancelled":                 {with(keyed, failed(errs.Canceled)), no(resilience.NotProven)},
		"key, handler":                   {with(keyed, failed(errs.Handler)), no(resilience.NotProven)},
		"key, conflict":                  {with(keyed, failed(errs.Conflict)), no(resilience.NotProven)},
		"key, answered unavailable":      {with(keyed, failed(errs.Unavailable), func(f *resilience.Failure) { f.Answered = true }), no(resilience.WasAnswered)},
		"key, the method forbids":        {with(keyed, failed(errs.Unavailable), func(f *resilience.Failure) { f.NotRetryable = true }), no(resilience.NoRepeat)},
		"key, proof, the method forbids": {with(keyed, func(f *resilience.Failure) { f.NotRetryable = true }), again},
		"key, stream":                    {with(keyed, failed(errs.Unavailable), func(f *resilience.Failure) { f.Stream = true }), no(resilience.Streaming)},

		"inner":               {with(func(f *resilience.Failure) { f.Inner = true }), no(resilience.IsInner)},
		"inner with a key":    {with(keyed, failed(errs.Unavailable), func(f *resilience.Failure) { f.Inner = true }), no(resilience.IsInner)},
		"breakers":            {with(func(f *resilience.Failure) { f.Err = resilience.Open("s", "m", []resilience.Cut{{"in", time.Second}}) }), no(resilience.IsCut)},
		"waits":               {with(waiting, refused(errs.NoInstance), func(f *resilience.Failure) { f.Attempts = 50 }), resilience.Decision{Retry: true, Delay: 500 * time.Millisecond, Why: resilience.Retryable}},
		"waits, stream":       {with(waiting, func(f *resilience.Failure) { f.Stream = true }), free},
		"waits, inner":        {with(waiting, func(f *resilience.Failure) { f.Inner = true }), free},
		"waits, denied":       {with(waiting, refused(errs.PermissionDenied)), no(resilience.Final)},
		"waits, and it began": {with(waiting, failed(errs.Unavailable)), no(resilience.NotProven)},
		"waits for a breaker": {with(waiting, func(f *resilience.Failure) { f.Err = resilience.Open("s", "m", []resilience.Cut{{"in", time.Second}}) }), resilience.Decision{Retry: true, Delay: 1100 * time.Millisecond, Why: resilience.Retryable}},
		"in time":             {with(func(f *resilience.Failure) { f.HasDeadline, f.Remaining = true, 101*time.Millisecond }), again},
		"too late":            {with(func(f *resilience.Failure) { f.HasDeadline, f.Remaining = true, 100*time.Millisecond }), no(resilience.NoTime)},
		"asked to wait":       {with(func(f *resilience.Failure) { f.Err = f.Err.After(3 * time.Second) }), late(3100 * time.Millisecond)},
		"asked for too long": {with(func(f *resilience.Failure) {
			f.Err, f.HasDeadline, f.Remaining = f.Err.After(3*time.Second), true, 2*time.Second
		}), no(resilience.NoTime)},
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
		flag := func(name string) bool { return rapid.Bool().Draw(t, name) }
		f := resilience.Failure{
			Err: errs.New(rapid.SampledFrom(errs.Codes()).Draw(t, "code"), "x"), Attempts: rapid.IntRange(1, 25).Draw(t, "attempts"),
			Stream: flag("stream"), HasDeadline: flag("deadline"), Keyed: flag("keyed"), NotRetryable: flag("not retryable"),
			Answered: flag("answered"), Inner: flag("inner"), Waiting: flag("waiting"),
			Remaining: time.Duration(rapid.Int64Range(-int64(time.Second), int64(time.Hour)).Draw(t, "remaining")),
		}
		if flag("not started") {
			f.Err = f.Err.Unstarted()
		}
		if flag("forbidden") {
			f.Err = f.Err.With(resilience.MetaRetry, resilience.Never)
		}
		after := time.Duration(rapid.Int64Range(0, int64(time.Minute)).Draw(t, "after"))
		f.Err = f.Err.After(after)
		d := p.Decide(f, rapid.Float64Range(0, math.Nextafter(1, 0)).Draw(t, "random"))
		waits := f.Waiting && f.Err.NotStarted
		switch {
		case !d.Retry && d.Delay != 0:
			t.Fatalf("no retry, and yet a delay of %v", d.Delay)
		case !d.Retry:
		case f.Answered, resilience.Forbids(f.Err), f.Err.Code == errs.DeadlineExceeded && !f.Err.NotStarted:
			t.Fatalf("a retry that nothing allows: %+v", f)
		case !f.Err.NotStarted && (!f.Keyed || f.NotRetryable):
			t.Fatalf("a retry without proof: %+v", f)
		case !waits && (f.Stream || f.Inner || f.Attempts >= p.MaxAttempts):
			t.Fatalf("a retry that is not allowed: %+v", f)
		case d.Charged == waits && f.Err.Code != errs.NoInstance:
			t.Fatalf("charged %v: %+v", d.Charged, f)
		case d.Delay < after || d.Delay > after+p.Cap:
			t.Fatalf("delay %v is not between %v and %v", d.Delay, after, after+p.Cap)
		case f.HasDeadline && d.Delay >= f.Remaining:
			t.Fatalf("delay %v with %v left", d.Delay, f.Remaining)
		}
	})
}

func TestJudge(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err  *errs.Error
		want resilience.Verdict
	}{
		"nothing":         {nil, resilience.Succeeded},
		"cut":             {errs.New(errs.Unavailable, "x"), resilience.Failed},
		"refused":         {unstarted(errs.Unavailable), resilience.Failed},
		"late":            {errs.New(errs.DeadlineExceeded, "x"), resilience.Failed},
		"never sent":      {unstarted(errs.DeadlineExceeded), resilience.Neither},
		"overloaded":      {unstarted(errs.ResourceExhausted), resilience.Failed},
		"limit":           {unstarted(errs.ResourceExhausted).With(errs.MetaReason, errs.ReasonLimit), resilience.Neither},
		"broken":          {errs.New(errs.Internal, "x"), resilience.Failed},
		"aborted":         {errs.New(errs.Conflict, "x"), resilience.Failed},
		"the caller left": {errs.New(errs.Canceled, "x"), resilience.Neither},
		"denied":          {unstarted(errs.PermissionDenied), resilience.Neither},
		"wrong":           {unstarted(errs.InvalidArgument), resilience.Neither},
	} {
		if got := resilience.Judge(c.err); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

func TestUnknownOutcome(t *testing.T) {
	t.Parallel()
	if e := resilience.Unknown(errs.New(errs.Unavailable, "cut")); !resilience.IsUnknown(e) {
		t.Errorf("%+v is not marked", e)
	}
	if e := resilience.Unknown(unstarted(errs.Unavailable)); resilience.IsUnknown(e) {
		t.Errorf("%+v has a proof, and is marked", e)
	}
	if resilience.IsUnknown(nil) || resilience.Unknown(nil) != nil {
		t.Error("no failure is marked")
	}
}

func TestOpenNamesItself(t *testing.T) {
	t.Parallel()
	var cut []resilience.Cut
	for i := range 14 {
		cut = append(cut, resilience.Cut{Instance: "in_" + string(rune('a'+i)), Next: time.Duration(14-i) * time.Second})
	}
	e := resilience.Open("payments", "charge", cut)
	if e.Code != errs.Unavailable || !e.NotStarted || e.RetryAfter != time.Second || e.Meta["reason"] != "breaker_open" ||
		e.Meta["service"] != "payments" || e.Meta["next_probe_ms"] != "1000" || !strings.HasPrefix(e.Meta["instances"], "in_a,in_b,") {
		t.Errorf("%+v", e)
	}
	for _, want := range []string{"payments", "charge", "in_a (probed in 14s)", "and 4 more"} {
		if !strings.Contains(e.Message, want) {
			t.Errorf("%q does not say %q", e.Message, want)
		}
	}
	if !resilience.IsOpen(e) || resilience.IsOpen(errs.New(errs.Unavailable, "x")) {
		t.Error("it is not told from others")
	}
}
