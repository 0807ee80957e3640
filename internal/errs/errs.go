// Package errs owns the one error model of Telford: the codes, their meaning to a
// caller, and the record that carries them. Doors map it to their wires; nothing
// else invents codes. It starts no goroutines and imports nothing but the gRPC code
// numbers.
package errs

import (
	"context"
	"errors"
	"fmt"
	"time"

	"google.golang.org/grpc/codes"
)

// Code names a kind of failure. Codes are stable: they appear on every wire, in the
// CLI and in metrics.
type Code string

// The codes, the whole list.
const (
	InvalidArgument    Code = "invalid_argument"
	NotFound           Code = "not_found"
	ServiceNotFound    Code = "service_not_found"
	MethodNotFound     Code = "method_not_found"
	NoInstance         Code = "no_instance"
	AlreadyExists      Code = "already_exists"
	Conflict           Code = "conflict"
	PermissionDenied   Code = "permission_denied"
	Unauthenticated    Code = "unauthenticated"
	DeadlineExceeded   Code = "deadline_exceeded"
	Canceled           Code = "canceled"
	Unavailable        Code = "unavailable"
	ResourceExhausted  Code = "resource_exhausted"
	DepthExceeded      Code = "depth_exceeded"
	FailedPrecondition Code = "failed_precondition"
	Terminal           Code = "terminal"
	Handler            Code = "handler"
	Internal           Code = "internal"
)

// Severity tells an operator how much a failure matters.
type Severity string

// The severities.
const (
	Fatal     Severity = "fatal"     // nothing will work until somebody acts
	Retriable Severity = "retriable" // the same operation may succeed later
	Ignorable Severity = "ignorable" // expected in normal operation, such as a cancelled call
)

// Error is the record of one failure. Two Errors match under errors.Is when their
// codes are equal, the target has no message, operation or component, and every fact in
// the target's Meta is in the error's, so that sentinels match on both sides of every
// wire.
type Error struct {
	Code      Code
	Component string // the part that failed: "sdk", "link", "router", "identity", ...
	Operation string // what was being done: "call shop.v1.Payments/Charge"
	Message   string // what was wrong, with which value, and what to do
	Severity  Severity
	Retryable bool
	// NotStarted is the proof that no handler began the work, so that another
	// instance may be tried without doing it twice.
	NotStarted bool
	// RetryAfter is how long to wait before trying again; zero when unknown.
	RetryAfter time.Duration
	// GRPCCode is the canonical gRPC status code. For Code Handler it is the code
	// that the handler returned.
	GRPCCode codes.Code
	// Details are google.protobuf.Any messages, each marshalled, exactly as the
	// handler attached them to its status.
	Details [][]byte
	// Meta holds machine-readable facts: "service", "method", "rule", ...
	Meta map[string]string

	cause error
}

type traits struct {
	grpc      codes.Code
	severity  Severity
	retryable bool
}

var table = map[Code]traits{
	InvalidArgument:    {codes.InvalidArgument, Fatal, false},
	NotFound:           {codes.NotFound, Fatal, false},
	ServiceNotFound:    {codes.NotFound, Fatal, false},
	MethodNotFound:     {codes.Unimplemented, Fatal, false},
	NoInstance:         {codes.Unavailable, Retriable, true},
	AlreadyExists:      {codes.AlreadyExists, Fatal, false},
	Conflict:           {codes.Aborted, Fatal, false},
	PermissionDenied:   {codes.PermissionDenied, Fatal, false},
	Unauthenticated:    {codes.Unauthenticated, Fatal, false},
	DeadlineExceeded:   {codes.DeadlineExceeded, Retriable, false},
	Canceled:           {codes.Canceled, Ignorable, false},
	Unavailable:        {codes.Unavailable, Retriable, true},
	ResourceExhausted:  {codes.ResourceExhausted, Retriable, true},
	DepthExceeded:      {codes.FailedPrecondition, Fatal, false},
	FailedPrecondition: {codes.FailedPrecondition, Fatal, false},
	Terminal:           {codes.FailedPrecondition, Fatal, false},
	Handler:            {codes.Unknown, Fatal, false},
	Internal:           {codes.Internal, Fatal, false},
}

// Codes returns every code in a stable order.
func Codes() []Code {
	return []Code{
		InvalidArgument, NotFound, ServiceNotFound, MethodNotFound, NoInstance, AlreadyExists, Conflict,
		PermissionDenied, Unauthenticated, DeadlineExceeded, Canceled, Unavailable, ResourceExhausted,
		DepthExceeded, FailedPrecondition, Terminal, Handler, Internal,
	}
}

