package invoke

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/match"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/resilience"
	"telford.dev/telford/internal/transport"
)

func TestRulesSayWhichWay(t *testing.T) {
	t.Parallel()
	rule := func(mode, fallback string) *transport.Table {
		return transport.Compile([]transport.Rule{{Service: "svc", Mode: mode, Fallback: fallback}})
	}
	for name, c := range map[string]struct {
		table   *transport.Table
		mode    Mode
		nobody  bool // no instance is known
		down    bool
		answers []error
		proxied int
		want    errs.Code
	}{
		"no rules":                           {nil, Unsaid, false, false, nil, 1, ""},
		"auto":                               {rule("auto", ""), Unsaid, false, false, nil, 1, ""},
		"direct":                             {rule("direct", ""), Unsaid, false, false, nil, 0, errs.Unavailable},
		"direct, else nothing":               {rule("direct", "none"), Unsaid, false, false, nil, 0, errs.Unavailable},
		"direct, else proxy":                 {rule("direct", "proxy"), Unsaid, false, false, nil, 1, ""},
		"proxy":                              {rule("proxy", ""), Unsaid, false, false, []error{unstarted(errs.NoInstance)}, 1, errs.NoInstance},
		"proxy, else direct":                 {rule("proxy", "direct"), Unsaid, false, false, []error{unstarted(errs.NoInstance)}, 1, errs.Unavailable},
		"proxy, else direct, and it began":   {rule("proxy", "direct"), Unsaid, false, false, []error{errs.New(errs.Unavailable, "cut")}, 1, errs.Unavailable},
		"proxy, else direct, denied":         {rule("proxy", "direct"), Unsaid, false, false, []error{unstarted(errs.PermissionDenied)}, 1, errs.PermissionDenied},
		"proxy, else direct, runtime away":   {rule("proxy", "direct"), Unsaid, false, true, nil, 0, errs.Unavailable},
		"auto without a fallback":            {rule("auto", "none"), Unsaid, false, false, nil, 0, errs.Unavailable},
		"auto without a fallback, nobody":    {rule("auto", "none"), Unsaid, true, false, nil, 1, ""},
		"only a fallback":                    {rule("", "none"), Unsaid, true, false, nil, 1, ""},
		"the call says direct":               {rule("proxy", "direct"), Direct, false, false, nil, 0, errs.Unavailable},
		"the call says proxy":                {rule("direct", "none"), Proxy, false, false, nil, 1, ""},
		"the call says auto":                 {rule("direct", "none"), Auto, false, false, nil, 1, ""},
		"the call says proxy, no fallback":   {rule("proxy", "direct"), Proxy, false, false, []error{unstarted(errs.NoInstance)}, 1, errs.NoInstance},
		"rules of others mean nothing to it": {transport.Compile([]transport.Rule{{Service: "other", Mode: "direct"}}), Unsaid, false, false, nil, 1, ""},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := &runtime{answers: c.answers, down: c.down}
			list := []*catalog.Instance{instance("json")}
			if c.nobody {
				list = nil
			}
			v := invoker(t, r, list...)
			v.SetTransports(c.table)
			cl := call(c.mode)
			cl.Policy.MaxAttempts = 1
			err := do(t.Context(), v, cl)
			if got := errs.CodeOf(err); got != c.want || len(r.calls) != c.proxied {
				t.Errorf("%s: %v, %d calls through the runtime, want %q and %d", name, err, len(r.calls), c.want, c.proxied)
			}
		})
	}
}

func TestRulesGiveTime(t *testing.T) {
	t.Parallel()
	v := invoker(t, &runtime{}, instance("json"))
	r := v.Route("svc", "m", message.JSON, match.Wish{})
	if d := v.Timeout(r); d != 0 {
		t.Errorf("without rules: %v", d)
	}
	v.SetTransports(transport.Compile([]transport.Rule{{Service: "svc", Method: "m", Timeout: 2 * time.Second}, {Timeout: time.Minute}}))
	if d := v.Timeout(r); d != 2*time.Second {
		t.Errorf("the method: %v", d)
	}
	if d := v.Timeout(v.Route("svc", "other", message.JSON, match.Wish{})); d != time.Minute {
		t.Errorf("the default: %v", d)
	}
	if before := r.said.Load(); v.Timeout(r) != 2*time.Second || r.said.Load() != before {
		t.Error("the rules are looked up again")
	}
	v.SetTransports(nil)
	if d := v.Timeout(r); d != 0 {
		t.Errorf("rules that were taken away: %v", d)
	}
}

func keyed(mode Mode) *Call {
	c := call(mode)
	c.IdempotencyKey = "k"
	return c
}

