package client

import (
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/rulespb"
)

func TestStartWaitsForRules(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.set(func() {
		f.answer = func(c *fakeConn, m *telfordv1.ClientMessage) {
			if m.GetHello() == nil {
				f.agree(c, m)
				return
			}
			c.say(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_HelloAck{HelloAck: &telfordv1.HelloAck{SessionId: "ses", RuntimeEpoch: 1}}})
		}
	})
	s, events := f.open()
	done := make(chan error, 1)
	go func() { done <- s.Start(t.Context()) }()
	expect(t, events, "connected")
	within(t, func() bool { return s.opt.View.Covers("other") })
	select {
	case err := <-done:
		t.Fatalf("ready without rules: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	f.rule(f.last(), &telfordv1.Rules{})
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func TestLaterRulesHold(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	got := make(chan uint64, 100)
	s, events := f.open(func(o *Options) { o.Rules = func(r *rulespb.Rules) { got <- r.Revision } })
	started(t, s)
	if r := <-got; r != 1 {
		t.Fatalf("first revision %d", r)
	}
	c := f.last()
	for _, r := range []uint64{5, 4, 5, 6} {
		f.rule(c, &telfordv1.Rules{Revision: r, Warnings: []*telfordv1.Warning{{Declaration: "rpc.call", Value: "a/b", Side: "self_egress"}}})
	}
	expect(t, events, "violations a/b")
	for _, want := range []uint64{5, 5, 6} {
		if r := <-got; r != want {
			t.Errorf("revision %d, want %d", r, want)
		}
	}
	// Another process of the runtime counts for itself, and a connection that is being
	// replaced has nothing to say any more.
	old := &port{s: s, dial: 1, epoch: 1}
	next := &port{s: s, dial: 2, epoch: 2}
	next.ruled(&telfordv1.Rules{Revision: 2})
	old.ruled(&telfordv1.Rules{Revision: 9})
	next.ruled(&telfordv1.Rules{Revision: 3})
	for _, want := range []uint64{2, 3} {
		if r := <-got; r != want {
			t.Errorf("revision %d, want %d", r, want)
		}
	}
}

func TestForbiddenDeclarationsEndTheStart(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.set(func() {
		f.answer = func(c *fakeConn, m *telfordv1.ClientMessage) {
			if m.GetRegister() == nil {
				f.agree(c, m)
				return
			}
			c.say(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Registered{Registered: &telfordv1.Registered{Warnings: []*telfordv1.Warning{
				{Declaration: "tags", Value: "x", Side: "declaration", Reason: "given twice"},
				{Declaration: "rpc.call", Value: "payments/Refund", Side: "self_egress", Reason: "no rule allows it"},
				{Declaration: "event.publish", Value: "a", Side: "self_egress", Reason: "no rule allows it"},
			}}}})
		}
	})
	s, events := f.open(func(o *Options) { o.FailOnViolation = true })
	err := s.Start(t.Context())
	e := errs.From(err)
	if e == nil || e.Code != errs.PermissionDenied || e.Message != "policy: rpc.call payments/Refund: no rule allows it; and 1 more" || e.Meta["side"] != "self_egress" {
		t.Errorf("got %+v", e)
	}
	expect(t, events, "disconnected policy: rpc.call payments/Refund")
	f.mu.Lock()
	byes := slices.Clone(f.byes)
	f.mu.Unlock()
	if len(byes) != 1 || byes[0].GetDraining() {
		t.Errorf("said %v", byes)
	}
	// By default they are put up with, and so is what is no matter of policy.
	s, events = f.open()
	started(t, s)
	expect(t, events, "warnings")
	f.set(func() { f.answer = f.agree })
	s, _ = f.open(func(o *Options) { o.FailOnViolation = true })
	started(t, s)
}

// denials are those of a test.
type denials struct {
	mu   sync.Mutex
	list []rulespb.Denial
}

func (d *denials) Take() []rulespb.Denial {
	d.mu.Lock()
	defer d.mu.Unlock()
	list := d.list
	d.list = nil
	return list
}

func (d *denials) Return(list []rulespb.Denial) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.list = append(d.list, list...)
}

func TestReports(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	got := make(chan *telfordv1.Report, 100)
	f.set(func() {
		f.answer = func(c *fakeConn, m *telfordv1.ClientMessage) {
			if r := m.GetReport(); r != nil {
				got <- r
			}
			f.agree(c, m)
		}
	})
	next := func() *telfordv1.Report {
		t.Helper()
		select {
		case r := <-got:
			return r
		case <-time.After(30 * time.Second):
			t.Fatal("nothing was reported")
			return nil
		}
	}
	d := &denials{list: []rulespb.Denial{{Caller: "a", Count: 7}}}
	s, _ := f.open(func(o *Options) { o.Denials = d })
	started(t, s)
	s.ReportFailing("in_x")
	s.ReportFailing("in_x")
	if r := next(); !slices.Equal(r.GetFailing(), []string{"in_x"}) || len(r.GetDenials()) != 1 || r.GetDenials()[0].GetCount() != 7 {
		t.Errorf("reported %v", r)
	}
	d.Return([]rulespb.Denial{{Caller: "b"}})
	s.mu.Lock()
	p := s.current
	s.mu.Unlock()
	s.Close("over")
	if r := next(); len(r.GetFailing()) != 0 || len(r.GetDenials()) != 1 || r.GetDenials()[0].GetCaller() != "b" {
		t.Errorf("at the end %v was reported", r)
	}
	// What a connection that has ended cannot carry is kept.
	d.Return([]rulespb.Denial{{Caller: "c"}})
	s.report(p)
	if kept := d.Take(); len(kept) != 1 || kept[0].Caller != "c" {
		t.Errorf("kept %v", kept)
	}
	for i := range 2 * maxFailing {
		s.ReportFailing(strconv.Itoa(i))
	}
	if n := len(s.failing); n != maxFailing {
		t.Errorf("%d failing instances are kept", n)
	}
}

func TestReportsAreSpread(t *testing.T) {
	t.Parallel()
	least, most := time.Hour, time.Duration(0)
	for range 1000 {
		d := reportIn()
		least, most = min(least, d), max(most, d)
	}
	if least < 4*time.Second || most > 6*time.Second || most-least < time.Second {
		t.Errorf("between %v and %v", least, most)
	}
}
