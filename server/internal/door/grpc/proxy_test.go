package grpcdoor_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/errpb"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/door/doortest"
	"telford.dev/telford/server/internal/identity"
)

const (
	charge = "/shop.v1.Payments/Charge"
	watch  = "/shop.v1.Payments/Watch"
)

func text(s string) *wrapperspb.StringValue { return wrapperspb.String(s) }

func TestUnaryPassesEverything(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	seen := make(chan *message.Call, 1)
	r.provider(t, "payments", "pay-1", doortest.Handler{Call: func(ctx context.Context, call *message.Call) *message.Reply {
		c := *call
		if d, ok := ctx.Deadline(); ok {
			c.Deadline = d
		}
		c.Body = append([]byte(nil), call.Body...)
		seen <- &c
		return &message.Reply{
			ContentType: message.Proto, Body: c.Body,
			Headers:  []message.Pair{{Key: "h", Value: []byte("1")}, {Key: "h", Value: []byte("2")}, {Key: "h-bin", Value: []byte{0, 255}}},
			Trailers: []message.Pair{{Key: "t", Value: []byte("end")}},
		}
	}})
	cc, ctx := r.byKey(t, "orders")
	ctx, cancel := context.WithTimeout(ctx, 7*time.Second)
	defer cancel()
	ctx = metadata.AppendToOutgoingContext(ctx, "telford-service", "payments", "x", "1", "x", "2", "y-bin", "\x00\xff",
		"telford-request-id", "req-1", "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"telford-chain-root", "root-1", "telford-chain", "web/buy,orders/place", "telford-instance", "pay-1", "telford-attempt", "1")
	var head, trail metadata.MD
	out := new(wrapperspb.StringValue)
	if err := cc.Invoke(ctx, charge, text("hello"), out, grpc.Header(&head), grpc.Trailer(&trail)); err != nil {
		t.Fatal(err)
	}
	if out.GetValue() != "hello" {
		t.Errorf("answer %q", out.GetValue())
	}
	if got := []string{head["h"][0], head["h"][1], head["h-bin"][0], trail["t"][0]}; !slices.Equal(got, []string{"1", "2", "\x00\xff", "end"}) {
		t.Errorf("headers %v, trailers %v", head, trail)
	}
	call := <-seen
	want := []message.Pair{{Key: "x", Value: []byte("1")}, {Key: "x", Value: []byte("2")}, {Key: "y-bin", Value: []byte("\x00\xff")}}
	if diff := cmp.Diff(want, call.Headers); diff != "" {
		t.Errorf("headers at the callee (-want +got):\n%s", diff)
	}
	if call.RequestID != "req-1" || call.ChainRoot != "root-1" || !call.Trace.Valid() || len(call.Chain) < 2 || call.Chain[0] != "web/buy" {
		t.Errorf("context at the callee: %+v", call)
	}
	if left := time.Until(call.Deadline); left < 5*time.Second || left > 7*time.Second {
		t.Errorf("deadline at the callee in %s", left)
	}
	if call.Caller.Service != "orders" || call.Caller.Namespace != "default" {
		t.Errorf("caller %+v", call.Caller)
	}
}

func TestStatusOfTheHandlerPassesVerbatim(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	detail, err := anypb.New(text("why"))
	if err != nil {
		t.Fatal(err)
	}
	raw, _ := proto.Marshal(detail)
	r.provider(t, "payments", "pay-1", doortest.Handler{Call: func(context.Context, *message.Call) *message.Reply {
		return &message.Reply{
			Err:      &errs.Error{Code: errs.Handler, GRPCCode: codes.FailedPrecondition, Message: "card is frozen", Details: [][]byte{raw}},
			Trailers: []message.Pair{{Key: "t", Value: []byte("end")}},
		}
	}})
	cc, ctx := r.byKey(t, "orders")
	var trail metadata.MD
	err = cc.Invoke(ctx, charge, text(""), new(wrapperspb.StringValue), grpc.Trailer(&trail))
	s, _ := status.FromError(err)
	if s.Code() != codes.FailedPrecondition || s.Message() != "card is frozen" {
		t.Errorf("status %v", s)
	}
	found := false
	for _, d := range s.Details() {
		v, ok := d.(*wrapperspb.StringValue)
		found = found || ok && v.GetValue() == "why"
	}
	if !found || len(trail["t"]) != 1 || len(trail["telford-not-started"]) != 0 {
		t.Errorf("details %v, trailers %v", s.Details(), trail)
	}
}

func TestByCertificate(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	seen := make(chan message.Caller, 1)
	r.provider(t, "payments", "pay-1", doortest.Handler{Call: func(_ context.Context, call *message.Call) *message.Reply {
		seen <- call.Caller
		return &message.Reply{ContentType: message.Proto}
	}})
	key, _ := r.Key(t, "orders")
	trust := r.Certify(t, key, "orders", "ord-1")
	cc := r.dial(t, trust.ClientConfig(ident.Expect{Runtime: true}))
	if err := cc.Invoke(t.Context(), charge, text(""), new(wrapperspb.StringValue)); err != nil {
		t.Fatal(err)
	}
	if got := <-seen; got.Service != "orders" || got.Instance != "ord-1" || got.KeyID != key.ID {
		t.Errorf("caller %+v", got)
	}

	// The next call after the revocation is refused: the connection is closed, and a new
	// one is told why.
	if _, err := r.Authority.RevokeKey(t.Context(), key.ID, "test", "leaked"); err != nil {
		t.Fatal(err)
	}
	err := cc.Invoke(t.Context(), charge, text(""), new(wrapperspb.StringValue), grpc.WaitForReady(true))
	if e := errpb.FromTransport(err); e.Code != errs.PermissionDenied && e.Code != errs.Unavailable {
		t.Errorf("right after the revocation: %v", err)
	}
	doortest.Eventually(t, "the refusal says why", func() bool {
		err := cc.Invoke(t.Context(), charge, text(""), new(wrapperspb.StringValue), grpc.WaitForReady(true))
		return errpb.FromTransport(err).Code == errs.PermissionDenied && strings.Contains(err.Error(), "revoked")
	})
}

func TestCertificateOfAnotherClusterIsToldSo(t *testing.T) {
	t.Parallel()
	r, other := start(t, doortest.Options{}), start(t, doortest.Options{})
	r.provider(t, "payments", "pay-1", doortest.Echo())
	key, _ := other.Key(t, "orders")
	trust := other.Certify(t, key, "orders", "ord-1")
	// It shows a certificate of the other cluster to this runtime, which it would refuse
	// itself: the client's checks are switched off.
	cfg := trust.ClientConfig(ident.Expect{Runtime: true})
	cfg.VerifyConnection = nil
	cc := r.dial(t, cfg)
	err := cc.Invoke(t.Context(), charge, text(""), new(wrapperspb.StringValue))
	if e := check(t, "another cluster's certificate", err, errs.Unauthenticated); !strings.Contains(e.Message, "trust domain") {
		t.Errorf("message %q", e.Message)
	}
	// A key beside it does not help: who shows a false certificate is up to something.
	_, text2 := r.Key(t, "orders")
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+text2)
	check(t, "with a key beside it", cc.Invoke(ctx, charge, text(""), new(wrapperspb.StringValue)), errs.Unauthenticated)
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	r.provider(t, "payments", "pay-1", doortest.Echo())
	cc, ctx := r.byKey(t, "orders")
	to := func(service string) context.Context {
		return metadata.AppendToOutgoingContext(ctx, "telford-service", service)
	}
	call := func(ctx context.Context, method string, in proto.Message) (metadata.MD, error) {
		var trail metadata.MD
		err := cc.Invoke(ctx, method, in, new(wrapperspb.StringValue), grpc.Trailer(&trail))
		return trail, err
	}
	expired, expiredText, err := r.Authority.CreateKey(t.Context(), identity.CreateKey{Service: "late", TTL: time.Second, Author: "test"})
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		ctx    context.Context
		method string
		in     proto.Message
		code   errs.Code
		says   string
	}{
		"no credential":     {t.Context(), charge, text(""), errs.Unauthenticated, "no credential"},
		"another scheme":    {metadata.AppendToOutgoingContext(t.Context(), "authorization", "Basic abc"), charge, text(""), errs.Unauthenticated, "Bearer"},
		"a false key":       {metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer tlf_nothing"), charge, text(""), errs.Unauthenticated, "key"},
		"two credentials":   {metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer x"), charge, text(""), errs.InvalidArgument, "2 times"},
		"another namespace": {metadata.AppendToOutgoingContext(ctx, "telford-namespace", "acme"), charge, text(""), errs.PermissionDenied, "acme"},
		"unknown service":   {to("paymints"), charge, text(""), errs.ServiceNotFound, "payments"},
		"unknown method":    {to("payments"), "/shop.v1.Payments/Chargé", text(""), errs.MethodNotFound, "Charge"},
		"unknown gRPC":      {ctx, "/shop.v2.Payments/Charge", text(""), errs.ServiceNotFound, "shop.v2.Payments"},
		"bad attempt":       {metadata.AppendToOutgoingContext(ctx, "telford-attempt", "one"), charge, text(""), errs.InvalidArgument, "telford-attempt"},
		"headers too large": {metadata.AppendToOutgoingContext(ctx, "x", strings.Repeat("a", 17<<10)), charge, text(""), errs.ResourceExhausted, "16384"},
	} {
		trail, err := call(c.ctx, c.method, c.in)
		e := check(t, name, err, c.code)
		if !strings.Contains(e.Message, c.says) {
			t.Errorf("%s: message %q does not name %q", name, e.Message, c.says)
		}
		if !slices.Equal(trail["telford-not-started"], []string{"1"}) {
			t.Errorf("%s: trailers %v without the proof that nothing was started", name, trail)
		}
	}
	late := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+expiredText)
	doortest.Eventually(t, "the key expires", func() bool { return !time.Now().Before(expired.Expires) })
	_, err = call(late, charge, text(""))
	if e := check(t, "expired key", err, errs.Unauthenticated); !strings.Contains(e.Message, "expired") {
		t.Errorf("expired key: %q", e.Message)
	}

	// A payload of 17 MiB, with both numbers.
	err = cc.Invoke(ctx, charge, wrapperspb.Bytes(make([]byte, 17<<20)), new(wrapperspb.BytesValue), grpc.MaxCallSendMsgSize(32<<20))
	if s, _ := status.FromError(err); s.Code() != codes.ResourceExhausted || !strings.Contains(s.Message(), "16777216") || !strings.Contains(s.Message(), "178257") {
		t.Errorf("17 MiB: %v", err)
	}
	// Two services that register the gRPC service.
	r.provider(t, "billing", "bill-1", doortest.Echo())
	doortest.Eventually(t, "both are listed", func() bool {
		_, err := call(ctx, charge, text(""))
		e := errpb.FromTransport(err)
		return e != nil && e.Code == errs.InvalidArgument && strings.Contains(e.Message, "billing") && strings.Contains(e.Message, "payments")
	})
	// A second request message.
	stream, err := cc.NewStream(to("payments"), &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, charge)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := stream.SendMsg(text("x")); err != nil && !errors.Is(err, io.EOF) {
			t.Fatal(err)
		}
	}
	err = stream.RecvMsg(new(wrapperspb.StringValue))
	if s, _ := status.FromError(err); s.Code() != codes.Unimplemented || !strings.Contains(s.Message(), "streaming") {
		t.Errorf("client streaming: %v", err)
	}
	// No request message at all.
	stream, err = cc.NewStream(to("payments"), &grpc.StreamDesc{ClientStreams: true}, charge)
	if err != nil {
		t.Fatal(err)
	}
	if err := stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	check(t, "no request message", stream.RecvMsg(new(wrapperspb.StringValue)), errs.InvalidArgument)
}

