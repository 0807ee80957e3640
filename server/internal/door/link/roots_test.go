package linkdoor_test

import (
	"testing"
	"time"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/server/internal/door/doortest"
)

// TestRoots: every connection hears of the roots to trust behind HelloAck and when they
// change, and of which of them signs.
func TestRoots(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	key, _ := r.Key(t, "payments")
	connect := func(instance string) *doortest.Wire {
		t.Helper()
		return doortest.NewInstance(r.addr, r.Certify(t, key, "payments", instance), doortest.Echo()).Connect(t, nil)
	}
	w := connect("pay-1")
	check := func(w *doortest.Wire, roots, signing int, renew bool) {
		t.Helper()
		m := doortest.Next[*telfordv1.ServerMessage_Roots](w)
		if m == nil {
			t.Fatal("no roots came")
		}
		got, err := ident.ParseCertificates(m.Roots.GetRoots())
		if err != nil || len(got) != roots {
			t.Fatalf("%d roots, want %d, %v", len(got), roots, err)
		}
		spki := ident.SPKI(got[signing])
		if string(m.Roots.GetSigning()) != string(spki[:]) {
			t.Errorf("another root signs than number %d", signing)
		}
		if within := time.Duration(m.Roots.GetRenewWithinUs()) * time.Microsecond; renew != (within > 0) || within > 12*time.Hour {
			t.Errorf("to be renewed within %s", within)
		}
	}
	check(w, 1, 0, false)
	for _, step := range []struct {
		now            bool
		roots, signing int
		renew          bool
	}{{false, 2, 0, false}, {true, 2, 1, true}} {
		if _, err := r.Authority.RotateRoot(t.Context(), step.now); err != nil {
			t.Fatal(err)
		}
		check(w, step.roots, step.signing, step.renew)
		check(connect("pay-2"), step.roots, step.signing, step.renew)
	}
	if _, err := r.Authority.RotateRoot(t.Context(), true); err != nil {
		t.Fatal(err)
	}
	check(connect("pay-3"), 1, 0, false)
}
