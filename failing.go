package telford

import (
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/resilience"
)

// RetryBudget bounds what retries add to the load of each service that is called: to
// this share of the calls of the last ten seconds, from 0 to 1, and three a second
// besides, so that one who calls seldom may retry too. The default is 0.1. A call whose
// retry is not in the budget fails with what it failed with, and "retry":
// "budget_exhausted" in its Meta. Offering a call to another instance counts only when
// the first one was too busy.
func RetryBudget(share float64) Option {
	return serviceOption(func(o *options, bad *problems) {
		if err := resilience.ValidateShare(share); err != nil {
			bad.addf("RetryBudget: %s", errs.From(err).Message)
			return
		}
		o.retryShare = &share
	})
}

// NoRetryBudget has each call retried as often as MaxAttempts allows, whatever that adds to
// the load of a service that is failing already.
func NoRetryBudget() Option {
	return serviceOption(func(o *options, _ *problems) {
		none := -1.0
		o.retryShare = &none
	})
}

// CircuitBreaker says when an instance is not called any more because its calls fail:
// when at least minCalls have ended in ten seconds and failure, a share above 0 and at
// most 1, of them failed. After open one call probes it; its success brings the instance
// back. While all instances of a service are cut off, they are probed after a second at
// the latest. The defaults are 10, 0.5 and 30 s.
//
// Failures are those of the way to the instance, its silence and its overload. What a
// handler answers is none.
func CircuitBreaker(minCalls int, failure float64, open time.Duration) Option {
	return serviceOption(func(o *options, bad *problems) {
		b := resilience.DefaultBreaking()
		b.Calls, b.Share, b.Open, b.Alone = minCalls, failure, open, min(b.Alone, open)
		if err := b.Validate(); err != nil {
			bad.addf("CircuitBreaker: %s", errs.From(err).Message)
			return
		}
		o.breaking = &b
	})
}

// NoCircuitBreaker has instances called however their calls end. Those that cannot be
// reached are still avoided.
func NoCircuitBreaker() Option {
	return serviceOption(func(o *options, _ *problems) { o.breaking = &resilience.Breaking{Off: true} })
}

// reportFailing tells the runtime that an instance is cut off here, so that others avoid
// it too.
func (s *Service) reportFailing(instance string) {
	s.mu.Lock()
	session := s.session
	s.mu.Unlock()
	if session != nil {
		session.ReportFailing(instance)
	}
}
