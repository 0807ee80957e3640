package invoke

import (
	"testing"

	"telford.dev/telford/internal/direct"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/internal/match"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/resilience"
)

// However many calls end with a connection, its loss is one failure; an instance that
// loses one after another is cut off by its breaker all the same.
func TestALostConnectionIsOneFailure(t *testing.T) {
	t.Parallel()
	v := invoker(t, &runtime{}, instance("json"))
	known := v.resolve(v.Route("svc", "m", message.JSON, match.Wish{}), message.Target{})
	if known.err != nil || len(known.peers) != 1 {
		t.Fatalf("%+v", known)
	}
	p := known.peers[0]
	cut := func() bool { return p.Health.Standing(v.opt.Pool.Now())&resilience.Cutoff != 0 }
	lost := errs.New(errs.Unavailable, "it was lost").WithCause(link.ErrEnded)
	lose := func() {
		ch := choice{peer: p, conn: new(direct.Conn)}
		for range 50 {
			v.failed(known, ch, lost)
		}
	}
	lose()
	if cut() {
		t.Fatal("one loss has opened the breaker")
	}
	for range 9 {
		lose()
	}
	if !cut() {
		t.Fatal("ten losses have not opened the breaker")
	}
}
