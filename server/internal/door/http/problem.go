package httpdoor

import (
	"encoding/json"
	"math"
	"net/http"
	"strconv"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"telford.dev/telford/internal/errs"
)

// problemType is the content type of RFC 9457.
const problemType = "application/problem+json"

// Problem is the body of an answer that is an error: the members of RFC 9457 and, as
// its extensions, what else Telford knows of the failure.
type Problem struct {
	Type       string            `json:"type"` // "urn:telford:error:" and the code
	Title      string            `json:"title"`
	Status     int               `json:"status"`
	Detail     string            `json:"detail"`
	Code       string            `json:"code"`
	GRPCCode   uint32            `json:"grpc_code"`
	Component  string            `json:"component,omitempty"`
	Operation  string            `json:"operation,omitempty"`
	Retryable  bool              `json:"retryable"`
	NotStarted bool              `json:"not_started"`
	RetryAfter string            `json:"retry_after,omitempty"` // a Go duration
	Meta       map[string]string `json:"meta,omitempty"`
	Details    []Detail          `json:"details,omitempty"`
	RequestID  string            `json:"request_id,omitempty"`
}

// Detail is one message that a handler attached to its error.
type Detail struct {
	Type  string `json:"@type"`
	Value []byte `json:"value"` // protobuf, base64 in JSON
}

// statusCanceled is what servers commonly log when the client has gone; no code is
// registered for it.
const statusCanceled = 499

// Status is the HTTP status that stands for a failure.
func Status(e *errs.Error) int {
	switch e.Code {
	case errs.InvalidArgument, errs.FailedPrecondition:
		return http.StatusBadRequest
	case errs.NotFound, errs.ServiceNotFound, errs.MethodNotFound:
		return http.StatusNotFound
	case errs.AlreadyExists, errs.Conflict:
		return http.StatusConflict
	case errs.PermissionDenied:
		return http.StatusForbidden
	case errs.Unauthenticated:
		return http.StatusUnauthorized
	case errs.DeadlineExceeded:
		return http.StatusGatewayTimeout
	case errs.Canceled:
		return statusCanceled
	case errs.NoInstance, errs.Unavailable:
		return http.StatusServiceUnavailable
	case errs.ResourceExhausted:
		if !e.Retryable {
			// It will be too large the next time too.
			return http.StatusRequestEntityTooLarge
		}
		return http.StatusTooManyRequests
	case errs.DepthExceeded:
		return http.StatusLoopDetected
	case errs.Terminal:
		return http.StatusUnprocessableEntity
	case errs.Handler:
		return handlerStatus(e.GRPCCode)
	default:
		return http.StatusInternalServerError
	}
}

// handlerStatus maps the gRPC code that a handler returned.
func handlerStatus(c codes.Code) int {
	switch c {
	case codes.Canceled:
		return statusCanceled
	case codes.InvalidArgument, codes.OutOfRange, codes.FailedPrecondition:
		return http.StatusBadRequest
	case codes.NotFound:
		return http.StatusNotFound
	case codes.AlreadyExists, codes.Aborted:
		return http.StatusConflict
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests
	case codes.Unimplemented:
		return http.StatusNotImplemented
	case codes.Unavailable:
		return http.StatusServiceUnavailable
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	default:
		return http.StatusInternalServerError
	}
}

// NewProblem describes a failure.
func NewProblem(e *errs.Error, status int) *Problem {
	p := &Problem{
		Type: "urn:telford:error:" + string(e.Code), Title: title(status), Status: status, Detail: e.Message,
		Code: string(e.Code), GRPCCode: uint32(e.GRPCCode), Component: e.Component, Operation: e.Operation,
		Retryable: e.Retryable, NotStarted: e.NotStarted, Meta: e.Meta,
	}
	if e.RetryAfter > 0 {
		p.RetryAfter = e.RetryAfter.String()
	}
	for _, raw := range e.Details {
		var detail anypb.Any
		if proto.Unmarshal(raw, &detail) == nil {
			p.Details = append(p.Details, Detail{Type: detail.GetTypeUrl(), Value: detail.GetValue()})
		}
	}
	return p
}

func title(status int) string {
	if status == statusCanceled {
		return "Canceled"
	}
	return http.StatusText(status)
}

// WriteProblem answers with a failure.
func WriteProblem(w http.ResponseWriter, err error) {
	e := errs.From(err)
	writeProblem(w, e, Status(e))
}

func writeProblem(w http.ResponseWriter, e *errs.Error, status int) {
	h := w.Header()
	p := NewProblem(e, status)
	p.RequestID = h.Get(headerRequestID)
	body, err := json.Marshal(p)
	if err != nil { // strings and numbers only
		body = []byte(`{"code":"internal"}`)
	}
	h.Set("Content-Type", problemType)
	h.Set("X-Content-Type-Options", "nosniff")
	if status == http.StatusUnauthorized && e.Code != errs.Handler {
		h.Set("WWW-Authenticate", `Bearer realm="telford"`)
	}
	if e.RetryAfter > 0 {
		h.Set("Retry-After", strconv.Itoa(int(math.Ceil(float64(e.RetryAfter)/float64(time.Second)))))
	}
	if e.NotStarted {
		h.Set(headerNotStarted, "1")
	}
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // the client may have gone
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	body, err := json.Marshal(v)
	if err != nil {
		WriteProblem(w, errs.New(errs.Internal, "encode the answer: %w", err))
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(append(body, '\n')) // the client may have gone
}
