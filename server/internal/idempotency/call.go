package idempotency

import (
	"context"
	"encoding/hex"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
)

// Run runs a call; see router.KeyedRun. It obeys its context.
type Run = func(ctx context.Context, call *message.Call, claim func(instance string, once bool) error) (*message.Reply, error)

// Call returns the answer kept for the key of a call, or that of run, which is called at
// most once at a time for a key in its scope. The call names its service and method in
// full, its caller and its deadline. once says that the method must not run again where
// it may have run.
//
// A call whose key is in use waits, and gets the answer of the one that runs; when that
// ends without an answer, one of those that wait runs. run goes on when ctx ends, until
// the deadline of the call.
func (k *Keys) Call(ctx context.Context, namespace string, call *message.Call, once bool, run Run) (*message.Reply, error) {
	i := ID{Namespace: namespace, Caller: call.Caller.Service, Callee: call.Service, Method: call.Method, Key: call.IdempotencyKey}
	sum := hash(call)
	for {
		f, lead, err := k.join(i, sum)
		switch {
		case err != nil:
			return nil, err
		case lead:
			return result(k.lead(ctx, f, call, once, run))
		}
		a, again, err := k.follow(ctx, f)
		if !again {
			return result(a, err)
		}
	}
}

// result turns an answer into what callers of the Keys get.
func result(a *answer, err *errs.Error) (*message.Reply, error) {
	if err != nil {
		return nil, err
	}
	reply, err := a.clone()
	if err != nil {
		return nil, err
	}
	return reply, nil
}

// flight is the one call of a key that is under way in this process, from the look at its
// record to its answer.
type flight struct {
	id   ID
	hash [32]byte
	// waiting is how many others wait for it; guarded by Keys.mu.
	waiting int
	done    chan struct{} // closed at the end; what follows is set before

	// What the caller that leads gets.
	own    *answer
	ownErr *errs.Error
	// What those who wait get; neither: one of them is to run.
	shared    *answer
	sharedErr *errs.Error
}

// join finds the flight of a key, or makes it: lead says that the caller is to see to it.
func (k *Keys) join(i ID, sum [32]byte) (f *flight, lead bool, err *errs.Error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.stopped {
		k.stats.refused.Add(1)
		return nil, false, i.about(errs.New(errs.Unavailable, "the runtime is stopping and takes no calls with idempotency keys").Unstarted())
	}
	f = k.flights[i]
	if f == nil {
		f = &flight{id: i, hash: sum, done: make(chan struct{})}
		k.flights[i] = f
		return f, true, nil
	}
	if f.hash != sum {
		k.stats.conflicts.Add(1)
		return nil, false, conflict(&i, "a call with another body runs under it now")
	}
	if f.waiting >= k.cfg.MaxWaitingKey || k.waiting >= k.cfg.MaxWaiting {
		k.stats.refused.Add(1)
		return nil, false, i.about(errs.New(errs.ResourceExhausted, "%s: %d calls wait for the one that runs under it, and %d for all keys; %d and %d may: call again later",
			&i, f.waiting, k.waiting, k.cfg.MaxWaitingKey, k.cfg.MaxWaiting).Unstarted().After(time.Second))
	}
	f.waiting++
	k.waiting++
	return f, false, nil
}

// follow waits for the end of a flight. again says that it had no answer for others.
func (k *Keys) follow(ctx context.Context, f *flight) (a *answer, again bool, err *errs.Error) {
	defer func() {
		k.mu.Lock()
		f.waiting--
		k.waiting--
		k.mu.Unlock()
	}()
	select {
	case <-f.done:
	case <-ctx.Done():
		return nil, false, f.id.about(errs.New(errs.CodeOf(ctx.Err()), "%s: the call that runs under it had no answer in time for this one, which waited: %w", &f.id, ctx.Err()))
	}
	if f.sharedErr != nil {
		return nil, false, f.sharedErr
	}
	if f.shared == nil {
		return nil, true, nil
	}
	k.stats.replays.Add(1)
	return f.shared, false, nil
}

// end ends a flight: own is for the caller that leads it, shared for those who wait.
func (k *Keys) end(f *flight, own *answer, ownErr *errs.Error, shared *answer, sharedErr *errs.Error) {
	k.mu.Lock()
	delete(k.flights, f.id)
	k.mu.Unlock()
	f.own, f.ownErr, f.shared, f.sharedErr = own, ownErr, shared, sharedErr
	close(f.done)
}

// lead brings a flight to its end: by the record of the key, or by running the call.
func (k *Keys) lead(ctx context.Context, f *flight, call *message.Call, once bool, run Run) (*answer, *errs.Error) {
	for {
		prev, settled := k.ready(ctx, f, once)
		if settled {
			return f.own, f.ownErr
		}
		x, err := k.execute(ctx, f, prev, call, once, run)
		if err != nil {
			k.end(f, nil, err, nil, nil)
			return nil, err
		}
		select {
		case <-x.done:
			if x.taken {
				continue // another process was faster: look what it has come to
			}
			return f.own, f.ownErr
		case <-ctx.Done():
			x.abandon()
			return nil, left(&f.id, ctx.Err())
		}
	}
}

