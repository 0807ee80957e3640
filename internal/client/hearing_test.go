package client

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"testing"
	"time"

	"pgregory.net/rapid"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/internal/message"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

type listener struct {
	*clock.Manual
	hearing
	said []string
}

func newListener(limit time.Duration) *listener {
	l := &listener{Manual: clock.NewManual(noon)}
	l.hearing = hearing{clock: l.Manual, limit: limit, told: func(deaf bool, since time.Time, cause error) {
		l.said = append(l.said, fmt.Sprintf("%s deaf=%v since %s: %v", l.Now().Sub(noon), deaf, since.Sub(noon), cause))
	}}
	return l
}

func TestHearing(t *testing.T) {
	t.Parallel()
	l := newListener(5 * time.Minute)
	l.begin()
	l.begin()
	l.Advance(4 * time.Minute)
	l.progress(30 * time.Second)
	for range 10 {
		l.Advance(4 * time.Minute)
		l.progress(30 * time.Second)
	}
	away := errs.New(errs.Unavailable, "away")
	l.lost(away)
	l.Advance(5*time.Minute - time.Second)
	if len(l.said) != 0 {
		t.Fatalf("said %v", l.said)
	}
	l.Advance(time.Second)
	l.Advance(time.Hour)
	if deaf, since, cause := l.state(); !deaf || !since.Equal(noon.Add(44*time.Minute)) || !errors.Is(cause, away) {
		t.Fatalf("%v %v %v", deaf, since, cause)
	}
	l.connected() // alone is nothing
	l.Advance(time.Minute)
	l.progress(30 * time.Second)
	l.progress(30 * time.Second)
	l.Advance(4 * time.Minute)
	want := []string{"49m0s deaf=true since 44m0s: unavailable: away", "1h50m0s deaf=false since 1h50m0s: <nil>"}
	if fmt.Sprint(l.said) != fmt.Sprint(want) {
		t.Fatalf("said %q", l.said)
	}
	l.stop()
	l.Advance(time.Hour)
	l.progress(30 * time.Second)
	if len(l.said) != 2 || l.Pending() != 0 {
		t.Fatalf("after the end: %q, %d timers", l.said, l.Pending())
	}
}

func TestHearingThatNeverTurnsDeaf(t *testing.T) {
	t.Parallel()
	l := newListener(0)
	l.begin()
	l.Advance(24 * time.Hour)
	l.progress(30 * time.Second)
	l.stop()
	if len(l.said) != 0 || l.Pending() != 0 {
		t.Fatalf("said %q, %d timers", l.said, l.Pending())
	}
}

// TestConnectionsThatTurnOutDeafAreNoProgress: each looks good at first.
func TestConnectionsThatTurnOutDeafAreNoProgress(t *testing.T) {
	t.Parallel()
	l := newListener(5 * time.Minute)
	l.begin()
	verdict := errs.New(errs.Unavailable, "takes no commands").With(errs.MetaReason, errs.ReasonDeaf)
	for range 20 {
		l.connected()
		l.progress(30 * time.Second)
		l.Advance(10 * time.Second)
		l.progress(30 * time.Second)
		l.Advance(15 * time.Second)
		l.lost(verdict)
	}
	if deaf, since, _ := l.state(); !deaf || !since.Equal(noon.Add(10*time.Second)) || len(l.said) != 1 {
		t.Fatalf("deaf %v, since %v: %q", deaf, since, l.said)
	}
	l.connected()
	for range 4 {
		l.progress(30 * time.Second)
		l.Advance(10 * time.Second)
	}
	if deaf, _, _ := l.state(); deaf || len(l.said) != 2 {
		t.Fatalf("still deaf: %q", l.said)
	}
}

// TestHearingTellsTheTruth: it is deaf when, and only when, there was no progress for as
// long as the limit.
func TestHearingTellsTheTruth(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		const limit = time.Minute
		l := newListener(limit)
		l.begin()
		last := noon
		for range rapid.IntRange(1, 60).Draw(t, "steps") {
			l.Advance(time.Duration(rapid.IntRange(0, 40).Draw(t, "seconds")) * time.Second)
			if rapid.IntRange(0, 2).Draw(t, "what") == 0 {
				l.progress(30 * time.Second)
				last = l.Now()
			}
			if deaf, since, _ := l.state(); deaf != (l.Now().Sub(last) >= limit) || !since.Equal(last) {
				t.Fatalf("deaf %v since %v, last progress %v ago", deaf, since.Sub(noon), l.Now().Sub(last))
			}
		}
	})
}

