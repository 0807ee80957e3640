package invoke

import (
	"errors"
	"testing"
	"testing/synctest"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/match"
	"telford.dev/telford/internal/message"
)

// TestWhatTheRuntimeIsToldOfContracts: calls through it carry the contract of the caller,
// and are not made where the answer is known.
func TestWhatTheRuntimeIsToldOfContracts(t *testing.T) {
	t.Parallel()
	speaking := func(contract string, types ...string) *catalog.Instance {
		i := instance(types...)
		i.Declaration.Methods[0].Contract = contract
		return i
	}
	refused := &errs.Error{Code: errs.NoInstance, Meta: map[string]string{errs.MetaReason: errs.ReasonContract}}
	for name, test := range map[string]struct {
		list  []*catalog.Instance
		mode  Mode
		wish  match.Wish
		down  bool
		calls int // through the runtime
		fails bool
	}{
		"through the runtime":            {[]*catalog.Instance{speaking("pb:1", "json")}, Proxy, match.Wish{Contract: "pb:2"}, false, 1, false},
		"as a wish":                      {nil, Auto, match.Wish{Contract: "js:2", Lenient: true}, false, 1, false},
		"nobody is known":                {nil, Auto, match.Wish{Contract: "pb:2"}, false, 1, false},
		"its own has no path":            {[]*catalog.Instance{speaking("pb:2", "json")}, Auto, match.Wish{Contract: "pb:2"}, false, 1, false},
		"its own reads no JSON":          {[]*catalog.Instance{speaking("pb:2", "proto")}, Auto, match.Wish{Contract: "pb:2"}, false, 1, false},
		"others speak otherwise":         {[]*catalog.Instance{speaking("pb:1", "json")}, Auto, match.Wish{Contract: "pb:2"}, false, 0, true},
		"others, and the runtime is off": {[]*catalog.Instance{speaking("pb:1", "json")}, Auto, match.Wish{Contract: "pb:2"}, true, 1, false},
		"others, and only directly":      {[]*catalog.Instance{speaking("pb:1", "json")}, Direct, match.Wish{Contract: "pb:2"}, true, 0, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			r := &runtime{down: test.down}
			v := invoker(t, r, test.list...)
			c := call(test.mode)
			c.Policy.MaxAttempts = 1
			_, err := v.Call(t.Context(), v.Route("svc", "m", message.JSON, test.wish), c)
			if (err != nil) != test.fails || test.fails && !errors.Is(err, refused) || len(r.calls) != test.calls {
				t.Errorf("%s: %v after %d calls", name, err, len(r.calls))
			}
			for _, got := range r.calls {
				if got.Target.Contract != test.wish.Contract || got.Target.PreferContract != test.wish.Lenient {
					t.Errorf("%s: the runtime was told %+v", name, got.Target)
				}
			}
		})
	}
}