// left is the error of a caller that leaves before the answer.
func left(i *ID, err error) *errs.Error {
	e := errs.From(err)
	if e.Code == errs.Canceled {
		return i.about(errs.New(errs.Canceled, "%s: the caller left; the call goes on until its deadline, and its answer is kept: %w", i, err))
	}
	return i.about(errs.New(e.Code, "%s: there was no answer within the deadline, and what became of the call is unknown: %w", i, err))
}

// ready looks at the record of a key, and waits while another process runs its call,
// until the call may run. prev is the record to be replaced, nil where there is none.
// settled: the record says what the call came to, and the flight has ended.
func (k *Keys) ready(ctx context.Context, f *flight, once bool) (prev *Record, settled bool) {
	for wait := time.Duration(0); ; {
		r, v, err := k.look(ctx, &f.id, f.hash)
		switch {
		case err != nil:
			k.end(f, nil, err, nil, nil)
			return nil, true
		case v == mayRun && r != nil && r.State != Released && (once || r.Once) && !r.expired(k.clock.Now()):
			err := closed(r)
			k.end(f, nil, err, nil, err)
			return nil, true
		case v == mayRun:
			return r, false
		case v == hasAnswer:
			k.replay(f, r)
			return nil, true
		case v == otherBody:
			k.stats.conflicts.Add(1)
			err := conflict(&f.id, "it was used for a call with another body at "+instant(r.Claimed)+", request "+r.RequestID)
			k.end(f, nil, err, nil, err)
			return nil, true
		}
		if wait = pause(wait); !k.sleep(ctx, wait) {
			err := f.id.about(errs.New(errs.CodeOf(ctx.Err()), "%s: the call that runs under it, on instance %s, had no answer in time for this one, which waited", &f.id, r.Instance))
			if ctx.Err() == nil {
				err = f.id.about(errs.New(errs.Unavailable, "%s: the runtime is stopping; another call runs under it, on instance %s", &f.id, r.Instance))
			}
			k.end(f, nil, err, nil, nil)
			return nil, true
		}
	}
}

// The pauses between two looks at the record of a call that another process runs.
const (
	firstPause = 20 * time.Millisecond
	maxPause   = 500 * time.Millisecond
)

func pause(last time.Duration) time.Duration {
	return min(max(firstPause, last*3/2), maxPause)
}

// sleep waits for about d; false when ctx or the Keys end first.
func (k *Keys) sleep(ctx context.Context, d time.Duration) bool {
	t := k.clock.NewTimer(time.Duration(float64(d) * (0.75 + k.cfg.Rand()/2)))
	defer t.Stop()
	select {
	case <-t.C():
		return true
	case <-ctx.Done():
		return false
	case <-k.stopping:
		return false
	}
}

// replay ends a flight with what is kept.
func (k *Keys) replay(f *flight, r *Record) {
	if r.State == TooLarge {
		err := notKept(r, k.cfg.MaxAnswer)
		k.stats.replays.Add(1)
		k.end(f, nil, err, nil, err)
		return
	}
	a, err := unmarshal(r.Answer)
	if err != nil {
		e := r.about(errs.New(errs.Internal, "%s: %w; the call has run and does not run again before %s", &r.ID, err, instant(r.Expires)))
		k.end(f, nil, e, nil, e)
		return
	}
	k.stats.replays.Add(1)
	k.end(f, a, nil, a, nil)
}

// conflict is the answer to a key that was used for another body.
func conflict(i *ID, how string) *errs.Error {
	e := i.about(errs.New(errs.Conflict, "%s: %s; a key stands for one request: use a new key for another", i, how).Unstarted())
	return e.With(errs.MetaReason, errs.ReasonIdempotency)
}

// notKept is the answer to the later calls of a key whose answer was too large.
func notKept(r *Record, most int) *errs.Error {
	how := "succeeded"
	if r.Code != "" {
		how = "failed with code " + r.Code
	}
	return r.about(errs.New(errs.AlreadyExists, "%s: the call has run and %s at %s; its answer of %d bytes was not kept, because only answers of at most %d bytes are",
		&r.ID, how, instant(r.Answered), r.Size, most))
}

// closed is the answer to the later calls of a key whose outcome is unknown, where the
// method must not run again.
func closed(r *Record) *errs.Error {
	return r.about(errs.New(errs.FailedPrecondition, "%s: the outcome of the call that was given to instance %s at %s is unknown, and the method is declared as not to be run again: "+
		"find out what has happened; the key is closed until %s", &r.ID, r.Instance, instant(r.Claimed), instant(r.Expires)))
}

func instant(t time.Time) string { return t.UTC().Format(time.RFC3339) }

// traceOf is the trace of a call as it is stored.
func traceOf(call *message.Call) string {
	if !call.Trace.Valid() {
		return ""
	}
	return hex.EncodeToString(call.Trace.TraceID[:])
}
