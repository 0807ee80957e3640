package router_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/router"
)

func TestTargetsNarrow(t *testing.T) {
	t.Parallel()
	all := []*catalog.Instance{
		instance("a1", version("1.0.0"), realm("eu.west")),
		instance("a2", version("1.0.0"), realm("us.east"), status(catalog.Warning)),
		instance("b1", version("1.1.0", "1.0.0", "0.9.0"), realm("eu.north")),
		instance("b2", version("1.1.0", "0.9.0"), realm("")),
		instance("down", version("3.0.0"), status(catalog.Error)),
		instance("offline", version("3.0.0"), status(catalog.Offline)),
		instance("draining", version("2.0.0"), draining),
		instance("compatible", version("2.1.0", "2.0.0")),
	}
	b := setup(t, all...)
	for name, c := range map[string]struct {
		target message.Target
		want   []string
	}{
		"nothing":            {message.Target{}, []string{"a1", "a2", "b1", "b2", "compatible"}},
		"exact version":      {message.Target{Version: "1.0.0"}, []string{"a1", "a2"}},
		"compatible version": {message.Target{Version: "0.9.0"}, []string{"b1", "b2"}},
		"exact one drains":   {message.Target{Version: "2.0.0"}, []string{"compatible"}},
		"exact realm":        {message.Target{Realm: "us.east"}, []string{"a2"}},
		"realm pattern":      {message.Target{Realm: "eu.*"}, []string{"a1", "b1"}},
		"default realm":      {message.Target{Realm: "global"}, []string{"b2", "compatible"}},
		"instance":           {message.Target{Instance: "b1"}, []string{"b1"}},
		"realm and version":  {message.Target{Realm: "eu.*", Version: "1.0.0"}, []string{"a1"}},
		"version over realm": {message.Target{Realm: "eu.north", Version: "1.0.0"}, []string{"b1"}},
		"unknown contract":   {message.Target{Contract: "pb:1"}, []string{"a1", "a2", "b1", "b2", "compatible"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			only(t, b.picks(t, 100, target(c.target)), c.want...)
		})
	}
}

func TestContractsNeverMix(t *testing.T) {
	t.Parallel()
	b := setup(
		t,
		instance("old", version("1.9.0"), contract("pb:old")),
		instance("new1", version("1.10.0"), contract("pb:new")),
		instance("new2", version("1.9.1"), contract("pb:new")),
	)
	only(t, b.picks(t, 50), "new1", "new2")
	only(t, b.picks(t, 50, target(message.Target{Contract: "js:other"})), "new1", "new2")
	only(t, b.picks(t, 50, target(message.Target{Contract: "pb:old"})), "old")
}

func TestZonesSeeTheirOwn(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("ours", zone("here")), instance("theirs", zone("there")), instance("any"))
	only(t, b.picks(t, 50), "ours", "any")
	only(t, b.picks(t, 50, func(r *router.Request) { r.Zone = "there" }), "theirs", "any")
	alone := setup(t, instance("theirs", zone("there")))
	_, err := alone.Call(t.Context(), request())
	want(t, err, errs.ServiceNotFound, `"payments"`)
}

func TestLocalInstancesFirst(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("near", locality("rack-1")), instance("far", locality("rack-2")), instance("caller", locality("rack-2")))
	only(t, b.picks(t, 50), "near")
	only(t, b.picks(t, 50, func(r *router.Request) { r.Locality = "rack-2" }), "far", "caller")
	// The locality that the caller's instance declared.
	only(t, b.picks(t, 50, func(r *router.Request) { r.Caller = message.Caller{Service: "payments", Instance: "caller"} }), "far", "caller")
	// Nobody local can take it: it spills over.
	b.links["near"].call = refusing(errs.ResourceExhausted)
	only(t, b.picks(t, 50), "far", "caller")
	if n := len(b.links["near"].got()); n != 100 {
		t.Errorf("the local instance was asked %d times of 100", n)
	}
}

func TestAvoidedInstancesComeLast(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("one"), instance("two"))
	avoid := func(ids ...string) func(*router.Request) { return func(r *router.Request) { r.Avoid = ids } }
	only(t, b.picks(t, 50, avoid("one", "unknown")), "two")
	only(t, b.picks(t, 50, avoid("one", "two")), "one", "two")
}

