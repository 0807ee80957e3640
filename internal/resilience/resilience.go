// Package resilience owns the decisions about what to do after a call has failed: try
// it again, when, whether another instance may be picked at once, and which instances
// are left alone for a while because calls of them fail. They are functions of the
// failure, the counts, the time and the randomness that they are given, used by the SDK
// and by the runtime. It never waits, never calls, never asks for the time and starts no
// goroutines.
package resilience

import (
	"math"
	"time"

	"telford.dev/telford/internal/errs"
)

// Policy is a retry schedule.
type Policy struct {
	// MaxAttempts counts all tries, the first too; 1 turns retries off.
	MaxAttempts int
	// Base is the cap of the first delay before jitter, Factor what each further one is
	// multiplied by, Cap the most it grows to.
	Base   time.Duration
	Factor float64
	Cap    time.Duration
}

// Default is the schedule of calls that name none: 3 attempts in all, 200 ms doubling
// to 5 s.
func Default() Policy {
	return Policy{MaxAttempts: 3, Base: 200 * time.Millisecond, Factor: 2, Cap: 5 * time.Second}
}

// WithDefaults returns p with the default for each field that is zero.
func (p Policy) WithDefaults() Policy {
	d := Default()
	if p.MaxAttempts == 0 {
		p.MaxAttempts = d.MaxAttempts
	}
	if p.Base == 0 {
		p.Base = d.Base
	}
	if p.Factor == 0 {
		p.Factor = d.Factor
	}
	if p.Cap == 0 {
		p.Cap = d.Cap
	}
	return p
}

// Validate returns an invalid_argument error for a schedule that makes no sense.
func (p Policy) Validate() error {
	switch {
	case p.MaxAttempts < 1:
		return errs.New(errs.InvalidArgument, "max attempts is %d: it counts the first try, so it is at least 1", p.MaxAttempts)
	case p.Base < 0 || p.Cap < 0:
		return errs.New(errs.InvalidArgument, "retry delays of %v up to %v: they cannot be negative", p.Base, p.Cap)
	case p.Cap < p.Base:
		return errs.New(errs.InvalidArgument, "retry delays of %v up to %v: the cap cannot be below the first delay", p.Base, p.Cap)
	case !(p.Factor >= 1) || math.IsInf(p.Factor, 0):
		return errs.New(errs.InvalidArgument, "retry factor is %v: it must be a number of at least 1", p.Factor)
	}
	return nil
}

// Ceiling returns the longest delay after the given number of failed attempts, from 1.
func (p Policy) Ceiling(failed int) time.Duration {
	d := float64(p.Base) * math.Pow(p.Factor, float64(max(failed, 1)-1))
	if !(d < float64(p.Cap)) {
		return p.Cap
	}
	return time.Duration(d)
}

// Backoff returns the delay after the given number of failed attempts: full jitter,
// evenly between zero and the Ceiling. random is in [0, 1).
func (p Policy) Backoff(failed int, random float64) time.Duration {
	return time.Duration(random * float64(p.Ceiling(failed)))
}

// Failure is what is known after an attempt of a call has failed.
type Failure struct {
	Err *errs.Error
	// Attempts is the number of attempts made, this one too.
	Attempts int
	// Stream: a streaming call, which is never retried.
	Stream bool
	// Answered: a handler has answered, with Err. That is never retried.
	Answered bool
	// Keyed: the call has an idempotency key, so that it may be begun again where it is
	// unknown whether it was begun; NotRetryable: its method forbids that.
	Keyed, NotRetryable bool
	// Inner: the work that makes the call was itself tried again by somebody further up
	// the chain. It makes one attempt, lest the attempts multiply from hop to hop.
	Inner bool
	// Waiting: the caller wants to wait until somebody is there to begin the call, for as
	// long as its deadline allows.
	Waiting bool
	// Remaining is the time left for the whole logical call; HasDeadline tells whether
	// there is an end at all.
	Remaining   time.Duration
	HasDeadline bool
}

// Why says what a decision rests on.
type Why string

