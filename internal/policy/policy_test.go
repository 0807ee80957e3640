package policy

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
)

func allow(id, service string, a Action, peer, target string) Rule {
	return Rule{ID: id, Service: service, Action: a, Effect: Allow, Peer: peer, Target: target}
}

func deny(id, service string, a Action, peer, target string) Rule {
	return Rule{ID: id, Service: service, Action: a, Effect: Deny, Peer: peer, Target: target}
}

func shadow(r Rule) Rule {
	r.Shadow = true
	return r
}

func compile(rules ...Rule) *Index { return Compile(&Set{Rules: rules}) }

const charge = "shop.v1.Payments/Charge"

func TestCalls(t *testing.T) {
	t.Parallel()
	for what, test := range map[string]struct {
		set     Set
		allowed bool
		shadow  bool
		rule    string
		side    string
		by      Pair
		nearest string
	}{
		"no rules": {allowed: true},
		"rules of others": {set: Set{Rules: []Rule{
			allow("r1", "audit", Call, "", ""), allow("r2", "audit", Handle, "x", ""),
		}}, allowed: true},
		"both sides allow": {set: Set{Rules: []Rule{
			allow("r1", "orders", Call, "pay*", "Charge"), allow("r2", "payments", Handle, "orders", "shop.v1.*"),
		}}, allowed: true},
		"only the caller's side allows": {set: Set{Rules: []Rule{
			allow("r1", "orders", Call, "payments", ""), allow("r2", "payments", Handle, "audit", ""),
		}}, rule: ByAllowList, side: SidePeerAcceptance, by: Pair{"payments", Handle}, nearest: "telford policy allow payments rpc.handle --peer orders --target " + charge},
		"only the callee's side allows": {set: Set{Rules: []Rule{
			allow("r1", "orders", Call, "audit", ""), allow("r2", "payments", Handle, "orders", ""),
		}}, rule: ByAllowList, side: SideSelfEgress, by: Pair{"orders", Call}, nearest: "telford policy allow orders rpc.call --peer payments --target " + charge},
		"the nearest of several": {set: Set{Rules: []Rule{
			allow("r1", "orders", Call, "payments", "Refund"), allow("r2", "orders", Call, "payments", "Chargeback"), allow("r3", "orders", Call, "audit", "Charge"),
		}}, rule: ByAllowList, side: SideSelfEgress, by: Pair{"orders", Call}, nearest: "r2"},
		"the nearest is only counted": {set: Set{Rules: []Rule{
			allow("r1", "orders", Call, "payments", "Refund"), shadow(allow("r2", "orders", Call, "payments", "")),
		}}, rule: ByAllowList, side: SideSelfEgress, by: Pair{"orders", Call}, nearest: "r2"},
		"denied whatever allows": {set: Set{Rules: []Rule{
			allow("r1", "orders", Call, "", ""), deny("r2", "orders", Call, "payments", "Charge"),
		}}, rule: "r2", side: SideSelfEgress, by: Pair{"orders", Call}, nearest: "telford policy rm r2"},
		"a rule to deny makes no allow-list": {set: Set{Rules: []Rule{deny("r1", "orders", Call, "payments", "Refund")}}, allowed: true},
		"the callee is off": {
			set:  Set{Off: []Pair{{"payments", Handle}}, Rules: []Rule{allow("r1", "payments", Handle, "", "")}},
			rule: ByCapability, side: SideCapability, by: Pair{"payments", Handle}, nearest: "telford policy capability payments rpc.handle on",
		},
		"a shadow rule to deny": {
			set:     Set{Rules: []Rule{shadow(deny("r1", "payments", Handle, "orders", ""))}},
			allowed: true, shadow: true, rule: "r1", side: SidePeerAcceptance, by: Pair{"payments", Handle}, nearest: "telford policy rm r1",
		},
		"a shadow rule to allow others": {
			set:     Set{Rules: []Rule{shadow(allow("r1", "payments", Handle, "audit", ""))}},
			allowed: true, shadow: true, rule: ByAllowList, side: SidePeerAcceptance, by: Pair{"payments", Handle},
			nearest: "telford policy allow payments rpc.handle --peer orders --target " + charge,
		},
		"a shadow rule to allow": {set: Set{Rules: []Rule{shadow(allow("r1", "payments", Handle, "orders", ""))}}, allowed: true},
		"an allow-list elsewhere": {
			set:  Set{Restricted: []Pair{{"orders", Call}}},
			rule: ByAllowList, side: SideSelfEgress, by: Pair{"orders", Call}, nearest: "telford policy allow orders rpc.call --peer payments --target " + charge,
		},
	} {
		x := Compile(&test.set)
		d := x.Call("orders", "payments", charge)
		by := d.By
		if d.ShadowDenied {
			by = d.ShadowBy
		}
		if d.Allowed != test.allowed || d.ShadowDenied != test.shadow || d.Rule != test.rule || d.Side != test.side || by != test.by || d.Nearest != test.nearest {
			t.Errorf("%s: %+v", what, d)
		}
		if x.MayCall("orders", "payments", charge) != d.Allowed || x.Permits("orders", "payments", charge) != d.Allowed || !x.MayCall(Operator, "payments", charge) {
			t.Errorf("%s: MayCall says otherwise", what)
		}
		err := d.Err("orders", "payments", charge)
		if (err == nil) != test.allowed {
			t.Errorf("%s: error %v", what, err)
		}
		if err == nil {
			continue
		}
		want := map[string]string{"rule": test.rule, "side": test.side, "caller": "orders", "service": "payments", "method": charge, "nearest": test.nearest}
		if diff := cmp.Diff(want, err.Meta); diff != "" || err.Code != errs.PermissionDenied || !err.NotStarted {
			t.Errorf("%s: %+v %s", what, err, diff)
		}
		for _, word := range []string{"orders", "payments", charge, test.nearest} {
			if !strings.Contains(err.Message, word) {
				t.Errorf("%s: %q does not say %q", what, err.Message, word)
			}
		}
	}
}