func TestBareNames(t *testing.T) {
	t.Parallel()
	in := instance("one", methods(unary("shop.v1.Payments/Charge"), unary("shop.v1.Payments/Refund"), unary("shop.v2.Payments/Refund"), unary("ping")))
	b := setup(t, in)
	for bare, full := range map[string]string{"Charge": "shop.v1.Payments/Charge", "ping": "ping", "shop.v2.Payments/Refund": "shop.v2.Payments/Refund"} {
		if _, err := b.Call(t.Context(), request(calling("payments", bare))); err != nil {
			t.Fatal(err)
		}
		calls := b.links["one"].got()
		if got := calls[len(calls)-1].Method; got != full {
			t.Errorf("%s was called as %s, want %s", bare, got, full)
		}
		m, err := b.ResolveMethod("", "payments", bare)
		if err != nil || m.Name != full {
			t.Errorf("%s resolves to %s, %v; want %s", bare, m.Name, err, full)
		}
	}
	_, err := b.Call(t.Context(), request(calling("payments", "Refund")))
	e := want(t, err, errs.InvalidArgument, "shop.v1.Payments/Refund, shop.v2.Payments/Refund", "2 methods")
	_, err = b.ResolveMethod("", "payments", "Refund")
	if d := cmp.Diff(e.Message, want(t, err, errs.InvalidArgument).Message); d != "" {
		t.Error(d)
	}
}

func TestServiceFromTheMethod(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("one", methods(unary("shop.v1.Payments/Charge"), unary("shop.v1.Ledger/Post"))))
	b.index.set("default", "books", instance("two", methods(unary("shop.v1.Ledger/Post"))))
	if _, err := b.Call(t.Context(), request(calling("", "shop.v1.Payments/Charge"))); err != nil {
		t.Fatal(err)
	}
	if got := b.links["one"].got()[0].Service; got != "payments" {
		t.Errorf("called service %q", got)
	}
	if m, err := b.ResolveMethod("", "", "shop.v1.Payments/Charge"); err != nil || m.Name != "shop.v1.Payments/Charge" {
		t.Errorf("resolved %q, %v", m.Name, err)
	}
	for method, w := range map[string]struct {
		code errs.Code
		says []string
	}{
		"shop.v1.Ledger/Post": {errs.InvalidArgument, []string{"books, payments", "shop.v1.Ledger"}},
		"shop.v1.Nope/Post":   {errs.ServiceNotFound, []string{"shop.v1.Nope"}},
		"charge":              {errs.InvalidArgument, []string{`"charge"`, "names no service"}},
		"/charge":             {errs.InvalidArgument, []string{"names no service"}},
	} {
		_, err := b.Call(t.Context(), request(calling("", method)))
		if e := want(t, err, w.code, w.says...); !e.NotStarted {
			t.Errorf("%s: no proof that nothing started", method)
		}
	}
}

