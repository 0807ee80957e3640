// Package errpb owns the wire forms of a failure: telford.v1.Status on Telford's own
// wires and google.rpc.Status on plain gRPC, in both directions. It decides nothing
// about failures and starts no goroutines.
package errpb

import (
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/errs"
)

// The keys under which facts travel that a wire has no field for. Entries of
// errs.Error.Meta under these keys do not cross a wire.
const (
	keyNotStarted = "telford-not-started"
	keyRetryAfter = "telford-retry-after-us"
	keyComponent  = "telford-component"
	keyOperation  = "telford-operation"
	keySeverity   = "telford-severity"
	keyRetryable  = "telford-retryable"
)

func reserved(key string) bool {
	switch key {
	case keyNotStarted, keyRetryAfter, keyComponent, keyOperation, keySeverity, keyRetryable:
		return true
	}
	return false
}

// ToProto returns the wire form of e; nil for nil. The cause stays behind. A retry
// delay is rounded up to microseconds; details that are not marshalled Any messages
// are left out.
func ToProto(e *errs.Error) *telfordv1.Status {
	if e == nil {
		return nil
	}
	s := &telfordv1.Status{
		Code:         string(e.Code),
		GrpcCode:     uint32(grpcCode(e)),
		Message:      valid(e.Message),
		Details:      details(e.Details),
		NotStarted:   e.NotStarted,
		RetryAfterUs: micros(e.RetryAfter),
		Component:    valid(e.Component),
		Operation:    valid(e.Operation),
	}
	m := metadata(e)
	if len(m) > 0 {
		s.Meta = m
	}
	return s
}

// FromProto is the reverse of ToProto. A nil status and one without a code mean
// success: nil. Codes that this version does not know are kept as they are.
func FromProto(s *telfordv1.Status) *errs.Error {
	if s.GetCode() == "" {
		return nil
	}
	e := errs.New(errs.Code(s.GetCode()), "")
	e.Message = s.GetMessage()
	if c := codes.Code(s.GetGrpcCode()); c != codes.OK {
		e.GRPCCode = c
	}
	e.NotStarted = s.GetNotStarted()
	e.RetryAfter = duration(s.GetRetryAfterUs())
	e.Component = s.GetComponent()
	e.Operation = s.GetOperation()
	e.Details = marshal(s.GetDetails())
	readMetadata(e, s.GetMeta())
	return e
}

// metadata is e.Meta and, where they are not those of the code, severity and
// retryability.
func metadata(e *errs.Error) map[string]string {
	m := make(map[string]string, len(e.Meta)+6)
	for k, v := range e.Meta {
		if !reserved(k) {
			m[valid(k)] = valid(v)
		}
	}
	usual := errs.New(e.Code, "")
	if e.Severity != "" && e.Severity != usual.Severity {
		m[keySeverity] = valid(string(e.Severity))
	}
	if e.Retryable != usual.Retryable {
		m[keyRetryable] = "0"
		if e.Retryable {
			m[keyRetryable] = "1"
		}
	}
	return m
}

// readMetadata puts what metadata wrote back into e.
func readMetadata(e *errs.Error, m map[string]string) {
	for k, v := range m {
		switch k {
		case keySeverity:
			switch known := errs.Severity(v); known {
			case errs.Fatal, errs.Retriable, errs.Ignorable:
				e.Severity = known // any other is none, and the code's own stays
			}
		case keyRetryable:
			e.Retryable = v == "1"
		default:
			if reserved(k) {
				continue
			}
			if e.Meta == nil {
				e.Meta = make(map[string]string, len(m))
			}
			e.Meta[k] = v
		}
	}
}

// grpcCode is never OK: an error that says so is of its code's canonical one.
func grpcCode(e *errs.Error) codes.Code {
	if e.GRPCCode != codes.OK {
		return e.GRPCCode
	}
	return e.Code.GRPC()
}

func details(raw [][]byte) []*anypb.Any {
	var out []*anypb.Any
	for _, b := range raw {
		a := new(anypb.Any)
		if proto.Unmarshal(b, a) == nil {
			out = append(out, a)
		}
	}
	return out
}

func marshal(list []*anypb.Any) [][]byte {
	var out [][]byte
	for _, a := range list {
		if b, err := (proto.MarshalOptions{Deterministic: true}).Marshal(a); err == nil {
			out = append(out, b)
		}
	}
	return out
}

// maxMicros is the most microseconds that a time.Duration holds.
const maxMicros = int64(1<<63-1) / int64(time.Microsecond)

func micros(d time.Duration) int64 {
	if d <= 0 {
		return 0
	}
	us := int64(d / time.Microsecond)
	if d%time.Microsecond != 0 {
		us++
	}
	return us
}

func duration(us int64) time.Duration {
	return time.Duration(min(max(us, 0), maxMicros)) * time.Microsecond
}
