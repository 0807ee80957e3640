package telford

import (
	"reflect"
	"strings"
	"testing"

	testpb "google.golang.org/grpc/interop/grpc_testing"

	"telford.dev/telford/internal/codec"
	"telford.dev/telford/internal/invoke"
	"telford.dev/telford/internal/view"
)

type (
	tea   struct{ Name string }
	cup   struct{ Milk bool }
	chest struct{ Inner *chest } // it has no JSON Schema
)

// TestContractOfTypes: a caller says what Handle says of the same types, whether it gives
// its request as a value or as a pointer.
func TestContractOfTypes(t *testing.T) {
	t.Parallel()
	s := &Service{name: "s"}
	structs, err := describe[tea, cup](s, "a", false, "unary", nil)
	if err != nil {
		t.Fatal(err)
	}
	messages, err := describe[testpb.SimpleRequest, testpb.SimpleResponse](s, "b", false, "unary", nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		in        any
		out       reflect.Type
		want      string
		generated bool
	}{
		"value":            {tea{}, reflect.TypeFor[cup](), structs.Contract, false},
		"pointer":          {&tea{}, reflect.TypeFor[cup](), structs.Contract, false},
		"nil pointer":      {(*tea)(nil), reflect.TypeFor[cup](), structs.Contract, false},
		"messages":         {&testpb.SimpleRequest{}, reflect.TypeFor[testpb.SimpleResponse](), messages.Contract, true},
		"nothing":          {nil, reflect.TypeFor[cup](), "", false},
		"mixed":            {&testpb.SimpleRequest{}, reflect.TypeFor[cup](), "", false},
		"without a schema": {chest{}, reflect.TypeFor[cup](), "", false},
	} {
		got, generated := contractOfTypes(reflect.TypeOf(c.in), c.out)
		if got != c.want || generated != c.generated {
			t.Errorf("%s: %q, %v; want %q", name, got, generated, c.want)
		}
	}
	if !strings.HasPrefix(structs.Contract, "js:") || !strings.HasPrefix(messages.Contract, "pb:") {
		t.Errorf("%q and %q", structs.Contract, messages.Contract)
	}
	if other, _ := contractOfTypes(reflect.TypeFor[cup](), reflect.TypeFor[tea]()); other == structs.Contract {
		t.Error("the other way round is the same contract")
	}
}

// TestTypedRouteIsKept: after the first call of two types nothing is made for the others.
//
//nolint:paralleltest // AllocsPerRun counts those of others too
func TestTypedRouteIsKept(t *testing.T) {
	s := &Service{}
	v := invoke.New(invoke.Options{View: view.New()})
	o := &outbound{}
	o.ContentType = codec.Natural(tea{})
	route := func() *invoke.Route {
		r, err := s.typedRoute(v, o, "s", "m", reflect.TypeFor[tea](), reflect.TypeFor[cup]())
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	first := route()
	if n := testing.AllocsPerRun(100, func() {
		if route() != first {
			t.Fatal("another route for the same types")
		}
	}); n > 0 {
		t.Errorf("%v allocations a call", n)
	}
	o.set.contractRule = anyContract
	if route() == first {
		t.Error("a call to any contract has the route of those with one")
	}
	o.set.contractRule = exactContract
	if _, err := s.typedRoute(v, o, "s", "m", reflect.TypeFor[chest](), reflect.TypeFor[cup]()); err == nil || !strings.Contains(err.Error(), "telford.chest") {
		t.Errorf("exactly what has no contract: %v", err)
	}
}
