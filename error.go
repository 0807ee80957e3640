package telford

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"google.golang.org/grpc/status"

	"telford.dev/telford/internal/errpb"
	"telford.dev/telford/internal/errs"
)

// Error is the record of one failure: code, component, operation, severity, whether it
// may be retried, and the canonical gRPC code. It unwraps to its cause where there is
// one in this process. errors.As finds it in every error of this package.
type Error = errs.Error

// Code names a kind of failure; codes are stable and the same on every wire.
type Code = errs.Code

// Severity tells how much a failure matters.
type Severity = errs.Severity

// The codes.
const (
	CodeInvalidArgument    = errs.InvalidArgument
	CodeNotFound           = errs.NotFound
	CodeServiceNotFound    = errs.ServiceNotFound
	CodeMethodNotFound     = errs.MethodNotFound
	CodeNoInstance         = errs.NoInstance
	CodeAlreadyExists      = errs.AlreadyExists
	CodeConflict           = errs.Conflict
	CodePermissionDenied   = errs.PermissionDenied
	CodeUnauthenticated    = errs.Unauthenticated
	CodeDeadlineExceeded   = errs.DeadlineExceeded
	CodeCanceled           = errs.Canceled
	CodeUnavailable        = errs.Unavailable
	CodeResourceExhausted  = errs.ResourceExhausted
	CodeDepthExceeded      = errs.DepthExceeded
	CodeFailedPrecondition = errs.FailedPrecondition
	CodeTerminal           = errs.Terminal
	CodeHandler            = errs.Handler
	CodeInternal           = errs.Internal
)

// The sentinels. errors.Is matches them with any error of their code, whichever end of
// whichever wire made it.
var (
	ErrInvalidArgument    error = &errs.Error{Code: errs.InvalidArgument}
	ErrNotFound           error = &errs.Error{Code: errs.NotFound}
	ErrServiceNotFound    error = &errs.Error{Code: errs.ServiceNotFound}
	ErrMethodNotFound     error = &errs.Error{Code: errs.MethodNotFound}
	ErrNoInstance         error = &errs.Error{Code: errs.NoInstance}
	ErrAlreadyExists      error = &errs.Error{Code: errs.AlreadyExists}
	ErrConflict           error = &errs.Error{Code: errs.Conflict}
	ErrPermissionDenied   error = &errs.Error{Code: errs.PermissionDenied}
	ErrUnauthenticated    error = &errs.Error{Code: errs.Unauthenticated}
	ErrDeadlineExceeded   error = &errs.Error{Code: errs.DeadlineExceeded}
	ErrCanceled           error = &errs.Error{Code: errs.Canceled}
	ErrUnavailable        error = &errs.Error{Code: errs.Unavailable}
	ErrResourceExhausted  error = &errs.Error{Code: errs.ResourceExhausted}
	ErrDepthExceeded      error = &errs.Error{Code: errs.DepthExceeded}
	ErrFailedPrecondition error = &errs.Error{Code: errs.FailedPrecondition}
	ErrTerminal           error = &errs.Error{Code: errs.Terminal}
	ErrHandler            error = &errs.Error{Code: errs.Handler}
	ErrInternal           error = &errs.Error{Code: errs.Internal}
)

// The sentinels of failures that are told from others of their code by a reason. An
// error that matches one of them also matches the sentinel of its code.
var (
	// ErrBreakerOpen: breakers have cut off every instance that could run the call. It
	// is ErrUnavailable, no handler has begun, and RetryAfter says when the next
	// instance is tried.
	ErrBreakerOpen error = reason(errs.Unavailable, errs.ReasonBreakerOpen)
	// ErrContract: no instance speaks the contract of the caller. It is ErrNoInstance.
	ErrContract error = reason(errs.NoInstance, errs.ReasonContract)
	// ErrLimit: a limit of the method, the instance or the namespace is reached. It is
	// ErrResourceExhausted.
	ErrLimit error = reason(errs.ResourceExhausted, errs.ReasonLimit)
	// ErrIdempotencyConflict: the idempotency key was used before, with another request.
	// It is ErrConflict.
	ErrIdempotencyConflict error = reason(errs.Conflict, errs.ReasonIdempotency)
)

