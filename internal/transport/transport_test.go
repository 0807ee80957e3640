package transport_test

import (
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/transport"
)

func TestValidate(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		rule transport.Rule
		says string // "": it is fine
	}{
		"default":             {transport.Rule{Mode: "proxy"}, ""},
		"service":             {transport.Rule{Service: "pay", Mode: "direct", Fallback: "proxy"}, ""},
		"method":              {transport.Rule{Service: "pay", Method: "shop.v1.Pay/Charge", Timeout: time.Second}, ""},
		"only a fallback":     {transport.Rule{Service: "pay", Fallback: "none"}, ""},
		"nothing":             {transport.Rule{Service: "pay"}, "says nothing"},
		"method of nobody":    {transport.Rule{Method: "charge", Mode: "proxy"}, "charge"},
		"no service name":     {transport.Rule{Service: "Pay!", Mode: "proxy"}, "Pay!"},
		"no method name":      {transport.Rule{Service: "pay", Method: "a b", Mode: "proxy"}, "a b"},
		"unknown mode":        {transport.Rule{Mode: "fast"}, "fast"},
		"unknown fallback":    {transport.Rule{Mode: "proxy", Fallback: "maybe"}, "maybe"},
		"fallback to itself":  {transport.Rule{Mode: "proxy", Fallback: "proxy"}, "proxy"},
		"negative":            {transport.Rule{Timeout: -time.Second}, "-1s"},
		"too long":            {transport.Rule{Timeout: 48 * time.Hour}, "48h"},
		"shorter than a call": {transport.Rule{Timeout: time.Microsecond}, "1µs"},
	} {
		err := c.rule.Validate()
		switch {
		case c.says == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case c.says != "" && (errs.CodeOf(err) != errs.InvalidArgument || !strings.Contains(err.Error(), c.says)):
			t.Errorf("%s: %v does not say %q", name, err, c.says)
		}
	}
}

func TestTheMostSpecificWinsFieldByField(t *testing.T) {
	t.Parallel()
	table := transport.Compile([]transport.Rule{
		{Mode: "proxy", Fallback: "direct", Timeout: 9 * time.Second},
		{Service: "pay", Mode: "direct", Timeout: 5 * time.Second},
		{Service: "pay", Method: "shop.v1.Pay/Charge", Timeout: time.Second},
		{Service: "pay", Method: "Refund", Mode: "proxy", Fallback: "none"},
		{Service: "pay", Method: "shop.v1.Pay/Refund", Timeout: 2 * time.Second},
		{Service: "mail", Fallback: "none"},
		{Service: "mail", Mode: "teleport"},
	})
	type answer struct {
		mode, fallback string
		timeout        time.Duration
	}
	for name, c := range map[string]struct {
		service, method string
		want            answer
	}{
		"default":           {"other", "x", answer{"proxy", "direct", 9 * time.Second}},
		"service":           {"pay", "x", answer{"direct", "", 5 * time.Second}},
		"method":            {"pay", "shop.v1.Pay/Charge", answer{"direct", "", time.Second}},
		"last segment":      {"pay", "other.v1.Pay/Refund", answer{"proxy", "none", 5 * time.Second}},
		"full name first":   {"pay", "shop.v1.Pay/Refund", answer{"proxy", "none", 2 * time.Second}},
		"unknown word":      {"mail", "x", answer{"proxy", "none", 9 * time.Second}},
		"bare name by bare": {"pay", "Refund", answer{"proxy", "none", 5 * time.Second}},
	} {
		var got answer
		got.mode, got.fallback, got.timeout = table.Lookup(c.service, c.method)
		if got != c.want {
			t.Errorf("%s: %+v, want %+v", name, got, c.want)
		}
	}
	if m, f, d := transport.Compile(nil).Lookup("pay", "x"); m != "" || f != "" || d != 0 {
		t.Errorf("no rules say %q, %q, %v", m, f, d)
	}
}

// Each field comes from the innermost rule that says something about it.
func TestLookupAgainstItsDefinition(t *testing.T) {
	t.Parallel()
	services, methods := []string{"a", "b"}, []string{"x", "p.S/x", "p.S/y"}
	rapid.Check(t, func(t *rapid.T) {
		rules := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) transport.Rule {
			r := transport.Rule{
				Service: rapid.SampledFrom(append([]string{""}, services...)).Draw(t, "service"),
				Mode:    rapid.SampledFrom([]string{"", "auto", "direct", "proxy"}).Draw(t, "mode"),
				Timeout: time.Duration(rapid.IntRange(0, 3).Draw(t, "timeout")) * time.Second,
			}
			if r.Service != "" {
				r.Method = rapid.SampledFrom(append([]string{""}, methods...)).Draw(t, "method")
			}
			return r
		}), 0, 12).Draw(t, "rules")
		service, method := rapid.SampledFrom(services).Draw(t, "of"), rapid.SampledFrom(methods).Draw(t, "called")
		bare := method[strings.LastIndexByte(method, '/')+1:]
		levels := []func(transport.Rule) bool{
			func(r transport.Rule) bool { return r.Service == service && r.Method == method },
			func(r transport.Rule) bool { return r.Service == service && r.Method == bare },
			func(r transport.Rule) bool { return r.Service == service && r.Method == "" },
			func(r transport.Rule) bool { return r.Service == "" },
		}
		var mode string
		var timeout time.Duration
		for _, level := range levels {
			var m string
			var d time.Duration
			for _, r := range rules {
				if level(r) && r.Mode != "" {
					m = r.Mode
				}
				if level(r) && r.Timeout != 0 {
					d = r.Timeout
				}
			}
			if mode == "" {
				mode = m
			}
			if timeout == 0 {
				timeout = d
			}
		}
		gotMode, _, gotTimeout := transport.Compile(rules).Lookup(service, method)
		if gotMode != mode || gotTimeout != timeout {
			t.Fatalf("%s %s: %q %v, want %q %v", service, method, gotMode, gotTimeout, mode, timeout)
		}
	})
}