func TestKeyedCalls(t *testing.T) {
	t.Parallel()
	lost := errs.New(errs.Unavailable, "cut")
	once := instance("json")
	once.Declaration.Methods[0].NotRetryable = true
	for name, c := range map[string]struct {
		call    *Call
		list    *catalog.Instance
		answers []error
		proxied int
		want    errs.Code
	}{
		"auto goes through the runtime":   {keyed(Auto), instance("json"), nil, 1, ""},
		"unsaid goes through the runtime": {keyed(Unsaid), instance("json"), nil, 1, ""},
		"direct":                          {keyed(Direct), instance("json"), nil, 0, errs.FailedPrecondition},
		"lost":                            {keyed(Auto), instance("json"), []error{lost, nil}, 2, ""},
		"lost, and not to be repeated":    {keyed(Auto), once, []error{lost}, 1, errs.Unavailable},
		"late":                            {keyed(Auto), instance("json"), []error{errs.New(errs.DeadlineExceeded, "x")}, 1, errs.DeadlineExceeded},
		"lost without a key":              {call(Proxy), instance("json"), []error{lost}, 1, errs.Unavailable},
		"the runtime forbids it":          {keyed(Auto), instance("json"), []error{lost.With(resilience.MetaRetry, resilience.Never)}, 1, errs.Unavailable},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := &runtime{answers: c.answers}
			v := invoker(t, r, c.list)
			v.SetTransports(transport.Compile([]transport.Rule{{Mode: "direct", Fallback: "none"}}))
			if err := do(t.Context(), v, c.call); errs.CodeOf(err) != c.want || len(r.calls) != c.proxied {
				t.Errorf("%s: %v, %d calls", name, err, len(r.calls))
			}
		})
	}
	for name, r := range map[string]*runtime{
		"no runtime":       {ended: true},
		"away until later": {down: true, answers: []error{unstarted(errs.DeadlineExceeded)}},
	} {
		c := keyed(Auto)
		c.Policy.MaxAttempts = 1
		err := do(t.Context(), invoker(t, r, instance("json")), c)
		var e *errs.Error
		if !errors.As(err, &e) || e.Code != errs.Unavailable || !e.NotStarted || !strings.Contains(e.Message, "idempotency key") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// What the runtime reports of a call that it lost on the way is no answer of a handler.
func TestLostBehindTheRuntime(t *testing.T) {
	t.Parallel()
	lost := resilience.Unknown(errs.New(errs.Unavailable, "cut"))
	for name, c := range map[string]struct {
		call    *Call
		err     *errs.Error
		calls   int
		answers bool // the failure stays in the reply
	}{
		"with a key":            {keyed(Auto), lost, 3, false},
		"without":               {call(Proxy), lost, 1, false},
		"answered by a handler": {keyed(Auto), errs.New(errs.Unavailable, "later"), 1, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := &runtime{reply: &message.Reply{Err: c.err}}
			v := invoker(t, r, instance("json"))
			reply, err := v.Call(t.Context(), v.Route("svc", "m", message.JSON, match.Wish{}), c.call)
			if len(r.calls) != c.calls || (reply != nil) != c.answers || (err == nil) != c.answers {
				t.Errorf("%s: %v, %v after %d calls", name, reply, err, len(r.calls))
			}
		})
	}
}

func TestInnerAttemptsAreNotRetried(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &runtime{answers: []error{unstarted(errs.Unavailable), nil}}
		c := call(Proxy)
		c.Attempt = 2
		if err := do(t.Context(), invoker(t, r), c); errs.CodeOf(err) != errs.Unavailable || len(r.calls) != 1 || r.calls[0].Attempt != 2 {
			t.Errorf("%v after %+v", err, r.calls)
		}
	})
}

func TestBudgetBoundsRetries(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &runtime{}
		v := invoker(t, r)
		exhausted := 0
		for range 100 {
			r.answers = append(r.answers[:0], unstarted(errs.Unavailable), unstarted(errs.Unavailable))
			c := call(Proxy)
			c.Policy = resilience.Policy{MaxAttempts: 2, Factor: 1}
			if err := do(t.Context(), v, c); errs.From(err).Meta[resilience.MetaRetry] == resilience.BudgetExhausted {
				exhausted++
			}
		}
		if len(r.calls) > 145 || len(r.calls) < 130 || exhausted != 200-len(r.calls) {
			t.Errorf("%d requests of 100 calls, %d without a budget", len(r.calls), exhausted)
		}
	})
}

func TestInstancesThatFailedAreHandedOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		r := &runtime{}
		if err := do(t.Context(), invoker(t, r, instance("json")), call(Auto)); err != nil {
			t.Fatal(err)
		}
		if len(r.calls) != 1 || len(r.calls[0].Avoid) != 1 || r.calls[0].Avoid[0] != "in_a" {
			t.Errorf("the runtime was told to avoid %v", r.calls[0].Avoid)
		}
	})
}
