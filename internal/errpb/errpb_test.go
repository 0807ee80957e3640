package errpb_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"pgregory.net/rapid"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/errpb"
	"telford.dev/telford/internal/errs"
)

// equal compares all fields but the cause, which stays in its process.
func equal(t fataler, want, got *errs.Error) {
	t.Helper()
	if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(errs.Error{})); diff != "" {
		t.Fatal(diff)
	}
}

type fataler interface {
	Helper()
	Fatal(args ...any)
}

// overProto sends an error over a wire of Telford.
func overProto(t fataler, e *errs.Error) *errs.Error {
	t.Helper()
	b, err := proto.Marshal(errpb.ToProto(e))
	if err != nil {
		t.Fatal(err)
	}
	s := new(telfordv1.Status)
	if err := proto.Unmarshal(b, s); err != nil {
		t.Fatal(err)
	}
	return errpb.FromProto(s)
}

// overGRPC sends an error over plain gRPC.
func overGRPC(t fataler, e *errs.Error) error {
	t.Helper()
	b, err := proto.Marshal(errpb.ToGRPC(e).Proto())
	if err != nil {
		t.Fatal(err)
	}
	p := status.New(codes.OK, "").Proto()
	if err := proto.Unmarshal(b, p); err != nil {
		t.Fatal(err)
	}
	return status.ErrorProto(p)
}

