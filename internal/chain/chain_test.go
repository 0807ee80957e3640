package chain_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"telford.dev/telford/internal/chain"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

func names(n int, name func(int) string) []string {
	s := make([]string, n)
	for i := range s {
		s[i] = name(i)
	}
	return s
}

func numbered(i int) string { return fmt.Sprintf("s%d/m", i) }

func TestChainGrowsFromCallToCall(t *testing.T) {
	t.Parallel()
	first := &message.Call{Service: "orders", Method: "Place", RequestID: "r-1"}
	if err := chain.FromContext(t.Context()).Apply(first); err != nil {
		t.Fatal(err)
	}
	if first.ChainRoot != "r-1" || first.Chain != nil {
		t.Fatalf("a call outside of any chain has root %q and chain %v", first.ChainRoot, first.Chain)
	}
	inOrders, err := chain.Enter(first, "orders", "Place")
	if err != nil {
		t.Fatal(err)
	}
	ctx := chain.NewContext(context.Background(), inOrders)
	second := &message.Call{Service: "payments", Method: "Charge", RequestID: "r-2"}
	if err := chain.FromContext(ctx).Apply(second); err != nil {
		t.Fatal(err)
	}
	inPayments, err := chain.Enter(second, "payments", "Charge")
	if err != nil {
		t.Fatal(err)
	}
	want := chain.Chain{Root: "r-1", Names: []string{"orders/Place", "payments/Charge"}}
	if d := cmp.Diff(want, inPayments); d != "" {
		t.Errorf("the chain of the second call (-want +got):\n%s", d)
	}
	if inPayments.Depth() != 2 || inOrders.Depth() != 1 {
		t.Errorf("depths are %d and %d, want 1 and 2", inOrders.Depth(), inPayments.Depth())
	}
}

func TestEnterDoesNotShareGrowth(t *testing.T) {
	t.Parallel()
	base := make([]string, 1, 8)
	base[0] = "a/x"
	call := &message.Call{Chain: base, ChainRoot: "r"}
	one, _ := chain.Enter(call, "b", "1")
	two, _ := chain.Enter(call, "b", "2")
	if d := cmp.Diff([]string{"a/x", "b/1"}, one.Names); d != "" {
		t.Errorf("the second chain wrote into the first (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]string{"a/x", "b/2"}, two.Names); d != "" {
		t.Error(d)
	}
}

func TestDepthIsBounded(t *testing.T) {
	t.Parallel()
	call := &message.Call{Service: "z", Method: "last", ChainRoot: "root-9", Chain: names(message.MaxDepth-1, numbered)}
	if err := chain.Check(call); err != nil {
		t.Errorf("call number %d is refused: %v", message.MaxDepth, err)
	}
	in, err := chain.Enter(call, "z", "last")
	if err != nil || in.Depth() != message.MaxDepth {
		t.Fatalf("entering it: depth %d, %v", in.Depth(), err)
	}
	next := &message.Call{Service: "y", Method: "more", RequestID: "r"}
	applied := in.Apply(next)
	_, entered := chain.Enter(next, "y", "more")
	for what, err := range map[string]error{"Apply": applied, "Check": chain.Check(next), "Enter": entered} {
		var e *errs.Error
		if !errors.As(err, &e) || e.Code != errs.DepthExceeded {
			t.Errorf("%s of call number %d: %v, want depth_exceeded", what, message.MaxDepth+1, err)
			continue
		}
		if !e.NotStarted || e.Meta["root"] != "root-9" || e.Meta["depth"] != "100" {
			t.Errorf("%s: not started %v, meta %v", what, e.NotStarted, e.Meta)
		}
		for _, part := range []string{"y/more", "101", "100", "s0/m > s1/m", "z/last"} {
			if !strings.Contains(e.Message, part) {
				t.Errorf("%s: the message does not say %q: %s", what, part, e.Message)
			}
		}
	}
}

func TestCircleIsNamed(t *testing.T) {
	t.Parallel()
	call := &message.Call{Service: "a", Method: "x", Chain: append([]string{"front/door"}, names(message.MaxDepth, func(i int) string {
		return []string{"a/x", "b/y", "c/z"}[i%3]
	})...)}
	err := chain.Check(call)
	if err == nil || !strings.Contains(err.Error(), "it goes in a circle: b/y > c/z > a/x > b/y > ...") {
		t.Errorf("the circle is not named: %v", err)
	}
	self := &message.Call{Service: "a", Method: "x", Chain: names(message.MaxDepth, func(int) string { return "a/x" })}
	if err := chain.Check(self); err == nil || !strings.Contains(err.Error(), "circle: a/x > a/x > ...") {
		t.Errorf("the circle of one is not named: %v", err)
	}
}

func TestCheckAgreesWithEnter(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 3*message.MaxDepth).Draw(t, "depth")
		call := &message.Call{Chain: names(n, func(int) string {
			return rapid.SampledFrom([]string{"a/x", "b/y", "c/z"}).Draw(t, "name")
		})}
		_, err := chain.Enter(call, "s", "m")
		if (err == nil) != (n < message.MaxDepth) || (err == nil) != (chain.Check(call) == nil) {
			t.Fatalf("depth %d: Enter %v, Check %v", n, err, chain.Check(call))
		}
	})
}
