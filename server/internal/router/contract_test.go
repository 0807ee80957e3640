package router_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// errContract is how callers tell it from other reasons for no_instance.
var errContract = &errs.Error{Code: errs.NoInstance, Meta: map[string]string{errs.MetaReason: errs.ReasonContract}}

func TestContracts(t *testing.T) {
	t.Parallel()
	pb := func(text string) message.Target { return message.Target{Contract: text} }
	both := []*catalog.Instance{
		instance("old1", version("1.0.0"), contract("pb:old")), instance("old2", version("1.1.0"), contract("pb:old")),
		instance("new", version("2.0.0", "1.0.0"), contract("pb:new")),
	}
	for name, c := range map[string]struct {
		instances []*catalog.Instance
		target    message.Target
		want      []string // none: refused because of the contract
	}{
		"the older one":              {both, pb("pb:old"), []string{"old1", "old2"}},
		"the newer one":              {both, pb("pb:new"), []string{"new"}},
		"none":                       {both, pb(""), []string{"new"}},
		"nobody's":                   {both, pb("pb:other"), nil},
		"nobody's, as a wish":        {both, message.Target{Contract: "pb:other", PreferContract: true}, []string{"new"}},
		"the older one, as a wish":   {both, message.Target{Contract: "pb:old", PreferContract: true}, []string{"old1", "old2"}},
		"of a type that nobody has":  {both, pb("js:1"), []string{"new"}},
		"version and contract":       {both, message.Target{Version: "1.1.0", Contract: "pb:old"}, []string{"old2"}},
		"of another version":         {both, message.Target{Version: "2.0.0", Contract: "pb:old"}, nil},
		"exact version first":        {both, message.Target{Version: "1.0.0", Contract: "pb:new"}, nil},
		"in another realm":           {append(both[:3:3], instance("eu", realm("eu"), contract("pb:old"))), message.Target{Realm: "eu", Contract: "pb:new"}, nil},
		"one instance":               {both, message.Target{Instance: "new", Contract: "pb:old"}, nil},
		"draining":                   {[]*catalog.Instance{instance("old", contract("pb:old"), draining), instance("new", contract("pb:new"))}, pb("pb:old"), nil},
		"in error":                   {[]*catalog.Instance{instance("old", contract("pb:old"), status(catalog.Error)), instance("new", contract("pb:new"))}, pb("pb:old"), nil},
		"draining, as a wish":        {[]*catalog.Instance{instance("old", contract("pb:old"), draining), instance("new", contract("pb:new"))}, message.Target{Contract: "pb:old", PreferContract: true}, []string{"new"}},
		"the type drains":            {[]*catalog.Instance{instance("old", contract("js:old"), draining), instance("new", contract("pb:new"))}, pb("js:old"), []string{"new"}},
		"the newest drains":          {[]*catalog.Instance{instance("old", version("1"), contract("pb:old")), instance("new", version("2"), contract("pb:new"), draining)}, pb(""), []string{"old"}},
		"without versions":           {[]*catalog.Instance{instance("b", contract("pb:b")), instance("a", contract("pb:a"))}, pb(""), []string{"a"}},
		"seen by one zone":           {append(both[:3:3], instance("z", zone("there"), contract("pb:zone"))), pb("pb:zone"), nil},
		"seen by one zone, the rest": {append(both[:3:3], instance("z", zone("there"), contract("pb:zone"))), pb("pb:old"), []string{"old1", "old2"}},
		"untyped callee":             {[]*catalog.Instance{instance("plain", contract(""))}, pb("pb:old"), []string{"plain"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, c.instances...)
			if c.want != nil {
				only(t, b.picks(t, 60, target(c.target)), c.want...)
				return
			}
			_, err := b.Call(t.Context(), request(target(c.target)))
			e := want(t, err, errs.NoInstance, `"payments"`, `"charge"`, c.target.Contract)
			if !errors.Is(err, errContract) || e.Meta["why"] != "contract" || !e.NotStarted || e.Component != "router" {
				t.Errorf("%+v", e)
			}
			req := request(target(c.target))
			req.Call.Method = "watch"
			if _, err := b.Stream(t.Context(), req); errors.Is(err, errContract) {
				t.Errorf("another method was refused: %v", err)
			}
		})
	}
}

