package invoke

import (
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/transport"
)

// said is what a table of rules says about a route, kept from call to call.
type said struct {
	table   *transport.Table
	mode    Mode
	timeout time.Duration
}

// SetTransports puts the operators' rules in force for calls that begin from now on; nil
// takes them away.
func (v *Invoker) SetTransports(t *transport.Table) { v.rules.Store(t) }

// rule returns what the rules say about a route; nil without rules.
func (v *Invoker) rule(r *Route) *said {
	t := v.rules.Load()
	if t == nil {
		return nil
	}
	if s := r.said.Load(); s != nil && s.table == t {
		return s
	}
	mode, fallback, timeout := t.Lookup(r.key.service, r.key.method)
	if known := r.known.Load(); known != nil && known.method != r.key.method {
		// The call names the method by its last segment and a rule may name it in full.
		mode, fallback, timeout = t.Lookup(r.key.service, known.method)
	}
	s := &said{table: t, mode: combine(mode, fallback), timeout: timeout}
	r.said.Store(s)
	return s
}

// combine returns the mode that a mode and a fallback of rules come to.
func combine(mode, fallback string) Mode {
	switch mode {
	case transport.Direct:
		if fallback == transport.Proxy {
			return Auto
		}
		return Direct
	case transport.Proxy:
		if fallback == transport.Direct {
			return proxyElseDirect
		}
		return Proxy
	}
	if fallback == transport.None {
		return eitherOnly
	}
	return Auto
}

// Timeout is the time that the rules give a unary call of a route that does not say
// itself how much it has; 0: they do not say.
func (v *Invoker) Timeout(r *Route) time.Duration {
	if s := v.rule(r); s != nil {
		return s.timeout
	}
	return 0
}

// begin settles which way a call goes and counts it.
func (v *Invoker) begin(r *Route, c *Call) error {
	c.plan = c.Mode
	if c.plan == Unsaid {
		c.plan = Auto
		if s := v.rule(r); s != nil {
			c.plan = s.mode
		}
	}
	if c.IdempotencyKey != "" {
		if c.Mode == Direct {
			return errs.New(errs.FailedPrecondition,
				"the call has the idempotency key %q and is to go directly to an instance, but only the runtime keeps answers by their keys: leave one of the two out", c.IdempotencyKey).Unstarted()
		}
		c.plan = Proxy
	}
	r.budget.Deposit()
	return nil
}
