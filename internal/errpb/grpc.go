package errpb

import (
	"errors"
	"strconv"
	"strings"
	"unicode/utf8"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	spb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"telford.dev/telford/internal/errs"
)

// Domain is the domain of the google.rpc.ErrorInfo of Telford's own failures.
const Domain = "telford"

// ToGRPC returns the gRPC status of e; nil, which gRPC reads as OK, for nil. What a
// handler returned (code, message, details) goes out verbatim. Any other failure
// carries a google.rpc.ErrorInfo first, with the code in upper case as its reason and
// all else that FromGRPC needs as its metadata, and a google.rpc.RetryInfo second when
// it says when to come back.
func ToGRPC(e *errs.Error) *status.Status {
	if e == nil {
		return nil
	}
	p := &spb.Status{Code: int32(grpcCode(e)), Message: valid(e.Message), Details: details(e.Details)}
	if e.Code == errs.Handler {
		return status.FromProto(p)
	}
	m := metadata(e)
	set := func(key, value string) {
		if value != "" {
			m[key] = valid(value)
		}
	}
	set(keyComponent, e.Component)
	set(keyOperation, e.Operation)
	if e.NotStarted {
		set(keyNotStarted, "1")
	}
	us := micros(e.RetryAfter)
	if us > 0 {
		m[keyRetryAfter] = strconv.FormatInt(us, 10)
	}
	own := attach(nil, &errdetails.ErrorInfo{
		Reason: strings.ToUpper(valid(string(e.Code))), Domain: Domain, Metadata: m,
	})
	if us > 0 {
		own = attach(own, &errdetails.RetryInfo{RetryDelay: durationpb.New(duration(us))})
	}
	p.Details = append(own, p.Details...)
	return status.FromProto(p)
}

func attach(list []*anypb.Any, m proto.Message) []*anypb.Any {
	a, err := anypb.New(m)
	if err != nil {
		return list
	}
	return append(list, a)
}

// FromGRPC returns what stands in an error of gRPC; nil for nil. A status with the
// ErrorInfo of ToGRPC becomes the failure that it was made from. Any other status is
// taken as the word of a handler and kept verbatim under errs.Handler: use
// FromTransport for a status that the gRPC library of this process made. An error in
// the chain that is an *errs.Error already is returned as it is; context errors and
// errors that are no status go through errs.From.
func FromGRPC(err error) *errs.Error {
	return fromGRPC(err, func(codes.Code) errs.Code { return errs.Handler })
}

// FromTransport is FromGRPC for failures of the path rather than of a handler: a
// status without ErrorInfo gets the code that stands for its gRPC code.
func FromTransport(err error) *errs.Error { return fromGRPC(err, errs.FromGRPC) }

func fromGRPC(err error, code func(codes.Code) errs.Code) *errs.Error {
	if err == nil {
		return nil
	}
	var e *errs.Error
	if errors.As(err, &e) {
		return e
	}
	// Not status.FromError: it puts what an error was wrapped in into the message.
	var carrier interface{ GRPCStatus() *status.Status }
	if !errors.As(err, &carrier) || carrier.GRPCStatus() == nil {
		return errs.From(err)
	}
	st := carrier.GRPCStatus()
	if st.Code() == codes.OK {
		return nil
	}
	p := st.Proto()
	if e := fromInfo(p); e != nil {
		return e
	}
	e = errs.New(code(st.Code()), "")
	e.Message = p.GetMessage()
	e.GRPCCode = st.Code()
	e.Details = marshal(p.GetDetails())
	return e
}

// fromInfo is the reverse of ToGRPC for failures of Telford; nil for others.
func fromInfo(p *spb.Status) *errs.Error {
	list := p.GetDetails()
	if len(list) == 0 {
		return nil
	}
	info := new(errdetails.ErrorInfo)
	ok := list[0].UnmarshalTo(info) == nil
	if !ok || info.GetDomain() != Domain {
		return nil
	}
	code := errs.Code(strings.ToLower(info.GetReason()))
	if code == "" || code == errs.Handler {
		return nil // ToGRPC writes no such thing
	}
	list = list[1:]
	e := errs.New(code, "")
	e.Message = p.GetMessage()
	e.GRPCCode = codes.Code(p.GetCode())
	m := info.GetMetadata()
	e.Component = m[keyComponent]
	e.Operation = m[keyOperation]
	e.NotStarted = m[keyNotStarted] == "1"
	if us, err := strconv.ParseInt(m[keyRetryAfter], 10, 64); err == nil {
		e.RetryAfter = duration(us)
		if len(list) > 0 && list[0].MessageIs((*errdetails.RetryInfo)(nil)) {
			list = list[1:]
		}
	}
	e.Details = marshal(list)
	readMetadata(e, m)
	return e
}

// valid makes s fit for a protobuf string.
func valid(s string) string {
	if utf8.ValidString(s) {
		return s
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