// TestRefusals has one row for each way in which no instance is found.
func TestRefusals(t *testing.T) {
	t.Parallel()
	mixed := []*catalog.Instance{instance("a", draining), instance("b", status(catalog.Suspended)), instance("c", status(catalog.Suspended))}
	for name, c := range map[string]struct {
		instances []*catalog.Instance
		detached  bool
		stream    bool
		change    func(*router.Request)
		code      errs.Code
		why       string
		says      []string
	}{
		"no method": {instances: []*catalog.Instance{instance("a")}, change: calling("payments", ""), code: errs.InvalidArgument, says: []string{"names no method"}},
		"unknown service": {
			instances: []*catalog.Instance{instance("a")}, change: calling("paymets", "charge"),
			code: errs.ServiceNotFound, says: []string{`"paymets"`, "did you mean payments?", `"default"`},
		},
		"unknown service, nothing near": {
			instances: []*catalog.Instance{instance("a")}, change: calling("mail", "send"),
			code: errs.ServiceNotFound, says: []string{`"mail"`, "registered there are payments"},
		},
		"no service at all": {change: calling("mail", "send"), code: errs.ServiceNotFound, says: []string{"no service is registered there"}},
		"other namespace": {
			instances: []*catalog.Instance{instance("a")}, change: func(r *router.Request) { r.Namespace = "acme" },
			code: errs.ServiceNotFound, says: []string{`"acme"`},
		},
		"unknown method": {
			instances: []*catalog.Instance{instance("a")}, change: calling("payments", "chrage"),
			code: errs.MethodNotFound, says: []string{`"chrage"`, "did you mean charge?"},
		},
		"unknown method, nothing near": {
			instances: []*catalog.Instance{instance("a")}, change: calling("payments", "shop.v1.Payments/Void"),
			code: errs.MethodNotFound, says: []string{"shop.v1.Payments/Void", "it has charge, watch"},
		},
		"no methods": {
			instances: []*catalog.Instance{instance("a", methods())}, code: errs.MethodNotFound, says: []string{"declares no methods"},
		},
		"unary call of a stream": {
			instances: []*catalog.Instance{instance("a")}, change: calling("payments", "watch"),
			code: errs.FailedPrecondition, says: []string{`"watch"`, "call it as a stream"},
		},
		"stream of a unary method": {
			instances: []*catalog.Instance{instance("a")}, stream: true,
			code: errs.FailedPrecondition, says: []string{`"charge"`, "as a unary call"},
		},
		"all offline": {
			instances: []*catalog.Instance{instance("a", status(catalog.Offline))},
			code:      errs.NoInstance, why: "unregistered", says: []string{"no instance registered"},
		},
		"none reachable": {
			instances: []*catalog.Instance{instance("a"), instance("b")}, detached: true,
			code: errs.NoInstance, why: "unreachable", says: []string{"2 registered without a live session"},
		},
		"all draining": {
			instances: []*catalog.Instance{instance("a", draining), instance("b", draining)},
			code:      errs.NoInstance, why: "draining", says: []string{"2 draining"},
		},
		"all in error": {
			instances: []*catalog.Instance{instance("a", status(catalog.Error)), instance("b", status(catalog.Suspended))},
			code:      errs.NoInstance, why: "status", says: []string{"1 with status ERROR", "1 with status SUSPENDED"},
		},
		"several reasons": {
			instances: mixed, code: errs.NoInstance, why: "draining", says: []string{"2 with status SUSPENDED, 1 draining"},
		},
		"no such version": {
			instances: []*catalog.Instance{instance("a", version("1.0.0")), instance("b", version("1.1.0", "1.0.0")), instance("c")},
			change:    target(message.Target{Version: "2.0.0"}),
			code:      errs.NoInstance, why: "version", says: []string{`"2.0.0"`, "(none), 1.0.0, 1.1.0", "3 instances"},
		},
		"no such realm": {
			instances: []*catalog.Instance{instance("a", realm("us"))}, change: target(message.Target{Realm: "eu*"}),
			code: errs.NoInstance, why: "realm", says: []string{`"eu*"`, "they are in us", "1 instance "},
		},
		"no such instance": {
			instances: []*catalog.Instance{instance("a")}, change: target(message.Target{Instance: "in_gone"}),
			code: errs.NoInstance, why: "instance", says: []string{`"in_gone"`},
		},
		"the instance drains": {
			instances: []*catalog.Instance{instance("a"), instance("b", draining)}, change: target(message.Target{Instance: "b"}),
			code: errs.NoInstance, why: "draining", says: []string{"1 draining"},
		},
		"method only in another version": {
			instances: []*catalog.Instance{instance("a", version("1")), instance("b", version("2"), methods(unary("other")))},
			change:    target(message.Target{Version: "2"}),
			code:      errs.NoInstance, why: "version", says: []string{`with method "charge"`, "they have 1"},
		},
		"long names": {
			instances: []*catalog.Instance{instance("a")}, change: calling(strings.Repeat("x", 4000), strings.Repeat("y", 4000)),
			code: errs.ServiceNotFound, says: []string{strings.Repeat("x", 128) + "..."},
		},
		"payload": {
			instances: []*catalog.Instance{instance("a")}, change: func(r *router.Request) { r.Call.Body = make([]byte, 17<<20) },
			code: errs.ResourceExhausted, says: []string{"17825792", "16777216"},
		},
		"headers": {
			instances: []*catalog.Instance{instance("a")},
			change: func(r *router.Request) {
				r.Call.Headers = []message.Pair{{Key: "k", Value: make([]byte, 9000)}, {Key: "k", Value: make([]byte, 9000)}}
			},
			code: errs.ResourceExhausted, says: []string{"18002", "16384"},
		},
		"depth": {
			instances: []*catalog.Instance{instance("a")}, change: func(r *router.Request) { r.Call.Chain = make([]string, message.MaxDepth) },
			code: errs.DepthExceeded, says: []string{"100"},
		},
		"body that does not fit": {
			instances: []*catalog.Instance{instance("a")},
			change:    func(r *router.Request) { r.Call.ContentType = message.Proto },
			code:      errs.InvalidArgument, says: []string{"registered no descriptors"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, c.instances...)
			if c.detached {
				for _, in := range c.instances {
					b.attach(in.ID)()
				}
			}
			req := request()
			if c.change != nil {
				c.change(req)
			}
			var err error
			if c.stream {
				_, err = b.Stream(t.Context(), req)
			} else {
				_, err = b.Call(t.Context(), req)
			}
			e := want(t, err, c.code, c.says...)
			if !e.NotStarted || e.Operation == "" || e.Component == "" {
				t.Errorf("not started %v, operation %q, component %q", e.NotStarted, e.Operation, e.Component)
			}
			if e.Meta["why"] != c.why {
				t.Errorf("why is %q, want %q", e.Meta["why"], c.why)
			}
			if e.Retryable != (c.code == errs.NoInstance) {
				t.Errorf("%s retryable: %v", c.code, e.Retryable)
			}
			if len(e.Error()) > 2000 {
				t.Errorf("the message has %d bytes", len(e.Error()))
			}
			for _, l := range b.links {
				if n := len(l.got()); n != 0 {
					t.Errorf("instance %s got %d calls", l.id, n)
				}
			}
		})
	}
}

