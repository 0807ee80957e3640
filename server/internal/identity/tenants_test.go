package identity_test

import (
	"context"
	"errors"
	"testing"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/internal/tx"
)

// tenant keeps something for each namespace.
type tenant struct {
	refuses error
	asked   []string
}

func (x *tenant) RemoveNamespaceTx(_ tx.Tx, namespace string) error {
	x.asked = append(x.asked, namespace)
	return x.refuses
}

func TestRemoveNamespace(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, f *fixture) {
		ctx, a := context.Background(), f.open(t)
		if _, err := a.EnsureNamespace(ctx, "blue", 77); err != nil {
			t.Fatal(err)
		}
		remove := func(ref string) error {
			_, err := a.RemoveNamespace(ctx, ref, "anna")
			return err
		}
		wantError(t, remove("default"), errs.FailedPrecondition, "stays")
		wantError(t, remove("1000"), errs.FailedPrecondition, "stays")
		wantError(t, remove("nowhere"), errs.NotFound, "nowhere")

		k := key(t, a, identity.CreateKey{Service: "payments", Namespace: "blue"})
		wantError(t, remove("blue"), errs.FailedPrecondition, k.ID, "keys revoke")
		if _, err := a.RevokeKey(ctx, k.ID, "anna", ""); err != nil {
			t.Fatal(err)
		}
		needs := &tenant{refuses: errs.New(errs.FailedPrecondition, "it is needed")}
		a.AddTenant(needs)
		wantError(t, remove("blue"), errs.FailedPrecondition, "it is needed")
		if _, err := a.Namespace("blue"); err != nil {
			t.Errorf("refused, and gone: %v", err)
		}
		needs.refuses = errors.New("no disk")
		wantError(t, remove("blue"), errs.Internal, "no disk")
		needs.refuses = nil
		gone, err := a.RemoveNamespace(ctx, "77", "anna")
		if err != nil || gone.Name != "blue" || gone.Account != 77 || len(needs.asked) < 3 {
			t.Fatalf("%+v, %v, asked %v", gone, err, needs.asked)
		}
		for _, again := range []*identity.Authority{a, f.open(t)} {
			if _, err := again.Namespace("blue"); errs.CodeOf(err) != errs.NotFound {
				t.Errorf("it is still there: %v", err)
			}
		}
		wantError(t, remove("blue"), errs.NotFound, "blue")
		_, _, err = a.CreateKey(ctx, identity.CreateKey{Service: "payments", Namespace: "blue", Author: "anna"})
		wantError(t, err, errs.NotFound, "blue")
		// The name and the account are free.
		if _, err := a.EnsureNamespace(ctx, "blue", 0); err != nil {
			t.Error(err)
		}
		if _, err := a.EnsureNamespace(ctx, "red", 77); err != nil {
			t.Error(err)
		}
	})
}

// Another node has removed the namespace, which this one still has in memory.
func TestANamespaceThatAnotherNodeRemoved(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, f *fixture) {
		ctx, a := context.Background(), f.open(t)
		if _, err := a.EnsureNamespace(ctx, "blue", 0); err != nil {
			t.Fatal(err)
		}
		other := f.open(t)
		if _, err := other.RemoveNamespace(ctx, "blue", "bob"); err != nil {
			t.Fatal(err)
		}
		_, _, err := a.CreateKey(ctx, identity.CreateKey{Service: "payments", Namespace: "blue", Author: "anna"})
		wantError(t, err, errs.NotFound, "blue")
		_, err = a.SetAccount(ctx, "blue", 5, "anna")
		wantError(t, err, errs.NotFound, "blue")
		_, err = a.RemoveNamespace(ctx, "blue", "anna")
		wantError(t, err, errs.NotFound, "blue")
		if err := a.Reload(ctx); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Namespace("blue"); errs.CodeOf(err) != errs.NotFound {
			t.Errorf("after reading again: %v", err)
		}
	})
}

func TestSetAccount(t *testing.T) {
	t.Parallel()
	onEveryStore(t, func(t *testing.T, f *fixture) {
		ctx, a := context.Background(), f.open(t)
		if _, err := a.EnsureNamespace(ctx, "blue", 77); err != nil {
			t.Fatal(err)
		}
		set := func(ref string, account int64) error {
			ns, err := a.SetAccount(ctx, ref, account, "anna")
			if err == nil && ns.Account != account {
				t.Errorf("%s has %d, want %d", ref, ns.Account, account)
			}
			return err
		}
		for _, err := range []error{set("blue", 78), set("78", 78), set("default", 0), set("blue", 1000)} {
			if err != nil {
				t.Error(err)
			}
		}
		wantError(t, set("default", 1000), errs.Conflict, "1000", `"blue"`, "--remove")
		wantError(t, set("default", -1), errs.InvalidArgument, "-1")
		wantError(t, set("77", 5), errs.NotFound, "77")
		for _, again := range []*identity.Authority{a, f.open(t)} {
			if ns, err := again.Namespace("1000"); err != nil || ns.Name != "blue" {
				t.Errorf("1000 is %+v, %v", ns, err)
			}
		}
	})
}
