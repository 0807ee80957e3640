package telford

import (
	"reflect"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/handlers"
)

// HandleOption describes a method in Handle, HandleStream and Configure.
type HandleOption interface{ applyHandle(o *handleSettings) }

// TimeoutOption is one that bounds a method in Handle and a call in Call.
type TimeoutOption interface {
	RPCOption
	HandleOption
}

// handleSettings is what the options of a method add up to.
type handleSettings struct {
	description *string
	timeout     time.Duration
	retryable   *bool
	callers     []string
	limit       limitSettings   // of the options that stand for themselves
	more        []limitSettings // of Limit
	bad         problems
}

type handleOption func(o *handleSettings)

func (f handleOption) applyHandle(o *handleSettings) { f(o) }

// Description says, for people, what the method does.
func Description(text string) HandleOption {
	return handleOption(func(o *handleSettings) { o.description = &text })
}

// Retryable says, given false, that the method must never be run a second time for one
// call, not even with an idempotency key. Calls that have the proof that nothing was begun
// are tried again all the same. The default is true.
func Retryable(ok bool) HandleOption {
	return handleOption(func(o *handleSettings) { o.retryable = &ok })
}

// Timeout bounds, in Call and Stream, the whole call with all its attempts, or the whole
// stream; a deadline of the context that comes earlier still holds. In Handle it bounds
// one run of the handler, whatever the caller would wait: the context of the handler
// ends, and the caller is told with deadline_exceeded that it was the method's own limit.
// Time in line does not count there.
func Timeout(d time.Duration) TimeoutOption {
	return timeoutOption{
		rpcOption: rpcOption{apply: func(o *callSettings) {
			if d <= 0 {
				o.fail("Timeout: %v is not positive", d)
				return
			}
			o.timeout = d
		}},
		handleOption: func(o *handleSettings) {
			if d <= 0 || d > catalog.MaxTimeout {
				o.bad.addf("Timeout: %v is not above 0 and at most %v", d, catalog.MaxTimeout)
				return
			}
			o.timeout = d
		},
	}
}

type timeoutOption struct {
	rpcOption
	handleOption
}

// apply puts the settings into a method whose request is of the given type; nil where
// that is not known.
func (o *handleSettings) apply(m *handlers.Method, request reflect.Type) error {
	if o.description != nil {
		m.Description = *o.description
	}
	if o.timeout > 0 {
		m.Timeout = o.timeout
	}
	if o.retryable != nil {
		m.NotRetryable = !*o.retryable
	}
	if o.callers != nil {
		m.AllowedCallers = o.callers
	}
	o.applyLimits(m, request)
	return o.bad.err("handle " + m.Name)
}

func (o *handleSettings) read(opts []HandleOption) {
	for _, opt := range opts {
		if opt == nil {
			o.bad.addf("an option is nil")
			continue
		}
		opt.applyHandle(o)
	}
}

// Configure gives options to methods that are registered already, which is how those of
// RegisterService get theirs: method is a full name, such as "shop.v1.Payments/Charge".
// Limits given replace those that the method had.
//
// It fails with method_not_found when there is no such method, with invalid_argument
// when an option is wrong, and with a StateError after Start.
func (s *Service) Configure(method string, opts ...HandleOption) error {
	if err := s.beforeStart("configure " + method); err != nil {
		return err
	}
	err := s.table.Update(method, func(m *handlers.Method) error {
		var o handleSettings
		o.read(opts)
		var request reflect.Type
		if m.Input != nil {
			request = reflect.TypeOf(m.Input.Zero().Interface()).Elem()
		}
		return o.apply(m, request)
	})
	if err != nil {
		return errs.From(err).In("sdk", "configure "+method)
	}
	return nil
}
