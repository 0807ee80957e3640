// Package transport owns the operators' rules about the way of calls: directly or
// through the runtime, what is tried when that way fails, and how much time a call has
// that brings none. It decides from tables that it is given; it never calls, never
// waits and starts no goroutines.
package transport

import (
	"strings"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
)

// The modes of a rule, and Direct and Proxy also as fallbacks.
const (
	Auto   = "auto"   // directly where an instance can be reached, else through the runtime
	Direct = "direct" // only directly
	Proxy  = "proxy"  // only through the runtime
	None   = "none"   // as a fallback: nothing is tried after the way of the mode
)

// MaxTimeout is the longest time that a rule gives a call.
const MaxTimeout = 24 * time.Hour

// Rule says something about the calls of a method, of a service or of a namespace that
// do not say it themselves. Fields that are empty say nothing.
type Rule struct {
	ID string
	// Service is the callee; empty means every service.
	Service string
	// Method is the full name or its last segment; empty means every method.
	Method string
	// Mode is Auto, Direct or Proxy.
	Mode string
	// Fallback is what is tried when the way of the mode fails before anything was
	// begun: None, Direct or Proxy. It says nothing about a call in Auto, whose two ways
	// are all there are, but that None keeps such a call on the first way it takes.
	Fallback string
	// Timeout is the time of a call that has none of its own; 0 says nothing.
	Timeout time.Duration
}

// Validate returns an invalid_argument error that names what is wrong with the rule.
func (r *Rule) Validate() error {
	switch {
	case r.Service != "" && !catalog.ValidName(r.Service):
		return errs.New(errs.InvalidArgument, "service %q: want 1 to %d of a-z, 0-9, '.', '_' and '-', or nothing for every service", r.Service, catalog.MaxName)
	case r.Method != "" && r.Service == "":
		return errs.New(errs.InvalidArgument, "method %q without a service: name the service whose method it is", r.Method)
	case r.Method != "" && !catalog.ValidMethod(r.Method):
		return errs.New(errs.InvalidArgument, "method %q: want the full name or its last segment, of at most %d letters, digits, '.', '_', '-' and '/'", r.Method, catalog.MaxMethodName)
	case r.Mode != "" && !validMode(r.Mode):
		return errs.New(errs.InvalidArgument, "mode %q is none of %s, %s, %s", r.Mode, Auto, Direct, Proxy)
	case r.Fallback != "" && !validFallback(r.Fallback):
		return errs.New(errs.InvalidArgument, "fallback %q is none of %s, %s, %s", r.Fallback, None, Direct, Proxy)
	case r.Mode != "" && r.Mode == r.Fallback:
		return errs.New(errs.InvalidArgument, "mode and fallback are both %q: the fallback is the other way, or %s", r.Mode, None)
	case r.Timeout < 0 || r.Timeout > MaxTimeout:
		return errs.New(errs.InvalidArgument, "timeout %v is not between 0 and %v", r.Timeout, MaxTimeout)
	case r.Timeout > 0 && r.Timeout < time.Millisecond:
		return errs.New(errs.InvalidArgument, "timeout %v is below a millisecond: no call would come back in time", r.Timeout)
	case r.Mode == "" && r.Fallback == "" && r.Timeout == 0:
		return errs.New(errs.InvalidArgument, "the rule says nothing: give a mode, a fallback or a timeout")
	}
	return nil
}

func validMode(s string) bool     { return s == Auto || s == Direct || s == Proxy }
func validFallback(s string) bool { return s == None || s == Direct || s == Proxy }

// lastSegment returns the bare name of a method.
func lastSegment(method string) string { return method[strings.LastIndexByte(method, '/')+1:] }