func TestServiceThatWentIsNotUnknown(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("a"))
	b.picks(t, 1)
	b.index.set("default", "payments")
	_, err := b.Call(t.Context(), request())
	e := want(t, err, errs.NoInstance, "it had before")
	if e.Meta["why"] != "unregistered" {
		t.Errorf("why is %q", e.Meta["why"])
	}
	_, err = b.ResolveMethod("", "payments", "charge")
	want(t, err, errs.NoInstance)
}

type rememberingIndex struct{ fakeIndex }

func (*rememberingIndex) Known(namespace, service string) bool {
	return namespace == "default" && service == "away"
}

func TestIndexRemembersServices(t *testing.T) {
	t.Parallel()
	r := router.New(router.Config{Index: new(rememberingIndex)})
	_, err := r.Call(t.Context(), request(calling("away", "m")))
	want(t, err, errs.NoInstance)
	_, err = r.Call(t.Context(), request(calling("never", "m")))
	want(t, err, errs.ServiceNotFound)
}

func TestResolveMethodTakesTheNewest(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("a", version("1.9"), contract("old")), instance("b", version("1.10"), contract("new")))
	m, err := b.ResolveMethod("default", "payments", "charge")
	if err != nil || m.Contract != "new" {
		t.Errorf("%+v, %v", m, err)
	}
	if m, err = b.ResolveContract("default", "payments", "charge", "old"); err != nil || m.Contract != "old" {
		t.Errorf("%+v, %v", m, err)
	}
	if m, err = b.ResolveContract("default", "payments", "charge", "pb:nobody's"); err != nil || m.Contract != "new" {
		t.Errorf("%+v, %v", m, err)
	}
	_, err = b.ResolveMethod("default", "payments", "nope")
	want(t, err, errs.MethodNotFound)
	_, err = b.ResolveMethod("default", "nope", "charge")
	want(t, err, errs.ServiceNotFound)
}

func TestNearest(t *testing.T) {
	t.Parallel()
	names := []string{"orders", "payments", "payment-history", "Inventory", "shop.v1.Payments/Charge"}
	for name, want := range map[string]string{
		"payment": "payments", "ordres": "orders", "inventory": "Inventory", "shop.v2.Payments/Charge": "shop.v1.Payments/Charge",
		"Charge": "shop.v1.Payments/Charge", "zzz": "", "": "",
	} {
		got := ""
		if near := router.Nearest(name, names); len(near) > 0 {
			got = near[0]
		}
		if got != want {
			t.Errorf("nearest to %q is %q, want %q", name, got, want)
		}
	}
	var many []string
	for i := range 50 {
		many = append(many, fmt.Sprintf("service-%02d", i))
	}
	if near := router.Nearest("service-7", many); len(near) != 3 {
		t.Errorf("%d suggestions, want 3", len(near))
	}
}