func TestEventsAndWorkflows(t *testing.T) {
	t.Parallel()
	x := compile(
		allow("r1", "orders", Publish, "", "orders.*"), deny("r2", "orders", Publish, "", "orders.secret"),
		allow("r3", "mail", HandleEvent, "", "orders.*"), deny("r4", "log", HandleEvent, "", "orders.secret"),
		allow("r5", "orders", RunWorkflow, "billing", "invoice-*"), deny("r6", "billing", HandleWorkflow, "orders", "invoice-all"),
	)
	for what, test := range map[string]struct {
		got  Decision
		want bool
		side string
	}{
		"publish":                    {x.Publish("orders", "orders.created"), true, ""},
		"publish what is denied":     {x.Publish("orders", "orders.secret"), false, SideSelfEgress},
		"publish beyond":             {x.Publish("orders", "payments.created"), false, SideSelfEgress},
		"publish of others":          {x.Publish("audit", "x"), true, ""},
		"subscribe within":           {x.Subscribe("mail", "orders.created"), true, ""},
		"subscribe to all of it":     {x.Subscribe("mail", "orders.*"), true, ""},
		"subscribe deeper":           {x.Subscribe("mail", "orders.a.b"), false, SideSelfAcceptance},
		"subscribe wider":            {x.Subscribe("mail", "orders.#"), false, SideSelfAcceptance},
		"subscribe around":           {x.Subscribe("log", "orders.*"), false, SideSelfAcceptance},
		"subscribe beside":           {x.Subscribe("log", "orders.created"), true, ""},
		"run":                        {x.Run("orders", "billing", "invoice-one"), true, ""},
		"run what the owner refuses": {x.Run("orders", "billing", "invoice-all"), false, SidePeerAcceptance},
		"run beyond":                 {x.Run("orders", "billing", "dunning"), false, SideSelfEgress},
	} {
		if test.got.Allowed != test.want || test.got.Side != test.side || (test.got.Reason == "") != test.want {
			t.Errorf("%s: %+v", what, test.got)
		}
	}
	if d := (*Index)(nil).Publish("a", "b"); !d.Allowed {
		t.Errorf("no policy: %+v", d)
	}
}

func TestVisibility(t *testing.T) {
	t.Parallel()
	topics := []string{"orders.created", "orders.secret", "payments.created", "users.created.twice"}
	for what, test := range map[string]struct {
		x       *Index
		pattern string
		want    []string
	}{
		"no policy":          {nil, "*.created", []string{"orders.created", "payments.created"}},
		"by what it handles": {compile(allow("r", "s", HandleEvent, "", "orders.*")), "*.created", []string{"orders.created"}},
		"by what it publishes": {
			compile(allow("r", "s", Publish, "", "orders.*")), "*.created", []string{"orders.created"},
		},
		"nothing in common": {compile(allow("r", "s", Publish, "", "orders.*")), "payments.*", nil},
		"denied":            {compile(deny("r", "s", HandleEvent, "", "*.secret")), "orders.*", []string{"orders.created"}},
		"only counted":      {compile(shadow(deny("r", "s", HandleEvent, "", "*.secret"))), "orders.*", []string{"orders.created", "orders.secret"}},
		"off":               {Compile(&Set{Off: []Pair{{"s", HandleEvent}}}), "#", nil},
	} {
		if diff := cmp.Diff(test.want, test.x.Visible("s", test.pattern, topics...)); diff != "" {
			t.Errorf("%s: %s", what, diff)
		}
	}
}