// The reasons.
const (
	NotProven   Why = "not_proven"    // a handler may have run
	NoRepeat    Why = "not_retryable" // the same, and although there is a key the method forbids it
	WasAnswered Why = "answered"      // a handler has run
	Final       Why = "final"         // the next try would be told the same, or the other end forbids it
	Streaming   Why = "streaming"
	IsInner     Why = "inner"        // somebody further up the chain tries again
	IsCut       Why = "breaker_open" // the breakers say when the next try makes sense, and that is not soon
	UsedUp      Why = "used_up"      // all attempts are made
	NoTime      Why = "no_time"      // the deadline comes before the next try
	Retryable   Why = "retry"        // try again after Delay
	Nothing     Why = "no_error"     // there is nothing to retry
)

// Decision is what to do after a failure.
type Decision struct {
	Retry bool
	Delay time.Duration
	Why   Why
	// Charged: the retry is paid for from the Budget of the callee. Those that cannot
	// load it are free: nobody was there, or the caller waits for somebody.
	Charged bool
}

// waitCap is the longest pause between two looks for an instance of a call that waits
// until one is there.
const waitCap = time.Second

// Decide says whether to try again, and after how long. Only a failure with the proof
// that no handler began is retried, or with an idempotency key one of which that is
// unknown; never a stream, an answer, or the end of the time. A delay that the other end
// asked for is the least that is waited; the deadline spans all attempts. random is in
// [0, 1).
func (p Policy) Decide(f Failure, random float64) Decision {
	waiting := f.Waiting && f.Err != nil && f.Err.NotStarted && !f.Answered
	if waiting {
		p.Cap = min(p.Cap, waitCap)
	}
	if why := p.refuse(&f, waiting); why != Retryable {
		return Decision{Why: why}
	}
	delay := p.Backoff(f.Attempts, random)
	if f.Err.RetryAfter > 0 {
		// The jitter stays on top, so that those who were all told the same moment do
		// not all come back in it.
		delay += f.Err.RetryAfter
	}
	if f.HasDeadline && delay >= f.Remaining {
		return Decision{Why: NoTime}
	}
	return Decision{Retry: true, Delay: delay, Why: Retryable, Charged: !waiting && f.Err.Code != errs.NoInstance}
}

// refuse returns why a failure is not retried whatever the time, or Retryable.
func (p Policy) refuse(f *Failure, waiting bool) Why {
	switch {
	case f.Err == nil:
		return Nothing
	case f.Stream && !waiting:
		return Streaming
	case f.Answered:
		return WasAnswered
	case !f.Err.NotStarted:
		switch {
		case !f.Keyed || f.Err.Code != errs.Unavailable && f.Err.Code != errs.Internal:
			return NotProven
		case f.NotRetryable:
			return NoRepeat
		case Forbids(f.Err):
			return Final
		}
	case !f.Err.Retryable || Forbids(f.Err):
		return Final
	}
	switch {
	case waiting:
		return Retryable
	case f.Inner:
		return IsInner
	case IsOpen(f.Err):
		return IsCut
	case f.Attempts >= p.MaxAttempts:
		return UsedUp
	}
	return Retryable
}

// MaxRepicks is how many instances one attempt is offered to at most.
const MaxRepicks = 8

// Repick reports whether a refused call may be given to another instance at once, which
// counts as no retry: no handler began, and the refusal says something about the
// instance rather than about the call.
func Repick(err *errs.Error) bool {
	if err == nil || !err.NotStarted {
		return false
	}
	switch err.Code {
	case errs.InvalidArgument, errs.PermissionDenied, errs.Unauthenticated, errs.DepthExceeded,
		errs.DeadlineExceeded, errs.Canceled, errs.AlreadyExists, errs.Conflict, errs.Terminal, errs.Handler:
		return false
	case errs.ResourceExhausted:
		return err.Retryable // else it is the call that is too large, not the instance too busy
	}
	return true
}

// RepickCharged reports whether giving a refused call to another instance is paid for
// from the Budget of the callee: when an instance was too busy the others may be too. One
// that goes away says so once, and is called no more.
func RepickCharged(err *errs.Error) bool { return err.Code == errs.ResourceExhausted }

// Exhausted returns the failure of a call whose next try the budget does not allow.
func Exhausted(err *errs.Error) *errs.Error { return err.With(MetaRetry, BudgetExhausted) }
