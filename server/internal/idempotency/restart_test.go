package idempotency

import (
	"context"
	"errors"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/tx"
)

// orphan leaves the claim of a process that has died.
func orphan(m *memory, call *message.Call, deadline time.Duration) Record {
	sum := hash(call)
	now := time.Now()
	r := Record{
		ID: idOf(call), BodyHash: sum[:], Fence: 7, Owner: "proc_gone", Instance: "in_1", State: Running,
		Claimed: now, Deadline: now.Add(deadline), Expires: now.Add(deadline + 24*time.Hour), Revision: 1,
	}
	m.put(&r)
	return r
}

func TestAStoredAnswerSurvivesARestart(t *testing.T) {
	in(t, nil, func(t *testing.T, k *Keys, m *memory) {
		h := &handler{}
		wantBody(t, k.do(t.Context(), keyed("k", "a"), h), "1")
		stop(t, k)
		e := wantCode(t, k.do(t.Context(), keyed("k", "a"), h), errs.Unavailable)
		if !e.NotStarted {
			t.Errorf("%+v", e)
		}
		next := open(t, m, nil)
		defer stop(t, next)
		wantBody(t, next.do(t.Context(), keyed("k", "a"), h), "1")
		wantRuns(t, h, 1)
		if s := next.Stats(); s.Records != 1 || s.Replays != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}

func TestTheClaimOfADeadProcess(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		gone     time.Duration // when the instance goes; 0: never
		deadline time.Duration
		after    time.Duration // when the waiting call is to run, about
	}{
		"until its deadline":    {0, 20 * time.Second, 20 * time.Second},
		"until its instance go": {5 * time.Second, 20 * time.Second, 5 * time.Second},
		"at once":               {0, -time.Second, 0},
	} {
		t.Run(name, func(t *testing.T) {
			var gone atomic.Bool
			in(t, func(c *Config) {
				c.Alive = func(namespace, instance string) bool {
					if namespace != "default" || instance != "in_1" {
						t.Errorf("asked for %s/%s", namespace, instance)
					}
					return !gone.Load()
				}
			}, func(t *testing.T, k *Keys, m *memory) {
				orphan(m, keyed("k", "a"), c.deadline)
				h := &handler{}
				if c.gone > 0 {
					time.AfterFunc(c.gone, func() { gone.Store(true) })
				}
				start := time.Now()
				short := keyed("k", "a")
				short.Deadline = start.Add(time.Second)
				if c.after > 0 {
					wantCode(t, k.do(t.Context(), short, h), errs.DeadlineExceeded)
					wantCode(t, k.do(t.Context(), keyed("k", "b"), h), errs.Conflict)
				}
				wantBody(t, k.do(t.Context(), keyed("k", "a"), h), "1")
				if took := time.Since(start); took < c.after || took > c.after+time.Second {
					t.Errorf("it ran after %s, want %s", took, c.after)
				}
				wantRuns(t, h, 1)
			})
		})
	}
}

func TestTheClaimOfADeadProcessThatMustNotRunAgain(t *testing.T) {
	in(t, func(c *Config) { c.Alive = func(string, string) bool { return false } }, func(t *testing.T, k *Keys, m *memory) {
		orphan(m, keyed("k", "a"), time.Minute)
		h := &handler{once: true}
		wantCode(t, k.do(t.Context(), keyed("k", "a"), h), errs.FailedPrecondition)
		wantRuns(t, h, 0)
	})
}

// Two processes on one store.
func TestAnotherProcessRunsTheCall(t *testing.T) {
	shared := func(c *Config) { c.Exclusive, c.Alive = false, func(string, string) bool { return false } }
	in(t, shared, func(t *testing.T, k *Keys, m *memory) {
		other := open(t, m, shared)
		defer stop(t, other)
		let := make(chan struct{})
		h := &handler{answer: func(context.Context, int64) (*message.Reply, error) {
			<-let
			return &message.Reply{Body: []byte("paid")}, nil
		}}
		call := keyed("k", "a")
		call.Deadline = time.Now().Add(3 * time.Minute)
		first := k.begin(t.Context(), call, h)
		synctest.Wait()
		second := other.begin(t.Context(), call, h)
		pass(2 * time.Minute) // several leases
		wantCode(t, other.do(t.Context(), keyed("k", "b"), h), errs.Conflict)
		close(let)
		wantBody(t, <-first, "paid")
		wantBody(t, <-second, "paid")
		wantRuns(t, h, 1)
		stop(t, k)
		if _, n := m.sizes(); n != 0 {
			t.Errorf("%d leases", n)
		}
	})
}

func TestTheLeaseOfADeadProcessRunsOut(t *testing.T) {
	shared := func(c *Config) { c.Exclusive, c.Alive = false, func(string, string) bool { return false } }
	in(t, shared, func(t *testing.T, k *Keys, m *memory) {
		r := orphan(m, keyed("k", "a"), time.Hour)
		m.alive(r.Owner, 30*time.Second)
		h := &handler{}
		start := time.Now()
		wantBody(t, k.do(t.Context(), keyed("k", "a"), h), "1")
		if took := time.Since(start); took < 30*time.Second || took > 32*time.Second {
			t.Errorf("it ran after %s", took)
		}
		pass(2 * time.Hour)
		if _, n := m.sizes(); n != 0 {
			t.Errorf("%d leases are still there", n)
		}
	})
}

func TestALateFinisherChangesNothing(t *testing.T) {
	shared := func(c *Config) { c.Exclusive, c.Lease = false, time.Second }
	in(t, shared, func(t *testing.T, k *Keys, m *memory) {
		other := open(t, m, shared)
		defer stop(t, other)
		let := make(chan struct{})
		late := &handler{answer: func(context.Context, int64) (*message.Reply, error) {
			<-let // whatever its context says
			return &message.Reply{Body: []byte("late")}, nil
		}}
		call := keyed("k", "a")
		call.Deadline = time.Now().Add(time.Second)
		first := k.begin(t.Context(), call, late)
		h := &handler{}
		pass(3 * time.Second)
		wantBody(t, other.do(t.Context(), keyed("k", "a"), h), "1")
		close(let)
		if o := <-first; o.err == nil {
			t.Errorf("the late one answered %s", o.reply.Body)
		}
		synctest.Wait()
		wantBody(t, k.do(t.Context(), keyed("k", "a"), h), "1")
		wantBody(t, other.do(t.Context(), keyed("k", "a"), h), "1")
		wantRuns(t, h, 1)
	})
}

func TestALostRaceForTheClaim(t *testing.T) {
	in(t, nil, func(t *testing.T, k *Keys, m *memory) {
		answered := answer{reply: &message.Reply{Body: []byte("theirs")}}
		first := true
		m.setFail(func(after bool) error {
			if !after && first { // another process is faster between the look and the claim
				first = false
				call := keyed("k", "a")
				sum := hash(call)
				m.rows[idOf(call)] = Record{ID: idOf(call), BodyHash: sum[:], Fence: 9, State: Answered, Expires: time.Now().Add(time.Hour), Answer: answered.marshal()}
			}
			return nil
		})
		h := &handler{}
		wantBody(t, k.do(t.Context(), keyed("k", "a"), h), "theirs")
		wantRuns(t, h, 0)
	})
}

func TestStop(t *testing.T) {
	in(t, nil, func(t *testing.T, k *Keys, m *memory) {
		let := make(chan struct{})
		h := &handler{answer: func(ctx context.Context, _ int64) (*message.Reply, error) {
			select {
			case <-let:
				return &message.Reply{Body: []byte("paid")}, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}}
		patient := k.begin(t.Context(), keyed("k", "a"), h)
		synctest.Wait()
		stopped := make(chan error, 2)
		for range 2 {
			go func() { stopped <- k.Stop(context.Background()) }()
		}
		synctest.Wait()
		wantCode(t, k.do(t.Context(), keyed("other", "a"), h), errs.Unavailable)
		close(let)
		wantBody(t, <-patient, "paid")
		if err := errors.Join(<-stopped, <-stopped, k.Start(t.Context())); err != nil {
			t.Error(err)
		}

		// Without patience the call is cut, and its claim is left for who comes after.
		let = make(chan struct{})
		next := open(t, m, nil)
		cut := next.begin(t.Context(), keyed("cut", "a"), h)
		synctest.Wait()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if err := next.Stop(ctx); err != nil {
			t.Error(err)
		}
		wantCode(t, <-cut, errs.Canceled)
		if r, _ := m.get(idOf(keyed("cut", "a"))); r.State != Running {
			t.Errorf("record %+v", r)
		}
		third := open(t, m, nil)
		defer stop(t, third)
		close(let)
		start := time.Now()
		wantBody(t, third.do(t.Context(), keyed("cut", "a"), h), "paid")
		if took := time.Since(start); took < 50*time.Second {
			t.Errorf("it ran after %s, before the deadline of the call that was cut", took)
		}
	})
}

func TestStopBeforeStart(t *testing.T) {
	t.Parallel()
	m := newMemory()
	k, err := New(Config{DB: m, Storage: m})
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(k.Stop(t.Context()), k.Stop(t.Context()), k.Start(t.Context())); err != nil {
		t.Error(err)
	}
	for _, c := range []Config{{}, {DB: m}, {DB: m, Storage: m, Lifetime: time.Millisecond}} {
		if _, err := New(c); errs.CodeOf(err) != errs.InvalidArgument {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func TestFailuresOfTheStore(t *testing.T) {
	in(t, nil, func(t *testing.T, k *Keys, m *memory) {
		h := &handler{}
		// The claim cannot be written: nothing runs.
		for _, fail := range []error{tx.ErrBusy, tx.ErrFull, tx.ErrUnavailable} {
			m.setFail(func(bool) error { return fail })
			if e := wantCode(t, k.do(t.Context(), keyed("k", "a"), h), errs.Unavailable); !e.NotStarted {
				t.Errorf("%v: %+v", fail, e)
			}
		}
		wantRuns(t, h, 0)
		// The claim took effect although that was unknown.
		n := 0
		m.setFail(func(after bool) error {
			if n++; after && n == 2 {
				return tx.ErrOutcomeUnknown
			}
			return nil
		})
		wantBody(t, k.do(t.Context(), keyed("k", "a"), h), "1")
		// It did not.
		n = 0
		m.setFail(func(bool) error {
			if n++; n == 1 {
				return tx.ErrOutcomeUnknown
			}
			return nil
		})
		wantBody(t, k.do(t.Context(), keyed("k2", "a"), h), "2")
		// The answer is written in the end, and given only then.
		n = 0
		m.setFail(func(after bool) error {
			if n++; n >= 3 && n < 8 {
				return tx.ErrBusy
			}
			return nil
		})
		wantBody(t, k.do(t.Context(), keyed("k3", "a"), h), "3")
		m.setFail(nil)
		wantBody(t, k.do(t.Context(), keyed("k3", "a"), h), "3")
		// It never is: the caller is not given what would not be given again.
		n = 0
		m.setFail(func(after bool) error {
			if n++; n >= 3 {
				return tx.ErrFull
			}
			return nil
		})
		if e := wantCode(t, k.do(t.Context(), keyed("k4", "a"), h), errs.Unavailable); e.NotStarted || !strings.Contains(e.Message, "could not be kept") {
			t.Errorf("%+v", e)
		}
		m.setFail(nil)
		wantRuns(t, h, 4)
		wantBody(t, k.do(t.Context(), keyed("k4", "a"), h), "5") // after the deadline of the claim
	})
}

func TestExpiry(t *testing.T) {
	in(t, func(c *Config) { c.Lifetime = time.Hour }, func(t *testing.T, k *Keys, m *memory) {
		h := &handler{}
		wantBody(t, k.do(t.Context(), keyed("k", "a"), h), "1")
		pass(time.Hour - time.Second)
		wantBody(t, k.do(t.Context(), keyed("k", "a"), h), "1")
		pass(time.Second)
		wantBody(t, k.do(t.Context(), keyed("k", "another body"), h), "2")
		for i := range 2*sweepBatch + 1 {
			wantBody(t, k.do(t.Context(), keyed(strings.Repeat("x", 1+i%50)+string(rune('a'+i/50)), "a"), &handler{}), "1")
		}
		if s := k.Stats(); s.Records != 2*sweepBatch+2 {
			t.Errorf("stats %+v", s)
		}
		pass(time.Hour + 2*time.Minute)
		synctest.Wait()
		if s, n := k.Stats(), rows(m); s.Records != 0 || s.Expired != 2*sweepBatch+2 || n != 0 {
			t.Errorf("stats %+v, %d rows", s, n)
		}
	})
}

func rows(m *memory) int {
	n, _ := m.sizes()
	return n
}

func TestList(t *testing.T) {
	in(t, nil, func(t *testing.T, k *Keys, _ *memory) {
		h := &handler{}
		wantBody(t, k.do(t.Context(), keyed("k", "a"), h), "1")
		other := keyed("k", "a")
		other.Method = "refund"
		wantBody(t, k.do(t.Context(), other, h), "2")
		for _, f := range []Filter{{Key: "k"}, {Namespace: "default", BusinessKey: "order-1"}} {
			all, err := k.List(t.Context(), f)
			if err != nil || len(all) != 2 || all[0].Method != "pay" || all[1].Method != "refund" {
				t.Errorf("%+v: %v, %v", f, all, err)
			}
		}
		for _, f := range []Filter{{}, {Key: "a", BusinessKey: "b"}, {Key: "\n"}} {
			if _, err := k.List(t.Context(), f); errs.CodeOf(err) != errs.InvalidArgument {
				t.Errorf("%+v: %v", f, err)
			}
		}
		if all, err := k.List(t.Context(), Filter{Namespace: "elsewhere", Key: "k"}); err != nil || len(all) != 0 {
			t.Errorf("%v, %v", all, err)
		}
	})
}

func TestANamespaceTakesItsKeysAway(t *testing.T) {
	in(t, nil, func(t *testing.T, k *Keys, m *memory) {
		h := &handler{}
		wantBody(t, k.do(t.Context(), keyed("k", "a"), h), "1")
		for _, namespace := range []string{"other", "default"} {
			if err := m.Write(t.Context(), func(t2 tx.Tx) error { return k.RemoveNamespaceTx(t2, namespace) }); err != nil {
				t.Fatal(err)
			}
			if namespace == "other" {
				wantBody(t, k.do(t.Context(), keyed("k", "a"), h), "1")
			}
		}
		wantBody(t, k.do(t.Context(), keyed("k", "a"), h), "2")
		if s := k.Stats(); s.Records != 1 {
			t.Errorf("stats %+v", s)
		}
	})
}