// world draws policies over few names, so that rules meet.
func world(withShadow bool) *rapid.Generator[Set] {
	services := rapid.SampledFrom([]string{"a", "b", "ab", "c"})
	bilateral := rapid.SampledFrom([]Action{Call, Handle, RunWorkflow, HandleWorkflow})
	return rapid.Custom(func(t *rapid.T) Set {
		var s Set
		for i := range rapid.IntRange(0, 8).Draw(t, "rules") {
			r := Rule{
				ID: fmt.Sprintf("r%d", i), Service: services.Draw(t, "service"), Action: bilateral.Draw(t, "action"),
				Effect: rapid.SampledFrom([]Effect{Allow, Allow, Deny}).Draw(t, "effect"),
				Peer:   rapid.SampledFrom([]string{"", "a", "a*", "b", "*b", "c"}).Draw(t, "peer"),
				Target: rapid.SampledFrom([]string{"", "m", "x/*", "*m", "n*"}).Draw(t, "target"),
			}
			r.Shadow = withShadow && rapid.Bool().Draw(t, "shadow")
			s.Rules = append(s.Rules, r)
		}
		for range rapid.IntRange(0, 1).Draw(t, "off") {
			s.Off = append(s.Off, Pair{services.Draw(t, "service"), bilateral.Draw(t, "action")})
		}
		return s
	})
}

type ask struct{ caller, callee, method string }

func everyCall() []ask {
	var out []ask
	for _, caller := range []string{"a", "b", "ab", "c", "nobody"} {
		for _, callee := range []string{"a", "b", "ab", "c", "nobody"} {
			for _, method := range []string{"m", "x/m", "x/n", "no"} {
				out = append(out, ask{caller, callee, method})
			}
		}
	}
	return out
}

// What a service decides by its share is what the whole decides.
func TestSharesDecideAsTheWhole(t *testing.T) {
	t.Parallel()
	calls := everyCall()
	rapid.Check(t, func(t *rapid.T) {
		set := world(true).Draw(t, "set")
		whole := Compile(&set)
		for _, service := range []string{"a", "b", "ab", "c", "nobody"} {
			share := set.For(service)
			again := share.For(service)
			if diff := cmp.Diff(share, again); diff != "" {
				t.Fatalf("the share of %s has itself a share: %s", service, diff)
			}
			x := Compile(&share)
			for _, c := range calls {
				if c.caller != service && c.callee != service {
					continue
				}
				if diff := cmp.Diff(whole.Call(c.caller, c.callee, c.method), x.Call(c.caller, c.callee, c.method)); diff != "" {
					t.Fatalf("%+v by the share of %s: %s", c, service, diff)
				}
				if diff := cmp.Diff(whole.Run(c.caller, c.callee, c.method), x.Run(c.caller, c.callee, c.method)); diff != "" {
					t.Fatalf("run %+v by the share of %s: %s", c, service, diff)
				}
			}
		}
	})
}

func TestSharesLeaveOutWhatDoesNotConcern(t *testing.T) {
	t.Parallel()
	set := Set{
		Rules: []Rule{
			allow("r1", "orders", Call, "payments", ""), allow("r2", "orders", Call, "audit", ""),
			allow("r3", "users", Call, "audit", ""), shadow(allow("r4", "mail", Call, "audit", "")),
			allow("r5", "orders", Publish, "", "#"), deny("r6", "users", Call, "audit", ""),
		},
		Off: []Pair{{"orders", Publish}, {"users", Handle}},
	}
	want := Set{
		Rules: []Rule{set.Rules[0]}, Off: []Pair{{"users", Handle}},
		Restricted: []Pair{{"users", Call}}, Shadowed: []Pair{{"mail", Call}},
	}
	if diff := cmp.Diff(want, set.For("payments")); diff != "" {
		t.Error(diff)
	}
	want = Set{Rules: []Rule{set.Rules[0], set.Rules[1], set.Rules[4]}, Off: set.Off, Restricted: []Pair{{"users", Call}}, Shadowed: []Pair{{"mail", Call}}}
	if diff := cmp.Diff(want, set.For("orders")); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Set{}, (*Set)(nil).For("orders")); diff != "" {
		t.Error(diff)
	}
}

