package rest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"

	"telford.dev/telford/internal/errs"
)

// FaultType names a kind of fault.
type FaultType string

// The types of faults, the whole list.
const (
	FaultBadRequest      FaultType = "badRequest"
	FaultHTTPSOnly       FaultType = "badRequestHttpsOnly"
	FaultServiceExists   FaultType = "serviceWithThisIdExists"
	FaultInvalidLimit    FaultType = "invalidLimit"
	FaultLimitReached    FaultType = "limitReached"
	FaultRateLimit       FaultType = "rateLimitReached"
	FaultUnauthorized    FaultType = "unauthorizedError"
	FaultForbidden       FaultType = "forbiddenError"
	FaultNotFound        FaultType = "notFoundError"
	FaultRequestTooLarge FaultType = "requestTooLargeError"
	FaultInternal        FaultType = "internalError"
	FaultNotImplemented  FaultType = "notImplementedError"
	FaultSystemFailure   FaultType = "systemFailureError"
)

// faultTraits are the status of a type and its code in Telford's one model of errors.
type faultTraits struct {
	status int
	code   errs.Code
}

var faultTable = map[FaultType]faultTraits{
	FaultBadRequest:      {http.StatusBadRequest, errs.InvalidArgument},
	FaultHTTPSOnly:       {http.StatusBadRequest, errs.InvalidArgument},
	FaultServiceExists:   {http.StatusBadRequest, errs.AlreadyExists},
	FaultInvalidLimit:    {http.StatusBadRequest, errs.InvalidArgument},
	FaultLimitReached:    {http.StatusBadRequest, errs.ResourceExhausted},
	FaultRateLimit:       {http.StatusBadRequest, errs.ResourceExhausted},
	FaultUnauthorized:    {http.StatusUnauthorized, errs.Unauthenticated},
	FaultForbidden:       {http.StatusForbidden, errs.PermissionDenied},
	FaultNotFound:        {http.StatusNotFound, errs.NotFound},
	FaultRequestTooLarge: {http.StatusRequestEntityTooLarge, errs.InvalidArgument},
	FaultInternal:        {http.StatusInternalServerError, errs.Internal},
	FaultNotImplemented:  {http.StatusNotImplemented, errs.FailedPrecondition},
	FaultSystemFailure:   {http.StatusServiceUnavailable, errs.Unavailable},
}

// The sentinels. errors.Is matches them with any Fault of their type.
var (
	ErrBadRequest      error = &Fault{Type: FaultBadRequest}
	ErrServiceExists   error = &Fault{Type: FaultServiceExists}
	ErrInvalidLimit    error = &Fault{Type: FaultInvalidLimit}
	ErrLimitReached    error = &Fault{Type: FaultLimitReached}
	ErrRateLimit       error = &Fault{Type: FaultRateLimit}
	ErrUnauthorized    error = &Fault{Type: FaultUnauthorized}
	ErrForbidden       error = &Fault{Type: FaultForbidden}
	ErrNotFound        error = &Fault{Type: FaultNotFound}
	ErrRequestTooLarge error = &Fault{Type: FaultRequestTooLarge}
	ErrInternal        error = &Fault{Type: FaultInternal}
	ErrNotImplemented  error = &Fault{Type: FaultNotImplemented}
	ErrSystemFailure   error = &Fault{Type: FaultSystemFailure}
)

// Status returns the HTTP status of the type; 500 for one that is not in the list.
func (t FaultType) Status() int {
	if traits, ok := faultTable[t]; ok {
		return traits.status
	}
	return http.StatusInternalServerError
}

// Fault is a failure that the registry answered with. Two Faults match under errors.Is
// when their types are equal and the target says no more than its type; a Fault also
// matches the sentinels of package telford whose code means the same, such as
// telford.ErrNotFound.
type Fault struct {
	Type FaultType
	// Code is the HTTP status.
	Code    int
	Message string
	// Details say more, as text. Of an unknown path they are an object on the wire, whose
	// one member is RequestedPath.
	Details       string
	RequestedPath string
	// TxnID names the request in the log of the server.
	TxnID string
}

// NewFault returns a Fault of a type with its status.
func NewFault(t FaultType, message, details string) *Fault {
	return &Fault{Type: t, Code: t.Status(), Message: message, Details: details}
}

// Error returns the message and the details, where they differ, and the id by which the
// server's log knows the request.
func (f *Fault) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d %s: %s", f.Code, f.Type, f.Message)
	if f.Details != "" && f.Details != f.Message {
		b.WriteString(": " + f.Details)
	}
	if f.RequestedPath != "" {
		b.WriteString(": " + f.RequestedPath)
	}
	if f.TxnID != "" {
		b.WriteString(" (transaction " + f.TxnID + ")")
	}
	return b.String()
}

// Is reports whether target is the sentinel of f's type or of its code.
func (f *Fault) Is(target error) bool {
	switch t := target.(type) {
	case *Fault:
		return *t == Fault{Type: f.Type}
	case *errs.Error:
		traits, ok := faultTable[f.Type]
		return ok && errors.Is(errs.New(traits.code, ""), t)
	default:
		return false
	}
}

// As gives the fault as a telford.Error, by the code that means the same.
func (f *Fault) As(target any) bool {
	t, ok := target.(**errs.Error)
	if ok {
		code := errs.Internal
		if traits, known := faultTable[f.Type]; known {
			code = traits.code
		}
		*t = errs.New(code, "%s", f.Error())
	}
	return ok
}

// MarshalJSON writes all five keys, in the order of the API.
func (f *Fault) MarshalJSON() ([]byte, error) {
	w := struct {
		Type    FaultType `json:"type"`
		Code    int       `json:"code"`
		Message string    `json:"message"`
		Details any       `json:"details"`
		TxnID   string    `json:"txnId"`
	}{f.Type, f.Code, f.Message, f.Details, f.TxnID}
	if f.RequestedPath != "" {
		w.Details = requestedPath{f.RequestedPath}
	}
	return json.Marshal(w)
}

type requestedPath struct {
	Path string `json:"requested_path"`
}

// UnmarshalJSON reads a fault whose details are text, an object, or missing.
func (f *Fault) UnmarshalJSON(text []byte) error {
	var w struct {
		Type    FaultType       `json:"type"`
		Code    int             `json:"code"`
		Message string          `json:"message"`
		Details json.RawMessage `json:"details"`
		TxnID   string          `json:"txnId"`
	}
	if err := json.Unmarshal(text, &w); err != nil {
		return err
	}
	*f = Fault{Type: w.Type, Code: w.Code, Message: w.Message, TxnID: w.TxnID}
	var path requestedPath
	switch {
	case len(w.Details) == 0 || string(w.Details) == "null":
	case json.Unmarshal(w.Details, &f.Details) == nil:
	case json.Unmarshal(w.Details, &path) == nil && path.Path != "":
		f.RequestedPath = path.Path
	default:
		f.Details = string(w.Details)
	}
	return nil
}