func TestServerStream(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	ended := make(chan error, 10)
	r.provider(t, "payments", "pay-1", doortest.Handler{Stream: func(ctx context.Context, call *message.Call, out message.Sender) *message.Reply {
		if err := out.SendHeaders([]message.Pair{{Key: "h", Value: []byte("1")}}); err != nil {
			return &message.Reply{Err: errs.From(err)}
		}
		in := new(wrapperspb.StringValue)
		_ = proto.Unmarshal(call.Body, in)
		endless := in.GetValue() == "endless"
		for i := 0; endless || i < 100; i++ {
			b, _ := proto.Marshal(wrapperspb.Bytes(bytes.Repeat([]byte{byte(i)}, 10_000)))
			if err := out.Send(b); err != nil {
				<-ctx.Done()
				ended <- ctx.Err()
				return &message.Reply{Err: errs.From(err)}
			}
		}
		return &message.Reply{ContentType: message.Proto, Trailers: []message.Pair{{Key: "t", Value: []byte("end")}}}
	}})
	cc, ctx := r.byKey(t, "orders")
	open := func(ctx context.Context, in string) grpc.ClientStream {
		stream, err := cc.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, watch)
		if err != nil {
			t.Fatal(err)
		}
		if err := stream.SendMsg(text(in)); err != nil {
			t.Fatal(err)
		}
		if err := stream.CloseSend(); err != nil {
			t.Fatal(err)
		}
		return stream
	}
	stream := open(ctx, "")
	head, err := stream.Header()
	if err != nil || len(head["h"]) != 1 {
		t.Errorf("headers %v, %v", head, err)
	}
	n := 0
	for {
		m := new(wrapperspb.BytesValue)
		if err := stream.RecvMsg(m); err != nil {
			if !errors.Is(err, io.EOF) {
				t.Fatal(err)
			}
			break
		}
		if len(m.GetValue()) != 10_000 || m.GetValue()[0] != byte(n) {
			t.Fatalf("message %d: %d bytes of %d", n, len(m.GetValue()), m.GetValue()[0])
		}
		n++
	}
	if n != 100 || len(stream.Trailer()["t"]) != 1 {
		t.Errorf("%d messages, trailers %v", n, stream.Trailer())
	}

	// A caller that stops reading holds the producer up, and leaving ends it.
	leaving, cancel := context.WithCancel(ctx)
	stream = open(leaving, "endless")
	if err := stream.RecvMsg(new(wrapperspb.BytesValue)); err != nil {
		t.Fatal(err)
	}
	cancel()
	<-ended

	// A key that is revoked ends what its holder has running.
	key, keyText := r.Key(t, "orders")
	mine := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+keyText)
	stream = open(mine, "endless")
	if err := stream.RecvMsg(new(wrapperspb.BytesValue)); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Authority.RevokeKey(t.Context(), key.ID, "test", "leaked"); err != nil {
		t.Fatal(err)
	}
	<-ended
	for err = nil; err == nil; {
		err = stream.RecvMsg(new(wrapperspb.BytesValue))
	}
	if e := check(t, "revoked while streaming", err, errs.PermissionDenied); !strings.Contains(e.Message, "revoked") {
		t.Errorf("message %q", e.Message)
	}
}