func detail(t fataler, m proto.Message) []byte {
	a, err := anypb.New(m)
	if err != nil {
		t.Fatal(err)
	}
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(a)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// variants of an error, from bare to full.
func variants(t fataler, code errs.Code) []*errs.Error {
	bare := errs.New(code, "")
	full := errs.New(code, "service %q: 3 of 5", "payments").In("router", "call shop.v1.Payments/Charge").
		Unstarted().After(1500*time.Microsecond).With("service", "payments").With("rule", "r1")
	detailed := errs.New(code, "with details")
	detailed.Details = [][]byte{
		detail(t, &errdetails.BadRequest{FieldViolations: []*errdetails.BadRequest_FieldViolation{{Field: "amount"}}}),
		detail(t, &errdetails.RetryInfo{RetryDelay: durationpb.New(time.Minute)}),
		detail(t, &errdetails.ErrorInfo{Reason: "OTHER", Domain: "shop.example"}),
	}
	odd := errs.New(code, "odd")
	odd.Severity, odd.Retryable, odd.GRPCCode = errs.Ignorable, !odd.Retryable, codes.DataLoss
	return []*errs.Error{bare, full, detailed, odd}
}

func TestEveryCodeCrossesTelford(t *testing.T) {
	t.Parallel()
	for _, code := range errs.Codes() {
		for _, e := range variants(t, code) {
			got := overProto(t, e)
			equal(t, e, got)
			if !errors.Is(got, &errs.Error{Code: code}) {
				t.Errorf("%s does not match", code)
			}
		}
	}
}

func TestEveryCodeCrossesGRPC(t *testing.T) {
	t.Parallel()
	for _, code := range errs.Codes() {
		for _, e := range variants(t, code) {
			err := overGRPC(t, e)
			if got := status.Code(err); got != e.GRPCCode {
				t.Errorf("%s: gRPC code %s, want %s", code, got, e.GRPCCode)
			}
			if code == errs.Handler {
				// What a handler returned is verbatim, so that nothing of ours is in it.
				want := errs.New(code, "")
				want.Message, want.GRPCCode, want.Details = e.Message, e.GRPCCode, e.Details
				equal(t, want, errpb.FromGRPC(err))
				continue
			}
			equal(t, e, errpb.FromGRPC(err))
			equal(t, e, errpb.FromTransport(err))
			// Wrapped on the way, too.
			equal(t, e, errpb.FromGRPC(fmt.Errorf("charge: %w", err)))
		}
	}
}

func TestErrorInfoIsWhatOthersExpect(t *testing.T) {
	t.Parallel()
	e := errs.New(errs.NoInstance, "none").With("service", "payments").After(time.Second)
	details := errpb.ToGRPC(e).Details()
	info, ok := details[0].(*errdetails.ErrorInfo)
	if !ok || info.GetReason() != "NO_INSTANCE" || info.GetDomain() != "telford" || info.GetMetadata()["service"] != "payments" {
		t.Fatalf("%v", details)
	}
	retry, ok := details[1].(*errdetails.RetryInfo)
	if !ok || retry.GetRetryDelay().AsDuration() != time.Second {
		t.Fatalf("%v", details)
	}
}

func TestHandlerErrorsAreVerbatim(t *testing.T) {
	t.Parallel()
	st, err := status.New(codes.ResourceExhausted, "no stock").WithDetails(
		&errdetails.QuotaFailure{}, &errdetails.ErrorInfo{Reason: "STOCK", Domain: "shop.example"})
	if err != nil {
		t.Fatal(err)
	}
	e := errpb.FromGRPC(st.Err())
	if e.Code != errs.Handler || e.GRPCCode != codes.ResourceExhausted || e.Message != "no stock" || len(e.Details) != 2 {
		t.Fatalf("%#v", e)
	}
	back := errpb.ToGRPC(overProto(t, e))
	if !proto.Equal(st.Proto(), back.Proto()) {
		t.Fatalf("got %v, want %v", back, st)
	}
	// The same words from the path mean what gRPC means by them.
	if e := errpb.FromTransport(st.Err()); e.Code != errs.ResourceExhausted || len(e.Details) != 2 {
		t.Fatalf("%#v", e)
	}
}

func TestTransportCodes(t *testing.T) {
	t.Parallel()
	for c := codes.Canceled; c <= codes.Unauthenticated; c++ {
		e := errpb.FromTransport(status.Error(c, "x"))
		if e.Code != errs.FromGRPC(c) || e.GRPCCode != c || e.NotStarted {
			t.Errorf("%s: %#v", c, e)
		}
	}
}

func TestOtherErrors(t *testing.T) {
	t.Parallel()
	own := errs.New(errs.Conflict, "x").In("a", "b")
	cases := []struct {
		err  error
		code errs.Code
	}{
		{nil, ""},
		{own, errs.Conflict},
		{fmt.Errorf("x: %w", own), errs.Conflict},
		{context.Canceled, errs.Canceled},
		{fmt.Errorf("x: %w", context.DeadlineExceeded), errs.DeadlineExceeded},
		{io.ErrUnexpectedEOF, errs.Internal},
	}
	for _, c := range cases {
		got := errpb.FromGRPC(c.err)
		if c.err == nil {
			if got != nil {
				t.Errorf("nil became %v", got)
			}
			continue
		}
		if got.Code != c.code {
			t.Errorf("%v became %v", c.err, got)
		}
	}
	if got := errpb.FromGRPC(fmt.Errorf("x: %w", own)); got != own {
		t.Error("an error of this process was copied")
	}
	if errpb.ToProto(nil) != nil || errpb.FromProto(nil) != nil || errpb.FromProto(&telfordv1.Status{Message: "x"}) != nil {
		t.Error("nothing became an error")
	}
	if errpb.ToGRPC(nil).Code() != codes.OK {
		t.Error("nil is not OK")
	}
}

func TestAHandBuiltErrorHasAGRPCCode(t *testing.T) {
	t.Parallel()
	e := &errs.Error{Code: errs.NotFound, Message: "x"}
	if got := errpb.ToGRPC(e).Code(); got != codes.NotFound {
		t.Error(got)
	}
	if got := overProto(t, e); got.GRPCCode != codes.NotFound {
		t.Error(got.GRPCCode)
	}
	if got := errpb.ToGRPC(&errs.Error{Code: errs.Handler}).Code(); got != codes.Unknown {
		t.Error(got)
	}
}

func TestUnknownCodesAreKept(t *testing.T) {
	t.Parallel()
	e := errs.New("from_the_future", "x")
	if got := overProto(t, e); got.Code != "from_the_future" || got.Message != "x" {
		t.Errorf("%#v", got)
	}
	if got := errpb.FromGRPC(overGRPC(t, e)); got.Code != "from_the_future" || got.Message != "x" {
		t.Errorf("%#v", got)
	}
}

// TestAnyError: whatever stands in an error, it can be sent, and arrives the same
// unless no wire carries it.
func TestAnyError(t *testing.T) {
	t.Parallel()
	text := rapid.OneOf(rapid.String(), rapid.Just("\xff\xfe"), rapid.Just(strings.Repeat("x", 5000)))
	rapid.Check(t, func(t *rapid.T) {
		e := errs.New(rapid.SampledFrom(errs.Codes()).Draw(t, "code"), "")
		e.Message = text.Draw(t, "message")
		e.Component = text.Draw(t, "component")
		e.Operation = text.Draw(t, "operation")
		e.NotStarted = rapid.Bool().Draw(t, "not started")
		e.RetryAfter = time.Duration(rapid.Int64Min(0).Draw(t, "retry after")).Truncate(time.Microsecond)
		e.Meta = rapid.MapOfN(rapid.String(), text, 0, 3).Draw(t, "meta")
		if len(e.Meta) == 0 {
			e.Meta = nil
		}
		if rapid.Bool().Draw(t, "hostile") {
			e.Meta = map[string]string{"telford-not-started": "1", "telford-severity": "x"}
			e.Details = [][]byte{{0xff, 0xff}}
		}
		want := *e
		valid := func(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }
		want.Message, want.Component, want.Operation = valid(e.Message), valid(e.Component), valid(e.Operation)
		want.Meta, want.Details = nil, nil
		for k, v := range e.Meta {
			if !strings.HasPrefix(k, "telford-") {
				want = *want.With(k, valid(v))
			}
		}
		equal(t, &want, overProto(t, e))
		if e.Code != errs.Handler {
			equal(t, &want, errpb.FromGRPC(overGRPC(t, e)))
		}
	})
}

// FuzzFromProto: what another process sends neither panics nor changes on a second
// crossing.
func FuzzFromProto(f *testing.F) {
	for _, code := range errs.Codes() {
		for _, e := range variants(f, code) {
			b, err := proto.Marshal(errpb.ToProto(e))
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s := new(telfordv1.Status)
		if proto.Unmarshal(b, s) != nil {
			return
		}
		e := errpb.FromProto(s)
		if e == nil {
			return
		}
		if e.RetryAfter < 0 || e.GRPCCode == codes.OK {
			t.Fatalf("%#v", e)
		}
		equal(t, e, overProto(t, e))
		_ = errpb.FromGRPC(overGRPC(t, e))
	})
}

// FuzzFromGRPC is the same for the status of a plain gRPC peer.
func FuzzFromGRPC(f *testing.F) {
	for _, code := range errs.Codes() {
		for _, e := range variants(f, code) {
			b, err := proto.Marshal(errpb.ToGRPC(e).Proto())
			if err != nil {
				f.Fatal(err)
			}
			f.Add(b)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p := status.New(codes.OK, "").Proto()
		if proto.Unmarshal(b, p) != nil {
			return
		}
		e := errpb.FromGRPC(status.ErrorProto(p))
		if e == nil {
			return
		}
		if e.RetryAfter < 0 || e.Code == "" {
			t.Fatalf("%#v", e)
		}
		equal(t, e, errpb.FromGRPC(overGRPC(t, e)))
	})
}
