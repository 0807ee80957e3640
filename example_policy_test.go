package telford_test

import (
	"context"
	"fmt"
	"strings"

	"telford.dev/telford"
)

func ExampleAllowedCallers() {
	var svc *telford.Service
	err := telford.Handle(svc, "refund", func(context.Context, *Charge) (*Receipt, error) {
		return &Receipt{}, nil
	}, telford.AllowedCallers("backoffice", "orders"))
	if err != nil {
		fmt.Println(err)
	}
}

func ExampleFailOnPolicyViolation() {
	svc, err := telford.New("orders", telford.FromEnv(), telford.Uses("payments", "charge"), telford.FailOnPolicyViolation())
	if err != nil {
		fmt.Println(err)
		return
	}
	svc.OnDisconnected(func(d telford.Disconnected) {
		if strings.HasPrefix(string(d.Reason), string(telford.DisconnectPolicy)) {
			fmt.Println("ask an operator:", d.Reason) // policy: rpc.call payments/charge
		}
	})
	if err := svc.Start(context.Background()); err != nil {
		fmt.Println(err)
	}
}

func ExampleService_OnPolicyViolation() {
	var svc *telford.Service
	svc.OnPolicyViolation(func(v telford.PolicyViolation) {
		fmt.Printf("%s %s is forbidden (%s): %s\n", v.Declaration, v.Value, v.Side, v.Reason)
	})
}

func ExampleService_PolicyEvaluation() {
	var svc *telford.Service
	now := svc.PolicyEvaluation()
	for _, c := range now.Capabilities {
		fmt.Println(c.Name, c.On)
	}
	for _, r := range append(now.Egress, now.Acceptance...) {
		fmt.Println(r.ID, r.Effect, r.Action, r.Peer, r.Target)
	}
	for _, w := range now.Warnings {
		fmt.Println(w.Declaration, w.Value, w.Reason)
	}
}
