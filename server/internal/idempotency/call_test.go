package idempotency

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

func TestTheSecondCallGetsTheAnswerOfTheFirst(t *testing.T) {
	in(t, nil, func(t *testing.T, k *Keys, m *memory) {
		h := &handler{answer: func(context.Context, int64) (*message.Reply, error) {
			return &message.Reply{
				ContentType: message.Proto, Body: []byte("paid"),
				Headers: []message.Pair{{Key: "h", Value: []byte("1")}}, Trailers: []message.Pair{{Key: "t-bin", Value: []byte{0}}},
			}, nil
		}}
		first := k.do(t.Context(), keyed("k", "a"), h)
		second := k.do(t.Context(), keyed("k", "a"), h)
		wantBody(t, first, "paid")
		if d := cmp.Diff(first.reply, second.reply); d != "" || second.err != nil {
			t.Errorf("the answers differ: %v\n%s", second.err, d)
		}
		second.reply.Body[0] = 'X' // an answer belongs to who got it
		wantBody(t, k.do(t.Context(), keyed("k", "a"), h), "paid")
		wantRuns(t, h, 1)
		r, _ := m.get(idOf(keyed("k", "a")))
		if r.State != Answered || r.Instance != "in_1" || r.BusinessKey != "order-1" || r.Size != 4+2+6 || !r.Expires.Equal(time.Now().Add(24*time.Hour)) {
			t.Errorf("record %+v", r)
		}
		if s := k.Stats(); s.Claims != 1 || s.Replays != 2 || s.Records != 1 || s.Running != 0 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestScopesAreApart(t *testing.T) {
	in(t, nil, func(t *testing.T, k *Keys, _ *memory) {
		h := &handler{}
		for i, change := range []func(*message.Call){
			func(*message.Call) {},
			func(c *message.Call) { c.Caller.Service = "other" },
			func(c *message.Call) { c.Service = "other" },
			func(c *message.Call) { c.Method = "other" },
			func(c *message.Call) { c.IdempotencyKey = "other" },
		} {
			c := keyed("k", "a")
			change(c)
			wantBody(t, k.do(t.Context(), c, h), string(rune('1'+i)))
		}
		if _, err := k.Call(t.Context(), "elsewhere", keyed("k", "another body"), false, h.run); err != nil {
			t.Errorf("in another namespace: %v", err)
		}
		wantRuns(t, h, 6)
	})
}

func TestFailuresOfHandlersAreKept(t *testing.T) {
	in(t, nil, func(t *testing.T, k *Keys, m *memory) {
		fail := errs.New(errs.Handler, "no such card")
		fail.Details, fail.GRPCCode = [][]byte{{1, 2}}, 5
		for key, answer := range map[string]outcome{
			"handler":     {reply: &message.Reply{Err: fail}},
			"unavailable": {reply: &message.Reply{Err: errs.New(errs.Unavailable, "the bank is away").After(time.Second)}},
			"way":         {err: errs.New(errs.InvalidArgument, "the answer cannot be turned").With("a", "b")},
		} {
			h := &handler{answer: func(context.Context, int64) (*message.Reply, error) { return answer.reply, answer.err }}
			first, second := k.do(t.Context(), keyed(key, "a"), h), k.do(t.Context(), keyed(key, "a"), h)
			wantRuns(t, h, 1)
			if (first.err == nil) != (second.err == nil) || first.err != nil && !sameError(errs.From(first.err), errs.From(second.err)) {
				t.Errorf("%s: %v and then %v", key, first.err, second.err)
			}
			if first.reply != nil && !sameError(first.reply.Err, second.reply.Err) {
				t.Errorf("%s: %v and then %v", key, first.reply.Err, second.reply.Err)
			}
			if r, _ := m.get(idOf(keyed(key, "a"))); r.State != Answered || r.Code == "" {
				t.Errorf("%s: record %+v", key, r)
			}
		}
	})
}

func sameError(a, b *errs.Error) bool {
	x, y := *a, *b
	return cmp.Equal(*x.WithCause(nil), *y.WithCause(nil), cmp.AllowUnexported(errs.Error{}))
}

func TestCallsWithOneKeyAtOnceRunOnce(t *testing.T) {
	in(t, nil, func(t *testing.T, k *Keys, _ *memory) {
		let := make(chan struct{})
		h := &handler{answer: func(context.Context, int64) (*message.Reply, error) {
			<-let
			return &message.Reply{Body: []byte("paid")}, nil
		}}
		var all []<-chan outcome
		for range 100 {
			all = append(all, k.begin(t.Context(), keyed("k", "a"), h))
		}
		synctest.Wait()
		if s := k.Stats(); s.Running != 1 || s.Waiting != 99 {
			t.Errorf("stats %+v", s)
		}
		e := wantCode(t, k.do(t.Context(), keyed("k", "b"), h), errs.Conflict)
		if !errors.Is(e, &errs.Error{Code: errs.Conflict, Meta: map[string]string{"reason": "idempotency"}}) || !e.NotStarted {
			t.Errorf("the conflict %+v", e)
		}
		close(let)
		for _, c := range all {
			wantBody(t, <-c, "paid")
		}
		wantRuns(t, h, 1)
	})
}

func TestAnotherBody(t *testing.T) {
	in(t, nil, func(t *testing.T, k *Keys, _ *memory) {
		h := &handler{}
		wantBody(t, k.do(t.Context(), keyed("k", "a"), h), "1")
		e := wantCode(t, k.do(t.Context(), keyed("k", "b"), h), errs.Conflict)
		for _, says := range []string{`"k"`, `"default"`, `"shop"`, `"payments"`, `"pay"`} {
			if !strings.Contains(e.Message, says) {
				t.Errorf("%q does not name %s", e.Message, says)
			}
		}
		if e.Meta["reason"] != "idempotency" || e.Meta["key"] != "k" || e.Retryable {
			t.Errorf("%+v", e)
		}
		other := keyed("k", "a")
		other.ContentType = message.Proto
		wantCode(t, k.do(t.Context(), other, h), errs.Conflict)
		wantBody(t, k.do(t.Context(), keyed("k", "a"), h), "1")
		wantRuns(t, h, 1)
		if s := k.Stats(); s.Conflicts != 2 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestALargeAnswerIsNotKept(t *testing.T) {
	in(t, nil, func(t *testing.T, k *Keys, m *memory) {
		let := make(chan struct{})
		large := strings.Repeat("x", 64<<10+1)
		h := &handler{answer: func(context.Context, int64) (*message.Reply, error) {
			<-let
			return &message.Reply{Body: []byte(large)}, nil
		}}
		first := k.begin(t.Context(), keyed("k", "a"), h)
		synctest.Wait()
		second := k.begin(t.Context(), keyed("k", "a"), h)
		synctest.Wait()
		close(let)
		wantBody(t, <-first, large)
		for _, o := range []outcome{<-second, k.do(t.Context(), keyed("k", "a"), h)} {
			if e := wantCode(t, o, errs.AlreadyExists); !strings.Contains(e.Message, "not kept") || !strings.Contains(e.Message, "65537") {
				t.Errorf("%v", e)
			}
		}
		wantRuns(t, h, 1)
		if r, _ := m.get(idOf(keyed("k", "a"))); r.State != TooLarge || len(r.Answer) != 0 || r.Size != 64<<10+1 {
			t.Errorf("record %+v", r)
		}
		just := &handler{answer: func(context.Context, int64) (*message.Reply, error) {
			return &message.Reply{Body: []byte(large[1:])}, nil
		}}
		for range 2 {
			wantBody(t, k.do(t.Context(), keyed("just", "a"), just), large[1:])
		}
		wantRuns(t, just, 1)
	})
}

func TestWhatHasNotBegunRunsAgain(t *testing.T) {
	in(t, nil, func(t *testing.T, k *Keys, m *memory) {
		// Refused before anybody was picked: nothing is written.
		nobody := func(context.Context, *message.Call, func(string, bool) error) (*message.Reply, error) {
			return nil, errs.New(errs.NoInstance, "nobody").Unstarted()
		}
		if _, err := k.Call(t.Context(), "default", keyed("k", "a"), false, nobody); errs.CodeOf(err) != errs.NoInstance {
			t.Error(err)
		}
		if m.writes != 0 {
			t.Errorf("%d writes", m.writes)
		}
		// Refused by the instance.
		h := &handler{answer: func(_ context.Context, run int64) (*message.Reply, error) {
			if run == 1 {
				return nil, errs.New(errs.ResourceExhausted, "full").Unstarted()
			}
			return &message.Reply{Body: []byte("paid")}, nil
		}}
		wantCode(t, k.do(t.Context(), keyed("k", "a"), h), errs.ResourceExhausted)
		if r, _ := m.get(idOf(keyed("k", "a"))); r.State != Released {
			t.Errorf("record %+v", r)
		}
		wantBody(t, k.do(t.Context(), keyed("k", "another body"), h), "paid")
		wantBody(t, k.do(t.Context(), keyed("k", "another body"), h), "paid")
		wantRuns(t, h, 2)
	})
}

func TestAnUnknownOutcomeOpensTheKey(t *testing.T) {
	t.Parallel()
	for name, fail := range map[string]error{
		"the instance is lost":  errs.New(errs.Unavailable, "lost"),
		"the deadline has gone": errs.New(errs.DeadlineExceeded, "late"),
		"it was cancelled":      errs.New(errs.Canceled, "cancelled"),
	} {
		t.Run(name, func(t *testing.T) {
			in(t, nil, func(t *testing.T, k *Keys, m *memory) {
				let := make(chan struct{})
				h := &handler{answer: func(_ context.Context, run int64) (*message.Reply, error) {
					if run == 1 {
						<-let
						return nil, fail
					}
					return &message.Reply{Body: []byte("paid")}, nil
				}}
				first := k.begin(t.Context(), keyed("k", "a"), h)
				synctest.Wait()
				second := k.begin(t.Context(), keyed("k", "a"), h)
				synctest.Wait()
				close(let)
				wantCode(t, <-first, errs.CodeOf(fail))
				wantBody(t, <-second, "paid")
				wantBody(t, k.do(t.Context(), keyed("k", "a"), h), "paid")
				wantRuns(t, h, 2)
				wantCode(t, k.do(t.Context(), keyed("k", "b"), h), errs.Conflict)
				if s := k.Stats(); s.Unknown != 1 || s.Claims != 2 {
					t.Errorf("stats %+v", s)
				}
				if r, _ := m.get(idOf(keyed("k", "a"))); r.State != Answered || r.Revision != 4 {
					t.Errorf("record %+v", r)
				}
			})
		})
	}
}

func TestAMethodThatMustNotRunAgain(t *testing.T) {
	in(t, nil, func(t *testing.T, k *Keys, _ *memory) {
		h := &handler{once: true, answer: func(_ context.Context, run int64) (*message.Reply, error) {
			return nil, errs.New(errs.Unavailable, "lost")
		}}
		wantCode(t, k.do(t.Context(), keyed("k", "a"), h), errs.Unavailable)
		for range 2 {
			if e := wantCode(t, k.do(t.Context(), keyed("k", "a"), h), errs.FailedPrecondition); !strings.Contains(e.Message, "unknown") {
				t.Error(e)
			}
		}
		wantRuns(t, h, 1)
		// The record remembers it, also where the method is not known any more.
		wantCode(t, k.do(t.Context(), keyed("k", "a"), &handler{}), errs.FailedPrecondition)
		refused := &handler{once: true, answer: func(_ context.Context, run int64) (*message.Reply, error) {
			if run == 1 {
				return nil, errs.New(errs.ResourceExhausted, "full").Unstarted()
			}
			return &message.Reply{Body: []byte("paid")}, nil
		}}
		wantCode(t, k.do(t.Context(), keyed("refused", "a"), refused), errs.ResourceExhausted)
		wantBody(t, k.do(t.Context(), keyed("refused", "a"), refused), "paid")
		pass(25 * time.Hour) // the key has expired
		wantCode(t, k.do(t.Context(), keyed("k", "a"), h), errs.Unavailable)
		wantRuns(t, h, 2)
	})
}

func TestACallerThatLeavesDoesNotEndTheCall(t *testing.T) {
	in(t, nil, func(t *testing.T, k *Keys, _ *memory) {
		let := make(chan struct{})
		var seen *message.Call
		run := func(ctx context.Context, call *message.Call, claim func(string, bool) error) (*message.Reply, error) {
			if err := claim("in_1", false); err != nil {
				return nil, err
			}
			seen = call
			select {
			case <-let:
				return &message.Reply{Body: call.Body}, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		call := keyed("k", "a")
		ctx, cancel := context.WithCancel(t.Context())
		first := make(chan error)
		go func() {
			_, err := k.Call(ctx, "default", call, false, run)
			first <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-first; errs.CodeOf(err) != errs.Canceled {
			t.Errorf("who left got %v", err)
		}
		call.Body[0] = 'X' // what was the caller's may be used for something else
		second := k.begin(t.Context(), keyed("k", "a"), &handler{})
		synctest.Wait()
		close(let)
		wantBody(t, <-second, "a")
		if seen.RequestID != "r" {
			t.Errorf("the call %+v", seen)
		}
	})
}

func TestTheDeadlineEndsTheCall(t *testing.T) {
	in(t, nil, func(t *testing.T, k *Keys, _ *memory) {
		h := &handler{answer: func(ctx context.Context, run int64) (*message.Reply, error) {
			if run == 2 {
				return &message.Reply{Body: []byte("paid")}, nil
			}
			<-ctx.Done()
			return &message.Reply{Err: errs.From(ctx.Err())}, nil
		}}
		call := keyed("k", "a")
		call.Deadline = time.Now().Add(time.Second)
		first := k.begin(t.Context(), call, h)
		synctest.Wait()
		second := k.begin(t.Context(), keyed("k", "a"), h)
		short := keyed("k", "a")
		short.Deadline = time.Now().Add(time.Second / 2)
		wantCode(t, k.do(t.Context(), short, h), errs.DeadlineExceeded)
		o := <-first
		if o.err == nil && o.reply.Err == nil || o.err != nil && errs.CodeOf(o.err) != errs.DeadlineExceeded {
			t.Errorf("%+v", o)
		}
		wantBody(t, <-second, "paid")
		wantRuns(t, h, 2)
	})
}

func TestBounds(t *testing.T) {
	in(t, func(c *Config) { c.MaxRunning, c.MaxWaiting, c.MaxWaitingKey = 2, 2, 1 }, func(t *testing.T, k *Keys, _ *memory) {
		let := make(chan struct{})
		h := &handler{answer: func(context.Context, int64) (*message.Reply, error) {
			<-let
			return &message.Reply{}, nil
		}}
		var all []<-chan outcome
		for _, key := range []string{"a", "b", "a", "b"} {
			all = append(all, k.begin(t.Context(), keyed(key, ""), h))
			synctest.Wait()
		}
		for _, key := range []string{"a", "c"} {
			e := wantCode(t, k.do(t.Context(), keyed(key, ""), h), errs.ResourceExhausted)
			if !e.NotStarted || !e.Retryable || e.RetryAfter == 0 {
				t.Errorf("%+v", e)
			}
		}
		close(let)
		for _, c := range all {
			wantBody(t, <-c, "")
		}
		wantBody(t, k.do(t.Context(), keyed("c", ""), h), "")
		wantRuns(t, h, 3)
	})
}
