package router_test

import (
	"context"
	"strings"
	"testing"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/router"
)

// fakeKeys notes what it was asked and runs it, claiming as its function says.
type fakeKeys struct {
	namespace string
	call      message.Call
	once      bool
	claims    []claim
	claim     func(instance string, once bool) error
	kept      *message.Reply
}

type claim struct {
	Instance string
	Once     bool
}

func (k *fakeKeys) Call(ctx context.Context, namespace string, call *message.Call, once bool, run router.KeyedRun) (*message.Reply, error) {
	k.namespace, k.call, k.once = namespace, *call, once
	if k.kept != nil {
		return k.kept, nil
	}
	own := *call
	return run(ctx, &own, func(instance string, once bool) error {
		k.claims = append(k.claims, claim{instance, once})
		if k.claim == nil {
			return nil
		}
		return k.claim(instance, once)
	})
}

func keyedRequest(method string) *router.Request {
	return &router.Request{
		Caller: message.Caller{Namespace: "default", Service: "shop"},
		Call:   &message.Call{Service: "payments", Method: method, ContentType: message.JSON, Body: []byte(`{}`), IdempotencyKey: "k"},
	}
}

func TestAKeyedCallNamesItsScope(t *testing.T) {
	t.Parallel()
	x, k, l := new(fakeIndex), new(fakeKeys), &fakeLink{id: "a"}
	charge := unary("shop.v1.Payments/Charge")
	charge.NotRetryable = true
	x.set("default", "payments", instance("in_a", methods(charge)))
	r := router.New(router.Config{Index: x, Keys: k})
	r.Attach("default", "in_a", l)
	reply, err := r.Call(t.Context(), keyedRequest("Charge"))
	if err != nil || string(reply.Body) != "a" {
		t.Fatalf("%v, %v", reply, err)
	}
	if k.namespace != "default" || k.call.Service != "payments" || k.call.Method != "shop.v1.Payments/Charge" || k.call.Caller.Service != "shop" ||
		k.call.Deadline.IsZero() || k.call.RequestID == "" || !k.once {
		t.Errorf("the keys were given %q, %+v, once %t", k.namespace, k.call, k.once)
	}
	if len(k.claims) != 1 || k.claims[0] != (claim{"in_a", true}) {
		t.Errorf("claims %v", k.claims)
	}
	if got := l.got()[0]; got.IdempotencyKey != "k" || got.RequestID != k.call.RequestID {
		t.Errorf("the instance was given %+v", got)
	}
	// Without a key nobody is asked.
	k.claims = nil
	plain := keyedRequest("Charge")
	plain.Call.IdempotencyKey = ""
	if _, err := r.Call(t.Context(), plain); err != nil || len(k.claims) != 0 {
		t.Errorf("%v, claims %v", err, k.claims)
	}
	if s := r.Stats(); s[len(s)-1].Calls[""] != 2 {
		t.Errorf("stats %+v", s)
	}
}

func TestAKeyIsClaimedForEachInstance(t *testing.T) {
	t.Parallel()
	x, k := new(fakeIndex), new(fakeKeys)
	x.set("default", "payments", instance("in_a"), instance("in_b"))
	r := router.New(router.Config{Index: x, Keys: k})
	for _, id := range []string{"in_a", "in_b"} {
		r.Attach("default", id, &fakeLink{id: id, call: func(context.Context, *message.Call) (*message.Reply, error) {
			if len(k.claims) == 1 {
				return nil, errs.New(errs.Unavailable, "draining").Unstarted()
			}
			return &message.Reply{Body: []byte(id)}, nil
		}})
	}
	reply, err := r.Call(t.Context(), keyedRequest("charge"))
	if err != nil || len(k.claims) != 2 || k.claims[0] == k.claims[1] || string(reply.Body) != k.claims[1].Instance {
		t.Errorf("%v, %v, claims %v", reply, err, k.claims)
	}
	// A claim that is refused ends the call, and nobody is given it.
	k.claims, k.claim = nil, func(string, bool) error { return errs.New(errs.Unavailable, "taken").Unstarted() }
	if _, err := r.Call(t.Context(), keyedRequest("charge")); errs.CodeOf(err) != errs.Unavailable || len(k.claims) != 1 {
		t.Errorf("%v, claims %v", err, k.claims)
	}
	for _, in := range []string{"in_a", "in_b"} {
		if n := r.Outstanding("default", in); n != 0 {
			t.Errorf("%d calls are outstanding on %s", n, in)
		}
	}
}

