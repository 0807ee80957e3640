package callmeta_test

import (
	"strings"
	"testing"

	"pgregory.net/rapid"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/door/callmeta"
)

func from(pairs map[string][]string) func(string) []string {
	return func(name string) []string { return pairs[name] }
}

func TestApply(t *testing.T) {
	t.Parallel()
	call := &message.Call{}
	err := callmeta.Apply(call, from(map[string][]string{
		"telford-request-id": {"r"}, "telford-chain-root": {"root"}, "telford-chain": {"a/b,c/d"}, "telford-attempt": {"2"},
		"telford-idempotency-key": {"k"}, "telford-business-key": {"order 1"}, "telford-instance": {"i"}, "telford-realm": {"eu.*"}, "telford-version": {"1.2"},
		"telford-contract": {"pb:1"}, "traceparent": {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}, "tracestate": {"a=1", "b=2"},
	}))
	if err != nil {
		t.Fatal(err)
	}
	if call.RequestID != "r" || call.ChainRoot != "root" || len(call.Chain) != 2 || call.Attempt != 2 || call.IdempotencyKey != "k" || call.BusinessKey != "order 1" ||
		call.Target != (message.Target{Instance: "i", Realm: "eu.*", Version: "1.2", Contract: "pb:1"}) || call.Trace.State != "a=1,b=2" || !call.Trace.Valid() {
		t.Errorf("%+v", call)
	}
	a, b := &message.Call{}, &message.Call{}
	for _, c := range []*message.Call{a, b} {
		if err := callmeta.Apply(c, from(nil)); err != nil {
			t.Fatal(err)
		}
	}
	if a.RequestID == "" || a.RequestID == b.RequestID || a.Trace.Valid() {
		t.Errorf("request ids %q and %q", a.RequestID, b.RequestID)
	}
	if err := callmeta.Apply(a, from(map[string][]string{"traceparent": {"00-garbage"}})); err != nil {
		t.Errorf("a trace context that cannot be read: %v", err)
	}
}

func TestApplyRefuses(t *testing.T) {
	t.Parallel()
	for name, values := range map[string][]string{
		"telford-request-id": {"a", "b"},
		"telford-realm":      {strings.Repeat("x", 513)},
		"telford-version":    {"a\nb"},
		"telford-instance":   {"\xff"},
		"telford-attempt":    {"-1"},
		"telford-chain":      {strings.Repeat("x", 17<<10)},
		"telford-contract":   {"latest"},
	} {
		err := callmeta.Apply(&message.Call{}, from(map[string][]string{name: values}))
		if err == nil || err.Code != errs.InvalidArgument || !err.NotStarted || !strings.Contains(err.Message, name) || len(err.Message) > 400 {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestReserved(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{"authorization": true, "traceparent": true, "telford-anything": true, "x-telford": false, "cookie": false} {
		if got := callmeta.Reserved(name); got != want {
			t.Errorf("%s: %t", name, got)
		}
	}
}

func TestTraceparentRoundTrip(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var in message.Trace
		copy(in.TraceID[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "trace"))
		copy(in.SpanID[:], rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(t, "span"))
		in.Flags = rapid.Byte().Draw(t, "flags")
		out, ok := callmeta.ParseTraceparent(callmeta.FormatTraceparent(&in))
		if ok != in.Valid() || ok && out != in {
			t.Fatalf("%+v became %+v, %t", in, out, ok)
		}
	})
	for _, bad := range []string{
		"", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1", "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01", "00-00000000000000000000000000000000-b7ad6b7169203331-01",
		"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x", "00-0af7651916cd43dd8448eb211c80319g-b7ad6b7169203331-01",
	} {
		if _, ok := callmeta.ParseTraceparent(bad); ok {
			t.Errorf("%q was read", bad)
		}
	}
	if _, ok := callmeta.ParseTraceparent("01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-later"); !ok {
		t.Error("a later version was not read")
	}
}

func FuzzApply(f *testing.F) {
	f.Add("telford-chain", "a,b", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
	f.Add("telford-attempt", "99999999999999999999", "")
	f.Fuzz(func(t *testing.T, name, value, parent string) {
		call := &message.Call{}
		err := callmeta.Apply(call, func(n string) []string {
			switch n {
			case name:
				return []string{value}
			case callmeta.Traceparent:
				return []string{parent}
			}
			return nil
		})
		if err != nil && (err.Code != errs.InvalidArgument || len(err.Message) > 1000) {
			t.Errorf("%#v", err)
		}
		if err == nil && (call.RequestID == "" || call.Attempt < 0) {
			t.Errorf("%+v", call)
		}
	})
}
