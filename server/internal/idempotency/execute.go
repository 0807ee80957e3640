package idempotency

import (
	"context"
	"errors"
	"slices"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/tx"
)

// execution is one run of the call of a flight, on a goroutine of its own.
type execution struct {
	keys   *Keys
	flight *flight
	call   *message.Call
	once   bool
	prev   *Record // replaced by the claim; nil where there was none
	rec    *Record // of the claim; nil before it
	lost   bool    // the claim was not to be had: another process has it

	// gone: the caller that leads has left. taken: the key is another's, and the flight
	// goes on without this execution; who is last of the two ends it. Guarded by Keys.mu.
	gone, taken bool
	done        chan struct{}
}

// execute runs the call of a flight with what is left of its time, also when ctx ends.
// It has ended with the flight, unless taken is set then.
func (k *Keys) execute(ctx context.Context, f *flight, prev *Record, call *message.Call, once bool, run Run) (*execution, *errs.Error) {
	if err := ctx.Err(); err != nil {
		return nil, f.id.about(errs.From(err).Unstarted())
	}
	k.mu.Lock()
	switch {
	case k.stopped:
		k.mu.Unlock()
		return nil, f.id.about(errs.New(errs.Unavailable, "the runtime is stopping and takes no calls with idempotency keys").Unstarted())
	case k.running >= k.cfg.MaxRunning:
		k.mu.Unlock()
		k.stats.refused.Add(1)
		return nil, f.id.about(errs.New(errs.ResourceExhausted, "%d calls with idempotency keys run in this runtime, and no more may: call again later", k.cfg.MaxRunning).Unstarted().After(time.Second))
	}
	k.running++
	k.mu.Unlock()
	own := *call
	own.Body, own.Headers, own.Chain = slices.Clone(call.Body), clonePairs(call.Headers), slices.Clone(call.Chain)
	x := &execution{keys: k, flight: f, call: &own, once: once, prev: prev, done: make(chan struct{})}
	go x.run(context.WithoutCancel(ctx), run) // it outlives the caller on purpose; Stop ends it
	return x, nil
}

// defaultTime is that of a call without a deadline.
const defaultTime = 30 * time.Second

func (x *execution) run(ctx context.Context, run Run) {
	k := x.keys
	if x.call.Deadline.IsZero() {
		x.call.Deadline = k.cfg.Local.Now().Add(defaultTime)
	}
	ctx, cancel := context.WithDeadline(ctx, x.call.Deadline)
	stop := context.AfterFunc(k.base, cancel) //nolint:contextcheck // the end of the Keys is another end
	reply, err := run(ctx, x.call, func(instance string, once bool) error { return x.claim(ctx, instance, once) })
	x.settle(ctx, reply, err)
	stop()
	cancel()
	k.mu.Lock()
	if k.running--; k.running == 0 && k.idle != nil {
		close(k.idle)
	}
	k.mu.Unlock()
	close(x.done)
}

// settle writes down what the call came to, and ends the flight.
func (x *execution) settle(ctx context.Context, reply *message.Reply, err error) {
	k, f := x.keys, x.flight
	a := &answer{reply: reply, err: errs.From(err)}
	if a.err == nil && a.reply == nil {
		a.reply = &message.Reply{}
	}
	if x.lost {
		x.yield()
		return
	}
	if x.rec == nil { // nobody was given the call, and nothing was written
		k.stats.released.Add(1)
		k.end(f, a, nil, nil, nil)
		return
	}
	next := *x.rec
	next.State = classify(a, !k.cfg.Local.Now().Before(x.call.Deadline))
	now := k.clock.Now()
	next.Updated, next.Expires = now, now.Add(k.cfg.Lifetime)
	var shared *answer
	var sharedErr *errs.Error
	switch next.State {
	case Answered:
		next.Answered, next.Size = now, int64(a.size())
		if e := a.failure(); e != nil {
			next.Code = string(e.Code)
		}
		if next.Size > int64(k.cfg.MaxAnswer) {
			next.State = TooLarge
			sharedErr = notKept(&next, k.cfg.MaxAnswer)
			break
		}
		next.Answer = a.marshal()
		shared = a
	case Released:
		k.stats.released.Add(1)
	case Open:
		k.stats.unknown.Add(1)
		if k.leaving.Load() {
			// This process has cut the call off, and the instance may still be at it: the
			// process that comes after waits for the instance, or for the deadline.
			k.end(f, a, nil, nil, nil)
			return
		}
	}
	switch werr := x.write(ctx, &next); {
	case errors.Is(werr, tx.ErrStale):
		k.cfg.Log.Warn("a call with an idempotency key ended after its claim had passed to another", "key", f.id.Key, "caller", f.id.Caller,
			"service", f.id.Callee, "method", f.id.Method, "instance", next.Instance, "state", next.State)
		x.yield()
	case werr == nil:
		k.end(f, a, nil, shared, sharedErr)
	case next.State == Answered || next.State == TooLarge:
		k.cfg.Log.Error("the answer to a call with an idempotency key could not be kept", "key", f.id.Key, "caller", f.id.Caller,
			"service", f.id.Callee, "method", f.id.Method, "instance", next.Instance, "error", werr)
		e := f.id.about(errs.New(errs.Unavailable, "%s: the call has run and its answer could not be kept, so that it is not given: %w", &f.id, werr))
		k.end(f, nil, e, nil, nil)
	default:
		k.cfg.Log.Warn("the claim of an idempotency key could not be given back; it is open again after its deadline", "key", f.id.Key, "caller", f.id.Caller,
			"service", f.id.Callee, "method", f.id.Method, "error", werr)
		k.end(f, a, nil, nil, nil)
	}
}

// abandon says that the caller that leads has left.
func (x *execution) abandon() {
	x.keys.mu.Lock()
	x.gone = true
	last := x.taken
	x.keys.mu.Unlock()
	if last {
		x.keys.end(x.flight, nil, nil, nil, nil)
	}
}

// yield leaves the flight to the caller that leads it, which looks at the record again.
func (x *execution) yield() {
	x.keys.mu.Lock()
	x.taken = true
	last := x.gone
	x.keys.mu.Unlock()
	if last {
		x.keys.end(x.flight, nil, nil, nil, nil)
	}
}

// classify says what an answer means for the key. late: the deadline has passed.
func classify(a *answer, late bool) State {
	e := a.failure()
	switch {
	case e == nil:
		return Answered
	case e.NotStarted:
		return Released
	case e.Code == errs.DeadlineExceeded || e.Code == errs.Canceled:
		return Open
	case e.Code == errs.Unavailable && a.err != nil:
		return Open // the way was lost; a handler that answers so has answered
	case e.Code == errs.Handler && late && errs.FromGRPC(e.GRPCCode) == errs.DeadlineExceeded:
		return Open // what a handler makes of the end of its context
	default:
		return Answered
	}
}