func TestAKeptAnswerNeedsNoInstance(t *testing.T) {
	t.Parallel()
	x, k := new(fakeIndex), &fakeKeys{kept: &message.Reply{Body: []byte("kept")}}
	r := router.New(router.Config{Index: x, Keys: k})
	reply, err := r.Call(t.Context(), keyedRequest("shop.v1.Payments/Charge"))
	if err != nil || string(reply.Body) != "kept" || k.call.Method != "shop.v1.Payments/Charge" || k.once {
		t.Errorf("%v, %v, the keys were given %+v", reply, err, k.call)
	}
	k.kept = nil
	if _, err := r.Call(t.Context(), keyedRequest("charge")); errs.CodeOf(err) != errs.ServiceNotFound || len(k.claims) != 0 {
		t.Errorf("%v, claims %v", err, k.claims)
	}
	denied := router.New(router.Config{Index: x, Keys: &fakeKeys{kept: &message.Reply{}}, Policy: denyAll{}})
	if _, err := denied.Call(t.Context(), keyedRequest("charge")); errs.CodeOf(err) != errs.PermissionDenied {
		t.Errorf("what is kept for somebody who may not call: %v", err)
	}
}

type denyAll struct{}

func (denyAll) MayCall(string, *message.Caller, string, *catalog.Method) *errs.Error {
	return errs.New(errs.PermissionDenied, "no")
}

func (denyAll) Handles(string, string) bool { return true }

func TestKeysThatAreRefused(t *testing.T) {
	t.Parallel()
	x := new(fakeIndex)
	x.set("default", "payments", instance("in_a"), instance("in_b", methods(unary("a.A/Two"), unary("b.B/Two"))))
	k := new(fakeKeys)
	r := router.New(router.Config{Index: x, Keys: k})
	r.Attach("default", "in_a", &fakeLink{id: "in_a"})
	for name, c := range map[string]struct {
		change func(*message.Call)
		code   errs.Code
		says   string
	}{
		"a stream called once":    {func(c *message.Call) { c.Method = "watch" }, errs.FailedPrecondition, "stream"},
		"a name that two have":    {func(c *message.Call) { c.Method = "Two" }, errs.InvalidArgument, "a.A/Two"},
		"a key that is too long":  {func(c *message.Call) { c.IdempotencyKey = strings.Repeat("x", 257) }, errs.InvalidArgument, "256"},
		"a key with a line break": {func(c *message.Call) { c.IdempotencyKey = "a\nb" }, errs.InvalidArgument, "ASCII"},
		"a business key":          {func(c *message.Call) { c.BusinessKey = strings.Repeat("x", 257) }, errs.InvalidArgument, "business key"},
	} {
		req := keyedRequest("charge")
		c.change(req.Call)
		_, err := r.Call(t.Context(), req)
		if e := errs.From(err); e == nil || e.Code != c.code || !e.NotStarted || !strings.Contains(e.Message, c.says) {
			t.Errorf("%s: %v, want %s with %q", name, err, c.code, c.says)
		}
	}
	if len(k.claims) != 0 {
		t.Errorf("claims %v", k.claims)
	}
	_, err := r.Stream(t.Context(), keyedRequest("watch"))
	if e := errs.From(err); e == nil || e.Code != errs.FailedPrecondition || !e.NotStarted || !strings.Contains(e.Message, `"k"`) {
		t.Errorf("a stream: %v", err)
	}
}
