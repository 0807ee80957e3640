package telford_test

import (
	"context"
	"errors"
	"fmt"

	"telford.dev/telford"
)

// A caller that insists on its types is told when nobody has them any more.
func ExampleExactContract() {
	var (
		ctx context.Context
		svc *telford.Service
	)
	type charge struct{ Order string }
	type receipt struct{ ID string }
	_, err := telford.Call[receipt](ctx, svc, "payments", "charge", &charge{Order: "o1"}, telford.ExactContract())
	if errors.Is(err, telford.ErrContract) {
		fmt.Println("payments has other types now:", err) // which ones, and who speaks them
	}
}

// A caller that trusts its callees to stay compatible is served by the newest version, be
// its stubs a field behind.
func ExampleAnyContract() {
	_, err := telford.New("orders", telford.FromEnv(), telford.CallDefaults(telford.AnyContract()))
	if err != nil {
		fmt.Println(err)
	}
}
