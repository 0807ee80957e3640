package client

import (
	"context"
	"errors"
	"testing"
	"time"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/session"
)

func started(t *testing.T, s *Session) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 15*time.Second)
	defer cancel()
	if err := s.Start(ctx); err != nil {
		t.Fatal(err)
	}
}

func TestStartAndClose(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	s, events := f.open()
	started(t, s)
	if !s.Up() || s.State() != session.Ready || s.Info().SessionID != "ses" {
		t.Errorf("up %v, %s, %+v", s.Up(), s.State(), s.Info())
	}
	s.Leave("going")
	s.Close("gone")
	s.Close("gone")
	expect(t, events, "disconnected stopped")
	if s.State() != session.Closed || s.Up() || s.Available() {
		t.Errorf("after Close: %s", s.State())
	}
	if len(f.byes) != 2 || !f.byes[0].GetDraining() || f.byes[0].GetReason() != "going" || f.byes[1].GetDraining() || f.byes[1].GetReason() != "gone" {
		t.Errorf("said %v", f.byes)
	}
	if _, err := s.Call(t.Context(), &message.Call{Method: "m"}); errs.CodeOf(err) != errs.Unavailable {
		t.Errorf("a call after Close: %v", err)
	}
}

func TestCloseWithoutStart(t *testing.T) {
	t.Parallel()
	s, _ := newFake(t).open()
	s.Close("never")
	if err := s.Start(t.Context()); err != nil && errs.CodeOf(err) != errs.Unavailable {
		t.Errorf("got %v", err)
	}
}

func TestRefusedForGood(t *testing.T) {
	t.Parallel()
	for _, code := range []errs.Code{errs.Unauthenticated, errs.PermissionDenied, errs.FailedPrecondition} {
		f := newFake(t)
		f.refuse = func() *errs.Error { return errs.New(code, "no") }
		s, events := f.open()
		if err := s.Start(t.Context()); errs.CodeOf(err) != code {
			t.Errorf("%s: %v", code, err)
		}
		if e := expect(t, events, "disconnected error"); errs.CodeOf(e.cause) != code {
			t.Errorf("%s: told %v", code, e.cause)
		}
	}
}

func TestTriesAgain(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	n := 0
	f.refuse = func() *errs.Error {
		if n++; n <= 3 {
			return errs.New(errs.ResourceExhausted, "full").After(time.Millisecond)
		}
		return nil
	}
	s, events := f.open()
	started(t, s)
	expect(t, events, "reconnecting")
	expect(t, events, "connected")
}

func TestExhausted(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.refuse = func() *errs.Error { return errs.New(errs.Unavailable, "stopping") }
	s, events := f.open(func(o *Options) { o.Backoff.Attempts = 2 })
	if err := s.Start(t.Context()); errs.CodeOf(err) != errs.Unavailable {
		t.Errorf("got %v", err)
	}
	expect(t, events, "disconnected exhausted")
}

func TestStartGivesUpWithTheCause(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.refuse = func() *errs.Error { return errs.New(errs.Unavailable, "stopping") }
	s, _ := f.open()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := s.Start(ctx); errs.CodeOf(err) != errs.Unavailable && !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
}

func TestResumesAfterACut(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	s, events := f.open()
	started(t, s)
	expect(t, events, "connected")
	f.last().link.NetConn().Close()
	expect(t, events, "reconnecting")
	expect(t, events, "connected")
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.hellos) != 2 || f.hellos[0].GetResumeToken() != "" || f.hellos[1].GetResumeToken() != "token" {
		t.Errorf("said %v", f.hellos)
	}
}

func TestFenced(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	s, events := f.open()
	started(t, s)
	f.last().say(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Fenced{Fenced: &telfordv1.Fenced{Reason: "another came"}}})
	expect(t, events, "disconnected fenced")
	if s.State() != session.Fenced || s.Available() {
		t.Errorf("it is %s", s.State())
	}
}

func TestDrainedComesBackLater(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	s, events := f.open()
	started(t, s)
	expect(t, events, "connected")
	start := time.Now()
	after := 200 * time.Millisecond
	f.last().say(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Drain{Drain: &telfordv1.Drain{Reason: "update", DeadlineUs: 1e6, ReconnectAfterUs: after.Microseconds()}}})
	expect(t, events, "draining update")
	expect(t, events, "connected")
	if took := time.Since(start); took < after {
		t.Errorf("it came back after %v", took)
	}
}