func TestDeadlineAndCancelReachTheHandler(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	entered, ended := make(chan struct{}, 2), make(chan error, 2)
	r.provider(t, "payments", "pay-1", doortest.Handler{Call: func(ctx context.Context, _ *message.Call) *message.Reply {
		entered <- struct{}{}
		<-ctx.Done()
		ended <- ctx.Err()
		return &message.Reply{Err: errs.From(ctx.Err())}
	}})
	cc, ctx := r.byKey(t, "orders")
	short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
	defer cancel()
	check(t, "deadline", cc.Invoke(short, charge, text(""), new(wrapperspb.StringValue)), errs.DeadlineExceeded)
	<-entered
	<-ended
	leaving, cancel := context.WithCancel(ctx)
	go func() { <-entered; cancel() }()
	check(t, "cancel", cc.Invoke(leaving, charge, text(""), new(wrapperspb.StringValue)), errs.Canceled)
	<-ended
}

func TestProvisionAndRenew(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	key, _ := r.Key(t, "orders")
	client := telfordv1.NewIdentityClient(r.dial(t, ident.PinnedConfig(key, r.Clock)))
	private, csr, err := ident.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	out, err := client.Provision(t.Context(), &telfordv1.ProvisionRequest{KeyId: key.ID, Secret: key.Secret[:], Csr: csr, Service: "orders"})
	if err != nil {
		t.Fatal(err)
	}
	if out.GetNamespace() != "default" || out.GetService() != "orders" || out.GetInstance() == "" || out.GetTrustDomain() != r.Authority.TrustDomain() {
		t.Errorf("provisioned %v", out)
	}
	_, err = client.Provision(t.Context(), &telfordv1.ProvisionRequest{KeyId: key.ID, Secret: key.Secret[:], Csr: csr, Service: "payments"})
	check(t, "the key of another service", err, errs.PermissionDenied)
	_, err = client.Provision(t.Context(), &telfordv1.ProvisionRequest{KeyId: key.ID, Secret: make([]byte, 32), Csr: csr, Service: "orders"})
	check(t, "a false secret", err, errs.Unauthenticated)
	_, err = client.Renew(t.Context(), &telfordv1.RenewRequest{Csr: csr})
	check(t, "renew without a certificate", err, errs.Unauthenticated)

	cert, err := ident.Certificate(out.GetChain(), private)
	if err != nil {
		t.Fatal(err)
	}
	roots, err := ident.ParseCertificates(out.GetRoots())
	if err != nil {
		t.Fatal(err)
	}
	trust := ident.NewTrust(r.Clock)
	trust.SetRoots(roots)
	if err := trust.SetCertificate(cert); err != nil {
		t.Fatal(err)
	}
	renewed, err := telfordv1.NewIdentityClient(r.dial(t, trust.ClientConfig(ident.Expect{Runtime: true}))).Renew(t.Context(), &telfordv1.RenewRequest{Csr: csr})
	if err != nil || len(renewed.GetChain()) == 0 {
		t.Errorf("renewed %v, %v", renewed, err)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	key, _ := r.Key(t, "any")
	client := grpc_health_v1.NewHealthClient(r.dial(t, ident.PinnedConfig(key, r.Clock)))
	out, err := client.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || out.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("health %v, %v", out, err)
	}
}