// What shadow rules are reported to deny is what they deny once they are enforced.
func TestShadowReportsAreWhatEnforcingDoes(t *testing.T) {
	t.Parallel()
	calls := everyCall()
	rapid.Check(t, func(t *rapid.T) {
		set := world(true).Draw(t, "set")
		enforced, before := set, Set{Off: set.Off}
		enforced.Rules = nil
		for _, r := range set.Rules {
			if !r.Shadow {
				before.Rules = append(before.Rules, r)
			}
			r.Shadow = false
			enforced.Rules = append(enforced.Rules, r)
		}
		x, then, without := Compile(&set), Compile(&enforced), Compile(&before)
		for _, c := range calls {
			now, later := x.Call(c.caller, c.callee, c.method), then.Call(c.caller, c.callee, c.method)
			if now.Allowed != without.Call(c.caller, c.callee, c.method).Allowed {
				t.Fatalf("%+v: a rule that is only counted changed %+v", c, now)
			}
			if now.Allowed && now.ShadowDenied == later.Allowed {
				t.Fatalf("%+v: now %+v, enforced %+v", c, now, later)
			}
			if now.ShadowDenied && (now.Rule != later.Rule || now.ShadowBy != later.By && now.ShadowBy.Service == later.By.Service) {
				t.Fatalf("%+v: now %+v, enforced %+v", c, now, later)
			}
		}
	})
}

func TestOpenUntilTheFirstRuleToAllow(t *testing.T) {
	t.Parallel()
	for _, side := range []Action{Call, Handle} {
		service, peer := "orders", "payments"
		if side == Handle {
			service, peer = peer, service
		}
		rules := []Rule{deny("r1", service, side, "audit", ""), shadow(allow("r2", service, side, "audit", ""))}
		if !compile(rules...).MayCall("orders", "payments", "m") {
			t.Errorf("%s: closed before there is a rule to allow", side)
		}
		rules = append(rules, allow("r3", service, side, "audit", ""))
		if compile(rules...).MayCall("orders", "payments", "m") {
			t.Errorf("%s: open beside a rule to allow another", side)
		}
		rules = append(rules, allow("r4", service, side, peer, ""))
		if !compile(rules...).MayCall("orders", "payments", "m") {
			t.Errorf("%s: closed although a rule allows it", side)
		}
	}
}

func TestMayCallKeepsBoundedAndRight(t *testing.T) {
	t.Parallel()
	x := compile(allow("r", "payments", Handle, "caller-1*", "m*"))
	for range 3 {
		for i := range 5000 {
			caller, method := fmt.Sprintf("caller-%d", i%50), fmt.Sprintf("m%d", i)
			want := caller[len("caller-")] == '1'
			if got := x.MayCall(caller, "payments", method); got != want {
				t.Fatalf("%s %s: %v", caller, method, got)
			}
		}
	}
	long := strings.Repeat("x", 10*maxKept)
	if x.MayCall(long, "payments", "m") {
		t.Error("a long name is let pass")
	}
	for i := range x.cache {
		if k := x.cache[i].Load(); k != nil && k.caller == long {
			t.Error("a long name is kept")
		}
	}
}

func TestMayCallTakesNoMemory(t *testing.T) {
	x := compile(allow("r", "payments", Handle, "orders", ""))
	if n := testing.AllocsPerRun(100, func() { x.MayCall("orders", "payments", "m") }); n != 0 {
		t.Errorf("%v allocations for what was asked before", n)
	}
}