// MetaReason is the key in Meta that tells failures of one code apart, and the reasons.
// A reason is stable like a code.
const (
	MetaReason = "reason"
	// ReasonDeaf: the other end answers pings, and takes no commands.
	ReasonDeaf = "deaf"

	ReasonBreakerOpen = "breaker_open" // unavailable: every instance that could run the call is cut off by its breaker
	ReasonContract    = "contract"     // no_instance: nobody speaks the contract of the caller
	ReasonLimit       = "limit"        // resource_exhausted: a declared or configured limit
	ReasonIdempotency = "idempotency"  // conflict: the key was used for another request
)

// Known reports whether c is one of the codes of this package.
func (c Code) Known() bool { _, ok := table[c]; return ok }

// GRPC returns the canonical gRPC code of c.
func (c Code) GRPC() codes.Code {
	if t, ok := table[c]; ok {
		return t.grpc
	}
	return codes.Unknown
}

// Retryable reports whether failures of this code may be tried again unless they say
// otherwise.
func (c Code) Retryable() bool { return table[c].retryable }

// New returns an Error of the given code with a formatted message; %w wraps a cause.
func New(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	t, ok := table[code]
	if !ok {
		t = table[Internal]
	}
	return &Error{
		Code: code, Message: err.Error(), GRPCCode: t.grpc, Severity: t.severity, Retryable: t.retryable,
		cause: errors.Unwrap(err),
	}
}

// Error implements error: operation, code and message.
func (e *Error) Error() string {
	switch {
	case e.Operation != "" && e.Message != "":
		return e.Operation + ": " + string(e.Code) + ": " + e.Message
	case e.Message != "":
		return string(e.Code) + ": " + e.Message
	default:
		return string(e.Code)
	}
}

// Unwrap returns the cause, if there is one in this process.
func (e *Error) Unwrap() error { return e.cause }

// Is matches a bare Error of the same code, a bare Error with facts in Meta when e has
// the same facts, and the context errors for the two codes that mean the same.
func (e *Error) Is(target error) bool {
	switch target {
	case context.DeadlineExceeded:
		return e.Code == DeadlineExceeded
	case context.Canceled:
		return e.Code == Canceled
	}
	t, ok := target.(*Error)
	if !ok || t.Code != e.Code || t.Message != "" || t.Operation != "" || t.Component != "" {
		return false
	}
	for k, v := range t.Meta {
		if has, there := e.Meta[k]; !there || has != v {
			return false
		}
	}
	return true
}

// In returns a copy of e that names the component and the operation, where e does
// not name them itself.
func (e *Error) In(component, operation string) *Error {
	c := *e
	if c.Component == "" {
		c.Component = component
	}
	if c.Operation == "" {
		c.Operation = operation
	}
	return &c
}

// Unstarted returns a copy of e marked as proof that no handler began the work.
func (e *Error) Unstarted() *Error {
	c := *e
	c.NotStarted = true
	return &c
}

// After returns a copy of e that says when to come back.
func (e *Error) After(d time.Duration) *Error {
	c := *e
	c.RetryAfter = d
	return &c
}

// With returns a copy of e with one more fact in Meta.
func (e *Error) With(key, value string) *Error {
	c := *e
	c.Meta = make(map[string]string, len(e.Meta)+1)
	for k, v := range e.Meta {
		c.Meta[k] = v
	}
	c.Meta[key] = value
	return &c
}

// WithCause returns a copy of e that unwraps to cause.
func (e *Error) WithCause(cause error) *Error {
	c := *e
	c.cause = cause
	return &c
}

// From turns any error into the model: an Error in the chain as it is, the context
// errors by their meaning, everything else as Internal. From(nil) is nil.
func From(err error) *Error {
	if err == nil {
		return nil
	}
	var e *Error
	switch {
	case errors.As(err, &e):
		return e
	case errors.Is(err, context.DeadlineExceeded):
		return New(DeadlineExceeded, "%w", err)
	case errors.Is(err, context.Canceled):
		return New(Canceled, "%w", err)
	default:
		return New(Internal, "%w", err)
	}
}

// CodeOf returns the code of err, "" for nil.
func CodeOf(err error) Code {
	if err == nil {
		return ""
	}
	return From(err).Code
}

// FromGRPC returns the code of the model that stands for a bare gRPC code.
func FromGRPC(c codes.Code) Code {
	switch c {
	case codes.Canceled:
		return Canceled
	case codes.InvalidArgument, codes.OutOfRange:
		return InvalidArgument
	case codes.DeadlineExceeded:
		return DeadlineExceeded
	case codes.NotFound:
		return NotFound
	case codes.AlreadyExists:
		return AlreadyExists
	case codes.PermissionDenied:
		return PermissionDenied
	case codes.ResourceExhausted:
		return ResourceExhausted
	case codes.FailedPrecondition:
		return FailedPrecondition
	case codes.Aborted:
		return Conflict
	case codes.Unimplemented:
		return MethodNotFound
	case codes.Unavailable:
		return Unavailable
	case codes.Unauthenticated:
		return Unauthenticated
	default:
		return Internal
	}
}
