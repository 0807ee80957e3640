package linkdoor_test

import (
	"errors"
	"testing"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/door/doortest"
)

func (r *runtime) registered(instance string) bool {
	_, err := r.Registry.Get("default", instance)
	return err == nil
}

// TestResumeAfterTheLease: a session whose registration has ended while it was cut is
// not resumed, so that the instance registers again.
func TestResumeAfterTheLease(t *testing.T) {
	t.Parallel()
	clk := clock.NewManual(time.Now())
	r := start(t, doortest.Options{Clock: clk})
	key, _ := r.Key(t, "payments")
	in := doortest.NewInstance(r.addr, r.Certify(t, key, "payments", "pay-1"), doortest.Echo())
	declaration := doortest.Declaration("payments", "charge")
	declaration.TtlUs = (5 * time.Second).Microseconds()
	w := in.Connect(t, nil)
	w.Register(declaration)
	_ = w.NetConn().Close()
	in.Peer.Detach(w.Conn, errors.New("cut"))
	doortest.Eventually(t, "the instance is unreachable", func() bool { return !r.reachable("pay-1") })
	for range 8 { // the lease and its tick, and far less than the window of 60 s
		clk.Advance(time.Second)
	}
	doortest.Eventually(t, "the lease has ended", func() bool {
		clk.Advance(10 * time.Millisecond)
		return !r.registered("pay-1")
	})
	if all, connected := r.Sessions.Counts(); all != 1 || connected != 0 {
		t.Fatalf("%d sessions, %d connected", all, connected)
	}
	again := in.Connect(t, nil)
	if again.Ack.GetResumed() || again.Ack.GetHandover() || again.Ack.GetSessionId() == w.Ack.GetSessionId() {
		t.Fatalf("HelloAck after the lease: %v", again.Ack)
	}
	if all, connected := r.Sessions.Counts(); all != 1 || connected != 1 {
		t.Errorf("%d sessions, %d connected", all, connected)
	}
	if refused := again.Register(declaration).GetRefused(); refused != nil {
		t.Fatalf("registration refused: %v", refused)
	}
	if reply, err := r.charge(t.Context(), `{"cents":1}`); err != nil || string(reply.Body) != `{"cents":1}` {
		t.Errorf("a call: %v, %v", reply, err)
	}
	// Its token is good: nobody was fenced.
	_ = again.NetConn().Close()
	in.Peer.Detach(again.Conn, errors.New("cut"))
	doortest.Eventually(t, "the instance is unreachable", func() bool { return !r.reachable("pay-1") })
	if third := in.Connect(t, nil); !third.Ack.GetResumed() {
		t.Errorf("HelloAck within the lease: %v", third.Ack)
	}
}

// TestResumeBeforeTheRegistration: a connection that is lost between HelloAck and the
// registration leaves nothing to resume.
func TestResumeBeforeTheRegistration(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	key, _ := r.Key(t, "payments")
	in := doortest.NewInstance(r.addr, r.Certify(t, key, "payments", "pay-1"), doortest.Echo())
	w := in.Connect(t, nil)
	_ = w.NetConn().Close()
	in.Peer.Detach(w.Conn, errors.New("cut"))
	doortest.Eventually(t, "the session is cut", func() bool { _, connected := r.Sessions.Counts(); return connected == 0 })
	again := in.Connect(t, nil)
	if again.Ack.GetResumed() || again.Ack.GetSessionId() == w.Ack.GetSessionId() {
		t.Errorf("HelloAck: %v", again.Ack)
	}
	if refused := again.Register(doortest.Declaration("payments", "charge")).GetRefused(); refused != nil || !r.reachable("pay-1") {
		t.Errorf("registration: %v", refused)
	}
}

// TestSessionEndsWithItsRegistration: an instance that is no longer on the map hears of
// it at its next sign of life.
func TestSessionEndsWithItsRegistration(t *testing.T) {
	t.Parallel()
	clk := clock.NewManual(time.Now())
	r := start(t, doortest.Options{Clock: clk})
	in, w := payments(t, r, "pay-1", doortest.Echo())
	if err := r.Registry.Deregister(t.Context(), "default", "pay-1", catalog.Expired); err != nil {
		t.Fatal(err)
	}
	doortest.Eventually(t, "the session ends", func() bool {
		clk.Advance(time.Second)
		select {
		case <-w.Done():
			return true
		default:
			return false
		}
	})
	if err := w.Err(); errs.CodeOf(err) != errs.Unavailable || !contains(err.Error(), "register again") {
		t.Errorf("the session ended with %v", err)
	}
	in.Peer.Detach(w.Conn, w.Err())
	again := in.Connect(t, nil)
	if again.Ack.GetResumed() {
		t.Errorf("HelloAck: %v", again.Ack)
	}
	again.Register(doortest.Declaration("payments", "charge"))
	if !r.reachable("pay-1") {
		t.Error("unreachable after it registered again")
	}
}