func TestSilentRuntimeIsGivenUp(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	s, events := f.open(func(o *Options) { o.Backoff.Max = time.Hour; o.Backoff.Min = time.Hour })
	started(t, s)
	// The connection stays, and nothing comes over it: the reader of the fake is stuck.
	f.set(func() {
		f.answer = func(c *fakeConn, _ *telfordv1.ClientMessage) { <-c.link.Done() }
	})
	c := f.last()
	_ = c.link.NetConn().SetReadDeadline(time.Time{})
	stall(t, c)
	if e := expect(t, events, "reconnecting"); errs.CodeOf(e.cause) != errs.Unavailable {
		t.Errorf("given up for %v", e.cause)
	}
	if s.Up() {
		t.Error("a session without a connection is up")
	}
}

// stall makes the fake's end swallow everything: its writes fail silently for the other
// end, which is not told.
func stall(t *testing.T, c *fakeConn) {
	t.Helper()
	if err := c.link.NetConn().SetWriteDeadline(time.Unix(1, 0)); err != nil {
		t.Fatal(err)
	}
}

func TestGarbageOnTheSession(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	s, events := f.open()
	started(t, s)
	if err := f.last().link.Control([]byte{0xff, 0xff, 0xff}); err != nil {
		t.Fatal(err)
	}
	expect(t, events, "reconnecting")
	expect(t, events, "connected")
	if !s.Available() {
		t.Error("garbage has ended the session for good")
	}
}

func TestWhatTheRuntimeSays(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	s, events := f.open()
	started(t, s)
	c := f.last()
	c.say(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Revocation{Revocation: &telfordv1.Revocation{Snapshot: true, Keys: []string{"key_y"}, Instances: []string{"in_b", "else/in_c"}}}})
	c.say(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Registered{Registered: &telfordv1.Registered{Warnings: []*telfordv1.Warning{{Declaration: "tags"}}}}})
	expect(t, events, "warnings")
	for _, id := range []ident.Identity{{KeyID: "key_y"}, {Namespace: "default", Instance: "in_b"}, {Namespace: "else", Instance: "in_c"}} {
		if !s.opt.Trust.Revoked(id) {
			t.Errorf("%+v is not revoked", id)
		}
	}
	c.say(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Watch{Watch: &telfordv1.WatchUpdate{
		Revision: &telfordv1.Revision{Epoch: 1, N: 2}, Upserts: []*telfordv1.Instance{{Id: "in_z", Declaration: &telfordv1.Declaration{Service: "other"}}},
	}}})
	c.say(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Watch{Watch: &telfordv1.WatchUpdate{
		Revision: &telfordv1.Revision{Epoch: 1, N: 3}, Removals: []*telfordv1.Tombstone{{Id: "in_z", Service: "other"}},
	}}})
	expect(t, events, "gone")
}

func TestStatusIsRepeated(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	statuses := make(chan *telfordv1.StatusChange, 10)
	declared := make(chan *telfordv1.Declaration, 10)
	f.answer = func(c *fakeConn, m *telfordv1.ClientMessage) {
		if v := m.GetStatus(); v != nil {
			statuses <- v
		}
		if v := m.GetRegister(); v != nil {
			declared <- v
		}
		f.agree(c, m)
	}
	s, events := f.open()
	s.SetStatus(catalog.Warning, "warming up")
	started(t, s)
	if d := <-declared; d.GetStatus() != telfordv1.InstanceStatus_INSTANCE_STATUS_WARNING || d.GetStatusMessage() != "warming up" {
		t.Errorf("declared %v", d)
	}
	s.SetStatus(catalog.Suspended, "pause")
	if v := <-statuses; v.GetStatus() != telfordv1.InstanceStatus_INSTANCE_STATUS_SUSPENDED || v.GetMessage() != "pause" {
		t.Errorf("said %v", v)
	}
	f.last().link.NetConn().Close()
	expect(t, events, "reconnecting")
	if v := <-statuses; v.GetStatus() != telfordv1.InstanceStatus_INSTANCE_STATUS_SUSPENDED {
		t.Errorf("after the cut it said %v", v)
	}
}

func TestRefusedDeclaration(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.answer = func(c *fakeConn, m *telfordv1.ClientMessage) {
		if m.GetRegister() != nil {
			c.say(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Registered{Registered: &telfordv1.Registered{
				Refused: &telfordv1.Status{Code: string(errs.InvalidArgument), Message: "too many tags"},
			}}})
			return
		}
		f.agree(c, m)
	}
	s, _ := f.open()
	if err := s.Start(t.Context()); errs.CodeOf(err) != errs.InvalidArgument {
		t.Errorf("got %v", err)
	}
}