func TestTurnsDeafWhileTheRuntimeIsAway(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	var away atomic.Bool
	f.refuse = func() *errs.Error {
		if away.Load() {
			return errs.New(errs.Unavailable, "stopping")
		}
		return nil
	}
	turned := make(chan bool, 10)
	s, _ := f.open(func(o *Options) {
		o.DeafAfter = 700 * time.Millisecond
		o.Events.Deaf = func(deaf bool, _ time.Time, _ error) { turned <- deaf }
	})
	started(t, s)
	if deaf, _, _ := s.Deaf(); deaf {
		t.Fatal("deaf at once")
	}
	changed := s.Changed()
	away.Store(true)
	f.last().link.NetConn().Close()
	if !<-turned {
		t.Fatal("hears although the runtime is away")
	}
	<-changed
	if deaf, _, cause := s.Deaf(); !deaf || errs.CodeOf(cause) != errs.Unavailable || !s.Available() {
		t.Fatalf("deaf %v, %v", deaf, cause)
	}
	away.Store(false)
	if <-turned {
		t.Fatal("deaf twice")
	}
}

// stuck takes calls and never answers.
type stuck struct{}

func (stuck) HandleCall(ctx context.Context, _ *message.Call) *message.Reply {
	<-ctx.Done()
	return &message.Reply{Err: errs.From(ctx.Err())}
}

func (stuck) HandleStream(ctx context.Context, _ *message.Call, _ message.Sender) *message.Reply {
	<-ctx.Done()
	return &message.Reply{Err: errs.From(ctx.Err())}
}

// TestTurnsDeafAlthoughPingsAreAnswered: the runtime accepts connections and
// registrations, answers pings, and takes no command.
func TestTurnsDeafAlthoughPingsAreAnswered(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	f.handler = stuck{}
	turned := make(chan bool, 10)
	s, events := f.open(func(o *Options) {
		o.DeafAfter = 2 * time.Second
		o.Events.Deaf = func(deaf bool, _ time.Time, _ error) { turned <- deaf }
	})
	started(t, s)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for range 3 {
		go func() { _, _ = s.Call(ctx, &message.Call{Service: "other", Method: "m"}) }()
	}
	expect(t, events, "reconnecting") // the connection is given up
	if !<-turned {
		t.Fatal("hears although no command is taken")
	}
}

// TestAskedToComeBack: who is told so in place of a handshake comes back after that, and
// has used up no attempt.
func TestAskedToComeBack(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			nc, err := l.Accept()
			if err != nil {
				return
			}
			_ = link.Busy(nc, 0)
		}
	}()
	t.Cleanup(func() {
		_ = l.Close()
		<-done
	})
	var dials atomic.Int32
	s, events := f.open(func(o *Options) {
		o.Backoff.Attempts = 1
		o.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			if dials.Add(1) <= 2 {
				addr = l.Addr().String()
			}
			return (&net.Dialer{}).DialContext(ctx, "tcp", addr)
		}
	})
	started(t, s)
	if e := expect(t, events, "reconnecting"); errs.From(e.cause).RetryAfter == 0 {
		t.Fatalf("told %v", e.cause)
	}
	expect(t, events, "reconnecting")
	expect(t, events, "connected")
}

// TestConnectionThatEndsAtOnceIsNoSuccess: the pauses go on growing.
func TestConnectionThatEndsAtOnceIsNoSuccess(t *testing.T) {
	t.Parallel()
	f := newFake(t)
	var last atomic.Int64 // attempt
	f.answer = func(c *fakeConn, m *telfordv1.ClientMessage) {
		if last.Load() < 4 && m.GetRegister() != nil {
			c.link.Close(errs.New(errs.Unavailable, "full after all"))
			return
		}
		f.agree(c, m)
	}
	s, events := f.open(func(o *Options) {
		tell := o.Events.Reconnecting
		o.Events.Reconnecting = func(attempt int, cause error, delay time.Duration) {
			last.Store(int64(attempt))
			tell(attempt, cause, delay)
		}
	})
	started(t, s) // it would not, if each connection began anew to count
	f.last().link.NetConn().Close()
	for range 4 {
		expect(t, events, "reconnecting")
	}
	expect(t, events, "reconnecting")
	expect(t, events, "connected")
	if n := last.Load(); n != 1 {
		t.Fatalf("after a success it is attempt %d", n)
	}
}