func TestContractRefusalSaysWhoSpeaks(t *testing.T) {
	t.Parallel()
	b := setup(t,
		instance("old", version("1.0.0"), contract("pb:old"), draining), instance("gone", version("1.0.0"), contract("pb:old")),
		instance("new1", version("2.0.0"), contract("pb:new")), instance("new2", version("2.0.1"), contract("pb:new")))
	b.attach("gone")()
	_, err := b.Call(t.Context(), request(target(message.Target{Contract: "pb:old"})))
	want(t, err, errs.NoInstance, "pb:new (version 2.0.1, 2.0.0, 2 instances: new1, new2)",
		"pb:old (version 1.0.0, 2 instances: old (draining), gone (without a live session))", "start an instance")
}

// TestRefusedCallStaysInItsContract: what an instance refuses goes to another one of the
// same contract, and to nobody when there is none.
func TestRefusedCallStaysInItsContract(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("old1", contract("pb:old")), instance("old2", contract("pb:old")), instance("new", version("2"), contract("pb:new")))
	b.links["old1"].call = refusing(errs.Unavailable)
	only(t, b.picks(t, 50, target(message.Target{Contract: "pb:old"})), "old2")
	b.links["old2"].call = refusing(errs.Unavailable)
	_, err := b.Call(t.Context(), request(target(message.Target{Contract: "pb:old"})))
	want(t, err, errs.Unavailable, "not now")
	if n := len(b.links["new"].got()); n != 0 {
		t.Errorf("an instance of another contract got %d calls", n)
	}
}

// TestContractVanishesDuringCall: the instance refuses because it goes, and the next pick
// sees it gone.
func TestContractVanishesDuringCall(t *testing.T) {
	t.Parallel()
	b := setup(t, instance("old", contract("pb:old")), instance("new", contract("pb:new")))
	b.links["old"].call = func(context.Context, *message.Call) (*message.Reply, error) {
		b.index.set("default", "payments", instance("new", contract("pb:new")))
		return nil, errs.New(errs.Unavailable, "draining").Unstarted()
	}
	_, err := b.Call(t.Context(), request(target(message.Target{Contract: "pb:old"})))
	e := want(t, err, errs.Unavailable, "draining")
	if !e.NotStarted || len(b.links["new"].got()) != 0 {
		t.Errorf("%+v, and the other got %d calls", e, len(b.links["new"].got()))
	}
	_, err = b.Call(t.Context(), request(target(message.Target{Contract: "pb:old"})))
	want(t, err, errs.NoInstance, "pb:new (no version, 1 instance: new)")
}

// TestCallsWaitForTheirContractToReturn: after a restart the instances of another contract
// may be back first.
func TestCallsWaitForTheirContractToReturn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := restarted()
		b.index.set("default", "payments", instance("one", contract("pb:old")), instance("two", contract("pb:new")))
		b.attach("two")
		start := time.Now()
		time.AfterFunc(3*time.Second, func() { b.attach("one") })
		only(t, b.picks(t, 1, target(message.Target{Contract: "pb:old"})), "one")
		if took := time.Since(start); took != 3*time.Second {
			t.Errorf("it took %v", took)
		}
		// Nobody is awaited who speaks this one.
		if _, err := b.Call(t.Context(), request(target(message.Target{Contract: "pb:other"}))); !errors.Is(err, errContract) || time.Since(start) != 3*time.Second {
			t.Errorf("%v after %v", err, time.Since(start))
		}
		only(t, b.picks(t, 1, target(message.Target{Contract: "pb:new"})), "two")
	})
}
