package resilience

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"telford.dev/telford/internal/errs"
)

// The facts that Meta holds about retries and outcomes.
const (
	// MetaRetry says why a failure was not tried again: BudgetExhausted or Never.
	MetaRetry       = "retry"
	BudgetExhausted = "budget_exhausted"
	Never           = "never" // whoever sent the failure forbids it
	// MetaOutcome is OutcomeUnknown on the failure of a path on which a handler may
	// have begun. The answer of a handler never carries it.
	MetaOutcome    = "outcome"
	OutcomeUnknown = "unknown"
)

// Verdict is what the end of an attempt says about the instance it went to.
type Verdict uint8

// The verdicts.
const (
	Neither   Verdict = iota // nothing: the caller gave up, or the fault was the call's
	Succeeded                // it has answered, be it with a failure of its handler
	Failed
)

// Judge returns what the failure of a path says about the instance at its end. Answers
// of handlers are no failures of a path and always Succeeded; they do not come here.
func Judge(err *errs.Error) Verdict {
	if err == nil {
		return Succeeded
	}
	switch err.Code {
	case errs.Unavailable, errs.Internal, errs.Conflict:
		return Failed
	case errs.DeadlineExceeded:
		if err.NotStarted {
			return Neither // the time was over before anybody was asked
		}
		return Failed
	case errs.ResourceExhausted:
		if !err.Retryable || err.Meta[errs.MetaReason] == errs.ReasonLimit {
			// The call is too large, or over what somebody allows its caller: the
			// instance does what it should.
			return Neither
		}
		return Failed
	}
	return Neither
}

// Unknown marks the failure of a path on which a handler may have begun, so that whoever
// gets it by another wire can tell it from a handler's own answer.
func Unknown(err *errs.Error) *errs.Error {
	if err == nil || err.NotStarted {
		return err
	}
	return err.With(MetaOutcome, OutcomeUnknown)
}

// IsUnknown reports whether Unknown has marked the failure.
func IsUnknown(err *errs.Error) bool { return err != nil && err.Meta[MetaOutcome] == OutcomeUnknown }

// Forbids reports whether whoever sent the failure wants no further try: it says so, or
// it took the retryable mark off a code that has it.
func Forbids(err *errs.Error) bool {
	return err.Meta[MetaRetry] == Never || !err.Retryable && err.Code.Retryable()
}

// Cut is an instance that its breaker has cut off, and how long until it is probed.
type Cut struct {
	Instance string
	Next     time.Duration
}

// Open returns the failure of a call whose every candidate is cut off: unavailable, not
// begun, with the instances and the time of the next probe.
func Open(service, method string, cut []Cut) *errs.Error {
	var next time.Duration
	names, shown := make([]string, 0, len(cut)), make([]string, 0, len(cut))
	for i, c := range cut {
		left := max(c.Next, time.Millisecond).Round(time.Millisecond)
		if i == 0 || left < next {
			next = left
		}
		names = append(names, c.Instance)
		shown = append(shown, fmt.Sprintf("%s (probed in %v)", c.Instance, left))
	}
	const most = 10
	if len(shown) > most {
		shown = append(shown[:most], fmt.Sprintf("and %d more", len(names)-most))
		names = names[:most]
	}
	err := errs.New(errs.Unavailable, "calls of %s are cut off by the breakers of all its instances that could run %s, because those were failing: %s",
		service, method, strings.Join(shown, ", ")).Unstarted().After(next)
	err.Meta = map[string]string{
		errs.MetaReason: errs.ReasonBreakerOpen, "service": service, "method": method,
		"instances": strings.Join(names, ","), "next_probe_ms": strconv.FormatInt(next.Milliseconds(), 10),
	}
	return err
}

// IsOpen reports whether the failure is one that Open has made.
func IsOpen(err *errs.Error) bool {
	return err != nil && err.Code == errs.Unavailable && err.Meta[errs.MetaReason] == errs.ReasonBreakerOpen
}
