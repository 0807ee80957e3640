package wake_test

import (
	"testing"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/wake"
)

func join(t *testing.T, h *wake.Hub, namespace string) *wake.Seat {
	t.Helper()
	s, err := h.Join(namespace)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func woken(s *wake.Seat) bool {
	select {
	case <-s.Woken():
		return true
	default:
		return false
	}
}

func TestWakesItsNamespaceOnce(t *testing.T) {
	t.Parallel()
	h := wake.New(3)
	a, b, other := join(t, h, "x"), join(t, h, "x"), join(t, h, "y")
	h.Wake("x")
	h.Wake("x") // nobody has listened meanwhile: one word is enough
	for range 2 {
		h.Wake("nobody is there")
	}
	if !woken(a) || woken(a) || !woken(b) || woken(other) {
		t.Error("want one word for each in the namespace, and none for others")
	}
}

func TestSeatsEnd(t *testing.T) {
	t.Parallel()
	h := wake.New(3)
	a, b, c := join(t, h, "x"), join(t, h, "y"), join(t, h, "z")
	_, err := h.Join("x")
	code(t, "one too many", err, errs.ResourceExhausted)
	if a.Err() != nil {
		t.Error("a seat has ended before its time")
	}
	h.Leave(a)
	h.Leave(a)
	h.Remove("y")
	h.Leave(b)
	h.Stop()
	h.Stop()
	for s, want := range map[*wake.Seat]errs.Code{a: errs.Canceled, b: errs.NotFound, c: errs.Unavailable} {
		<-s.Ended()
		code(t, "a seat that has ended", s.Err(), want)
	}
	_, err = h.Join("x")
	code(t, "behind the stop", err, errs.Unavailable)
	if n := h.Count(); n != 0 {
		t.Errorf("%d seats are left", n)
	}
}

func code(t *testing.T, what string, err error, want errs.Code) {
	t.Helper()
	if err == nil || errs.CodeOf(err) != want {
		t.Errorf("%s: got %v, want %s", what, err, want)
	}
}
