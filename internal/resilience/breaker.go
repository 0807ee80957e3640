package resilience

import (
	"math"
	"time"

	"telford.dev/telford/internal/errs"
)

// Breaking says when the breaker of an instance opens, and for how long.
type Breaking struct {
	// Off: it never opens.
	Off bool
	// Calls is the least number of calls in WindowTime, and Share the share of them that
	// has to fail, from 0 to 1.
	Calls int
	Share float64
	// Open is how long an instance is left alone before one call probes it, give or
	// take a tenth.
	Open time.Duration
	// Alone is the same while every instance that could run a call is cut off: then
	// there is nobody who is spared by waiting longer. Up to half of it is added, so
	// that callers do not all probe at once.
	Alone time.Duration
}

// DefaultBreaking opens when at least 10 calls in 10 s have ended and half of them
// failed, for 30 s, or for 1 s where nobody else is left.
func DefaultBreaking() Breaking {
	return Breaking{Calls: 10, Share: 0.5, Open: 30 * time.Second, Alone: time.Second}
}

// Validate returns an invalid_argument error for numbers that make no sense.
func (b Breaking) Validate() error {
	switch {
	case b.Off:
		return nil
	case b.Calls < 1:
		return errs.New(errs.InvalidArgument, "a breaker that judges by %d calls: it needs at least 1", b.Calls)
	case !(b.Share > 0 && b.Share <= 1) || math.IsNaN(b.Share):
		return errs.New(errs.InvalidArgument, "a share of failures of %v: it must be above 0 and at most 1", b.Share)
	case b.Open < time.Millisecond || b.Open > time.Hour:
		return errs.New(errs.InvalidArgument, "a breaker that stays open for %v: want 1ms to 1h", b.Open)
	case b.Alone < 0 || b.Alone > b.Open:
		return errs.New(errs.InvalidArgument, "a breaker that is probed after %v where nobody else is left: want at most the %v that it stays open", b.Alone, b.Open)
	}
	return nil
}

// forgetAfter is how long after its last event an open breaker counts as new, when
// nobody calls the instance.
const forgetAfter = 60 * time.Second

// Ticket is the right to probe an instance whose breaker is open. The zero Ticket is
// that of an ordinary call.
type Ticket uint32

// breaker is the open state of one instance. While it is closed, nothing in it is used.
// Whoever calls its methods holds the lock of the Health that it is part of.
type breaker struct {
	open        bool
	at          time.Duration // of the last event
	until       time.Duration // then it may be probed
	alone       time.Duration // then it may be probed when nobody else is left
	probe       Ticket        // out now; 0: none
	lastTicket  Ticket
	probeExpire time.Duration
}

// trip opens it, or opens it again.
func (b *breaker) trip(s *Breaking, now time.Duration, random float64) {
	b.open, b.probe, b.at = true, 0, now
	b.until = now + time.Duration(float64(s.Open)*(0.9+0.2*random))
	b.alone = min(b.until, now+time.Duration(float64(s.Alone)*(1+0.5*random)))
}

// next returns when the next probe may begin, for who has other instances to call and
// for who has none.
func (b *breaker) next(alone bool) time.Duration {
	at := b.until
	if alone {
		at = b.alone
	}
	if b.probe != 0 {
		at = max(at, b.probeExpire)
	}
	return at
}

// claim takes the probe, 0 when it is too early or somebody has it.
func (b *breaker) claim(s *Breaking, now time.Duration, alone bool) Ticket {
	if now < b.next(alone) {
		return 0
	}
	b.lastTicket++
	if b.lastTicket == 0 {
		b.lastTicket = 1
	}
	b.probe, b.at = b.lastTicket, now
	// A probe that is never heard of again must not keep the instance away for ever.
	b.probeExpire = now + s.Open
	return b.probe
}

// stale reports whether nobody has called for so long that nothing is known any more.
func (b *breaker) stale(now time.Duration) bool {
	return now-max(b.at, b.until) >= forgetAfter && (b.probe == 0 || now >= b.probeExpire)
}