func TestWarnings(t *testing.T) {
	t.Parallel()
	x := Compile(&Set{
		Rules: []Rule{
			allow("r1", "orders", Call, "payments", "shop.v1.Payments/Charge"), allow("r2", "orders", Call, "users", "*"),
			allow("r3", "users", Handle, "mail", ""), deny("r4", "billing", HandleWorkflow, "orders", "dunning"),
			allow("r5", "orders", Publish, "", "orders.#"),
		},
		Off: []Pair{{"orders", Handle}, {"audit", Handle}},
	})
	d := &catalog.Declaration{
		Service: "orders", Capabilities: []string{"rpc.handle", "job.handle", "something"},
		Methods: []catalog.Method{{Name: "place"}},
		Dependencies: []catalog.Dependency{
			{Kind: "rpc", Target: "payments", Names: []string{"Charge", "shop.v1.Payments/Charge", "Refund"}},
			{Kind: "rpc", Target: "payments"},
			{Kind: "rpc", Target: "mail"},
			{Kind: "rpc", Target: "users", Names: []string{"get"}},
			{Kind: "workflow", Target: "billing", Names: []string{"invoice", "dunning"}},
			{Kind: "event", Target: "orders.created"},
			{Kind: "event", Target: "payments.created"},
		},
	}
	var got []string
	for _, w := range x.Warnings(d) {
		got = append(got, w.Declaration+" "+w.Value+" "+w.Side)
		if w.Reason == "" {
			t.Errorf("%+v says no reason", w)
		}
	}
	want := []string{
		"capabilities rpc.handle capability",
		"rpc.handle place capability",
		"rpc.call payments/Refund self_egress",
		"rpc.call mail self_egress",
		"rpc.call users/get peer_acceptance",
		"workflow.run billing/dunning peer_acceptance",
		"event.publish payments.created self_egress",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if x.Warnings(nil) != nil || (*Index)(nil).Warnings(d) != nil {
		t.Error("warnings of nothing")
	}
	d.Methods = make([]catalog.Method, 1000)
	if w := x.Warnings(d); len(w) != maxWarnings+1 || !strings.Contains(w[maxWarnings].Reason, "750 more") {
		t.Errorf("%d warnings, the last %+v", len(w), w[len(w)-1])
	}
}

func TestValidate(t *testing.T) {
	t.Parallel()
	for what, test := range map[string]struct {
		rule Rule
		says string // empty: it is fine
	}{
		"exact":             {allow("", "orders", Call, "payments", charge), ""},
		"globs":             {deny("", "orders", Handle, "*-api", "shop.v?"[:6]+"*"), ""},
		"any":               {allow("", "orders", RunWorkflow, "", ""), ""},
		"topics":            {allow("", "orders", Publish, "", "orders.#.done.*"), ""},
		"service pattern":   {allow("", "ord*", Call, "", ""), `"ord*"`},
		"no service":        {allow("", "", Call, "", ""), `""`},
		"action":            {allow("", "orders", "rpc.dial", "", ""), "rpc.dial"},
		"jobs":              {allow("", "orders", HandleJob, "", ""), "telford policy capability orders job.handle off"},
		"effect":            {Rule{Service: "orders", Action: Call, Effect: "maybe"}, "maybe"},
		"peer of events":    {allow("", "orders", Publish, "mail", ""), "mail"},
		"topic":             {allow("", "orders", HandleEvent, "", "Orders"), "Orders"},
		"empty word":        {allow("", "orders", HandleEvent, "", "a..b"), "a..b"},
		"half a wildcard":   {allow("", "orders", HandleEvent, "", "a.b*"), "b*"},
		"long topic":        {allow("", "orders", HandleEvent, "", strings.Repeat("a", MaxTarget+1)), "256"},
		"peer":              {allow("", "orders", Call, "Pay ments", ""), "Pay ments"},
		"long peer":         {allow("", "orders", Call, strings.Repeat("*", MaxPeer+1), ""), "128"},
		"target":            {allow("", "orders", Call, "", "/x"), "/x"},
		"not even a text":   {allow("", "orders", Call, "", "\xff\n"), "\uFFFD"},
		"long, and strange": {allow("", strings.Repeat("é", 500), Call, "", ""), "…"},
	} {
		err := test.rule.Validate()
		if (err == nil) != (test.says == "") || err != nil && (!strings.Contains(err.Error(), test.says) || errs.CodeOf(err) != errs.InvalidArgument) {
			t.Errorf("%s: %v", what, err)
		}
	}
	if CheckTopic("orders.created") != nil || CheckTopic("orders.*") == nil {
		t.Error("a topic has no wildcards")
	}
}

func TestAllowedCallers(t *testing.T) {
	t.Parallel()
	if !CheckCaller(nil, "a") || !CheckCaller([]string{"b", "a"}, "a") || CheckCaller([]string{"b"}, "a") || CheckCaller([]string{"b"}, "") {
		t.Error("CheckCaller is wrong")
	}
	d := NotAmongCallers([]string{"b", "c"}, "a", "s", "m")
	if e := d.Err("a", "s", "m"); e.Meta["rule"] != ByAllowedCallers || !strings.Contains(e.Message, "b, c") {
		t.Errorf("%+v", e)
	}
}

func TestCommands(t *testing.T) {
	t.Parallel()
	r := shadow(deny("r", "orders", Call, "pay*", "a'b"))
	if got, want := Command(r), `telford policy deny orders rpc.call --peer 'pay*' --target 'a'\''b' --shadow`; got != want {
		t.Errorf("got %s", got)
	}
}

func BenchmarkMayCall(b *testing.B) {
	x := compile(allow("r1", "orders", Call, "pay*", ""), allow("r2", "payments", Handle, "orders", "shop.v1.*"))
	b.ReportAllocs()
	for b.Loop() {
		if !x.MayCall("orders", "payments", charge) {
			b.Fatal("denied")
		}
	}
}