func reason(code errs.Code, name string) *errs.Error {
	return &errs.Error{Code: code, Meta: map[string]string{errs.MetaReason: name}}
}

// Errorf returns an error of the given code for a handler to answer with; %w wraps a
// cause, which stays in this process. The caller gets the code and the message.
func Errorf(code Code, format string, args ...any) *Error {
	return errs.New(code, format, args...)
}

// AccessDeniedError says that the caller may not call the method. It unwraps to the
// Error, of code permission_denied.
type AccessDeniedError struct {
	Service, Method string
	// Reason says which rule or fact denied it.
	Reason string
	err    *Error
}

// Error implements error.
func (e *AccessDeniedError) Error() string { return e.err.Error() }

// Unwrap returns the Error.
func (e *AccessDeniedError) Unwrap() error { return e.err }

// StateError says that something was asked for at the wrong time of a service's life,
// such as adding a handler after Start. It unwraps to an Error of code
// failed_precondition.
type StateError struct {
	// Operation is what was asked for, State where the service stood: "new",
	// "starting", "running", "stopping" or "stopped".
	Operation, State string
	err              *Error
}

// Error implements error.
func (e *StateError) Error() string { return e.err.Error() }

// Unwrap returns the Error.
func (e *StateError) Unwrap() error { return e.err }

func stateError(operation string, state lifeState) error {
	advice := "it comes before Start"
	switch {
	case state == stateNew || state == stateStarting:
		advice = "wait for Start to return first"
	case state >= stateStopping:
		advice = "a service that was stopped is not used again; make a new one"
	}
	return &StateError{
		Operation: operation, State: state.String(),
		err: errs.New(errs.FailedPrecondition, "the service is %s: %s", state, advice).In("sdk", operation),
	}
}

// callError gives the failure of a call its public form.
func callError(err error, service, method string) error {
	e := errs.From(err)
	if e.Operation == "" || e.Component == "link" {
		c := *e
		c.Operation = "call " + service + "/" + method
		e = &c
	}
	if e.Code != errs.PermissionDenied {
		return e
	}
	denied := &AccessDeniedError{Service: service, Method: method, Reason: e.Message, err: e}
	if s := e.Meta["service"]; s != "" {
		denied.Service = s
	}
	if m := e.Meta["method"]; m != "" {
		denied.Method = m
	}
	return denied
}

// statusError is a failure as users of generated clients expect it: a gRPC status that
// unwraps to the error it was made from.
type statusError struct {
	err error
	e   *errs.Error
}

// Error implements error.
func (s *statusError) Error() string {
	return fmt.Sprintf("rpc error: code = %s desc = %s", s.e.GRPCCode, s.e.Message)
}

// Unwrap returns the error of Telford.
func (s *statusError) Unwrap() error { return s.err }

// GRPCStatus is what status.FromError looks for.
func (s *statusError) GRPCStatus() *status.Status { return errpb.ToGRPC(s.e) }

// asStatus gives an error the form of gRPC; what has it already stays as it is.
func asStatus(err error) error {
	if err == nil {
		return nil
	}
	var has interface{ GRPCStatus() *status.Status }
	if errors.As(err, &has) {
		return err
	}
	return &statusError{err: err, e: errs.From(err)}
}

// problems collects what is wrong, to be reported at once.
type problems struct{ list []string }

func (p *problems) addf(format string, args ...any) {
	p.list = append(p.list, fmt.Sprintf(format, args...))
}

func (p *problems) add(err error) {
	if err != nil {
		p.list = append(p.list, errs.From(err).Message)
	}
}

func (p *problems) err(operation string) error {
	switch len(p.list) {
	case 0:
		return nil
	case 1:
		return errs.New(errs.InvalidArgument, "%s", p.list[0]).In("sdk", operation)
	}
	list := slices.Clone(p.list)
	return errs.New(errs.InvalidArgument, "%d options are wrong:\n- %s", len(list), strings.Join(list, "\n- ")).In("sdk", operation)
}
