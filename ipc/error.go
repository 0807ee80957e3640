package ipc

import (
	"errors"
	"fmt"
)

// Code is what kind of failure an Error is. A Code is itself an error, so that
// errors.Is(err, ipc.CodeTimeout) works.
type Code string

// The codes of the wire, all of them.
const (
	CodeConnectionFailed      Code = "CONNECTION_FAILED"
	CodeConnectionLost        Code = "CONNECTION_LOST" // whether the call was done is not known
	CodeNotConnected          Code = "NOT_CONNECTED"
	CodeServiceNotFound       Code = "SERVICE_NOT_FOUND"
	CodeMethodNotFound        Code = "METHOD_NOT_FOUND"
	CodeExecutionFailed       Code = "EXECUTION_FAILED"
	CodeTimeout               Code = "TIMEOUT"
	CodeDeadlineExceeded      Code = "DEADLINE_EXCEEDED"
	CodeMaxDepthExceeded      Code = "MAX_DEPTH_EXCEEDED"
	CodeInvalidMessage        Code = "INVALID_MESSAGE"
	CodeSerializationFailed   Code = "SERIALIZATION_FAILED"
	CodeDeserializationFailed Code = "DESERIALIZATION_FAILED"
	CodeInvalidContext        Code = "INVALID_CONTEXT"
	CodeInternalError         Code = "INTERNAL_ERROR"
)

// Error implements error.
func (c Code) Error() string { return string(c) }

// Error is a failure with a code, which it matches under errors.Is. Handlers return one
// to choose the code that their caller sees.
type Error struct {
	Code    Code
	Message string
	// Target, Method and RequestID say which call failed, where it was one.
	Target, Method, RequestID string
	// Stack is what the other end sent of its own stack.
	Stack string

	cause error
}

// Errorf returns an Error with a formatted message; %w wraps a cause.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), cause: errors.Unwrap(err)}
}

// Error implements error.
func (e *Error) Error() string {
	if e.Target != "" {
		return fmt.Sprintf("call %s.%s: %s (%s)", e.Target, e.Method, e.Message, e.Code)
	}
	return fmt.Sprintf("%s (%s)", e.Message, e.Code)
}

// Is reports whether target is the code of e.
func (e *Error) Is(target error) bool {
	code, ok := target.(Code)
	return ok && code == e.Code
}

// Unwrap returns the cause on this side, if there is one.
func (e *Error) Unwrap() error { return e.cause }

// wireError is what a caller is told of err.
func wireError(err error) (code Code, message string) {
	var e *Error
	if errors.As(err, &e) {
		return e.Code, e.Message
	}
	return CodeExecutionFailed, err.Error()
}
