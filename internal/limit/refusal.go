package limit

import (
	"context"
	"fmt"
	"strconv"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
)

// Reason is why a call was not let in.
type Reason int

// The reasons.
const (
	// Rate: too many have begun of late.
	Rate Reason = iota + 1
	// Full: as many run and wait as may.
	Full
	// Late: the call waited until shortly before its deadline.
	Late
	// Canceled: its context ended while it waited.
	Canceled
	// Stopped: the waiting of all was ended.
	Stopped
)

// Refusal says why a limit did not let a call in, which did not begin.
type Refusal struct {
	Reason Reason
	// Limit and Key are the limit and the value that was counted; a Gate that belongs to
	// no Limiter sets neither.
	Limit catalog.Limit
	Key   string
	// Running and Queued are those who ran and waited under the same key.
	Running, Queued int
	// Place is where in line the call was when it gave up; 1 would have been next.
	Place int
	// After is when another try may succeed: known for a rate, an estimate for a line.
	After time.Duration

	cause error
}

// Err returns the refusal as an answer: resource_exhausted, or the end of the context.
// What names the subject of the limit, such as "method charge".
func (r *Refusal) Err(what string) *errs.Error {
	name := what
	if r.Limit.Key != "" {
		name += ", key " + r.Limit.Key + "=" + clip(r.Key)
	}
	e := errs.New(errs.ResourceExhausted, "%s: %s", name, r.text())
	if r.Reason == Canceled && r.cause != nil {
		e = errs.New(errs.From(r.cause).Code, "%s: %s", name, r.text()).WithCause(r.cause)
	}
	e.NotStarted, e.RetryAfter = true, r.After
	e.Meta = map[string]string{
		errs.MetaReason: errs.ReasonLimit, "limit": name,
		"running": strconv.Itoa(r.Running), "queued": strconv.Itoa(r.Queued),
	}
	if r.Place > 0 {
		e.Meta["place"] = strconv.Itoa(r.Place)
	}
	return e
}

func (r *Refusal) text() string {
	switch r.Reason {
	case Rate:
		return fmt.Sprintf("more calls than %s; come back in %v", RateText(r.Limit.Rate, r.Limit.Burst), r.After.Round(time.Millisecond))
	case Full:
		return fmt.Sprintf("%s, which is the limit; come back in about %v", r.crowd(), r.After.Round(time.Millisecond))
	case Late:
		return fmt.Sprintf("the call waited in line until shortly before its deadline and was at place %d: %s", r.Place, r.crowd())
	case Stopped:
		return "the waiting of all was ended"
	}
	what := "the call was given up"
	if errorsIsDeadline(r.cause) {
		what = "the deadline of the call came"
	}
	return fmt.Sprintf("%s while it waited in line at place %d: %s", what, r.Place, r.crowd())
}

func (r *Refusal) crowd() string {
	return fmt.Sprintf("%s and %s", verb(r.Running, "runs", "run"), verb(r.Queued, "waits", "wait"))
}

func verb(n int, one, many string) string {
	if n == 1 {
		return "1 call " + one
	}
	return strconv.Itoa(n) + " calls " + many
}

func errorsIsDeadline(err error) bool { return err == context.DeadlineExceeded } //nolint:errorlint // what ctx.Err returns

// RateText spells a rate out, such as "10 in a second with bursts of 20".
func RateText(rate float64, burst int) string {
	text := strconv.FormatFloat(rate, 'f', -1, 64) + " in a second"
	if burst > 0 {
		text += " with bursts of " + strconv.Itoa(burst)
	}
	return text
}
