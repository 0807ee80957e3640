package grpcdoor_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/policy"
	"telford.dev/telford/server/internal/door/doortest"
	"telford.dev/telford/server/internal/door/sessions"
	"telford.dev/telford/server/internal/router"
)

// client is a Session/Open stream as another language would hold it.
type client struct {
	t        *testing.T
	stream   grpc.BidiStreamingClient[telfordv1.ClientMessage, telfordv1.ServerMessage]
	cancel   context.CancelFunc
	messages chan *telfordv1.ServerMessage
	err      error // once messages is closed
	ack      *telfordv1.HelloAck
}

func (r *runtime) open(ctx context.Context, t *testing.T, cc *grpc.ClientConn) *client {
	t.Helper()
	ctx, cancel := context.WithCancel(ctx)
	stream, err := telfordv1.NewSessionClient(cc).Open(ctx)
	if err != nil {
		t.Fatal(err)
	}
	c := &client{t: t, stream: stream, cancel: cancel, messages: make(chan *telfordv1.ServerMessage, 4096)}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer close(c.messages)
		for {
			m, err := stream.Recv()
			if err != nil {
				c.err = err
				return
			}
			// Pings are answered at once, as every client has to.
			if p := m.GetPing(); p != nil {
				continue
			}
			c.messages <- m
		}
	}()
	t.Cleanup(func() { cancel(); <-ended })
	return c
}

func (c *client) say(m *telfordv1.ClientMessage) {
	c.t.Helper()
	if err := c.stream.Send(m); err != nil && !errors.Is(err, io.EOF) {
		c.t.Fatal(err)
	}
}

func (c *client) hello(h *telfordv1.Hello) *client {
	c.t.Helper()
	c.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Hello{Hello: h}})
	if m, ok := next[*telfordv1.ServerMessage_HelloAck](c); ok {
		c.ack = m.HelloAck
	}
	return c
}

// next returns the next message of a kind, skipping others; false at the end.
func next[T any](c *client) (T, bool) {
	c.t.Helper()
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	var none T
	for {
		select {
		case m, ok := <-c.messages:
			if !ok {
				return none, false
			}
			if v, ok := m.GetMessage().(T); ok {
				return v, true
			}
		case <-limit.C:
			c.t.Fatalf("no %T came in time", none)
		}
	}
}

func (r *runtime) worker(t *testing.T, hello *telfordv1.Hello) *client {
	t.Helper()
	cc, ctx := r.byKey(t, "payments")
	c := r.open(ctx, t, cc).hello(hello)
	if c.ack == nil {
		t.Fatal(c.err)
	}
	c.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Register{Register: shop("payments")}})
	if m, ok := next[*telfordv1.ServerMessage_Registered](c); !ok || m.Registered.GetRefused() != nil {
		t.Fatalf("registration: %v %v", m, c.err)
	}
	return c
}

func (r *runtime) call(ctx context.Context, body string) (*message.Reply, error) {
	return r.Router.Call(ctx, &router.Request{Namespace: "default", Call: &message.Call{
		Service: "payments", Method: "shop.v1.Payments/Charge", ContentType: message.Proto, Body: []byte(body),
	}})
}

func TestSessionOpen(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	c := r.worker(t, &telfordv1.Hello{Instance: "py-1", Sdk: "test"})
	if c.ack.GetInstance() != "py-1" || c.ack.GetEffectiveTransport() != "grpc" || c.ack.GetService() != "payments" {
		t.Errorf("HelloAck %v", c.ack)
	}
	in, err := r.Registry.Get("default", "py-1")
	if err != nil || in.Door != "grpc" || !in.Reachable {
		t.Errorf("instance %+v, %v", in, err)
	}

	// The runtime calls the worker.
	type answer struct {
		reply *message.Reply
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		reply, err := r.call(context.WithoutCancel(t.Context()), "hello")
		answers <- answer{reply, err}
	}()
	m, _ := next[*telfordv1.ServerMessage_Call](c)
	if m.Call.GetSeq() != 1 || m.Call.GetMethod() != "shop.v1.Payments/Charge" || string(m.Call.GetBody()) != "hello" || m.Call.GetContentType() != "proto" || m.Call.GetTimeoutUs() <= 0 {
		t.Errorf("command %v", m.Call)
	}
	c.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Result{Result: &telfordv1.Result{
		Seq: 1, ContentType: "proto", Body: []byte("world"), Trailers: []*telfordv1.Pair{{Key: "t", Value: []byte("x")}},
	}}})
	if a := <-answers; a.err != nil || string(a.reply.Body) != "world" || len(a.reply.Trailers) != 1 {
		t.Errorf("answer %+v, %v", a.reply, a.err)
	}

	// A handler's failure.
	go func() {
		reply, err := r.call(context.WithoutCancel(t.Context()), "fail")
		answers <- answer{reply, err}
	}()
	m, _ = next[*telfordv1.ServerMessage_Call](c)
	c.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Result{Result: &telfordv1.Result{
		Seq: m.Call.GetSeq(), Status: &telfordv1.Status{Code: "handler", GrpcCode: uint32(codes.NotFound), Message: "no such card"},
	}}})
	if a := <-answers; a.err != nil || a.reply.Err == nil || a.reply.Err.GRPCCode != codes.NotFound || a.reply.Err.Message != "no such card" {
		t.Errorf("failure %+v, %v", a.reply, a.err)
	}

	// A caller that leaves.
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		reply, err := r.call(ctx, "slow")
		answers <- answer{reply, err}
	}()
	m, _ = next[*telfordv1.ServerMessage_Call](c)
	cancel()
	if gone, _ := next[*telfordv1.ServerMessage_Cancel](c); gone.Cancel.GetSeq() != m.Call.GetSeq() {
		t.Errorf("Cancel %v of call %d", gone.Cancel, m.Call.GetSeq())
	}
	<-answers

	// The worker calls a service: itself.
	c.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Call{Call: &telfordv1.Call{
		Seq: 1, Service: "payments", Method: "shop.v1.Payments/Charge", ContentType: "proto", Body: []byte("me"), TimeoutUs: 5_000_000,
	}}})
	m, _ = next[*telfordv1.ServerMessage_Call](c)
	if m.Call.GetCallerService() != "payments" || m.Call.GetCallerInstance() != "py-1" {
		t.Errorf("the callee is told of caller %v", m.Call)
	}
	c.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Result{Result: &telfordv1.Result{Seq: m.Call.GetSeq(), ContentType: "proto", Body: []byte("self")}}})
	if res, _ := next[*telfordv1.ServerMessage_Result](c); res.Result.GetSeq() != 1 || string(res.Result.GetBody()) != "self" || res.Result.GetStatus() != nil {
		t.Errorf("result %v", res.Result)
	}
	// One that is refused.
	c.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Call{Call: &telfordv1.Call{Seq: 2, Service: "nobody", Method: "x", ContentType: "json", Body: []byte("{}")}}})
	if res, _ := next[*telfordv1.ServerMessage_Result](c); res.Result.GetStatus().GetCode() != "service_not_found" || !res.Result.GetStatus().GetNotStarted() {
		t.Errorf("result %v", res.Result)
	}
	// Goodbye.
	c.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Goodbye{Goodbye: &telfordv1.Goodbye{Reason: "done"}}})
	for range c.messages {
		continue
	}
	doortest.Eventually(t, "the worker is off the map", func() bool {
		_, err := r.Registry.Get("default", "py-1")
		return errs.CodeOf(err) == errs.NotFound
	})
}

func TestSessionOpenStreams(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	c := r.worker(t, &telfordv1.Hello{Instance: "py-1"})
	open := func() message.Stream {
		in, err := r.Router.Stream(t.Context(), &router.Request{Namespace: "default", Call: &message.Call{
			Service: "payments", Method: "shop.v1.Payments/Watch", Stream: true, ContentType: message.Proto, Body: []byte("go"),
		}})
		if err != nil {
			t.Fatal(err)
		}
		return in
	}
	in := open()
	m, _ := next[*telfordv1.ServerMessage_Call](c)
	seq := m.Call.GetSeq()
	if !m.Call.GetStream() || seq < 1<<52 {
		t.Errorf("command %v", m.Call)
	}
	chunk := func(seq uint64, body string, headers ...*telfordv1.Pair) {
		c.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Chunk{Chunk: &telfordv1.Chunk{Seq: seq, Body: []byte(body), Headers: headers}}})
	}
	chunk(seq, "", &telfordv1.Pair{Key: "h", Value: []byte("1")})
	for i := range 10 {
		chunk(seq, fmt.Sprint(i))
	}
	c.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Result{Result: &telfordv1.Result{Seq: seq, ContentType: "proto", Trailers: []*telfordv1.Pair{{Key: "t", Value: []byte("end")}}}}})
	if head, err := in.Headers(); err != nil || len(head) != 1 {
		t.Errorf("headers %v, %v", head, err)
	}
	for i := 0; ; i++ {
		b, err := in.Recv()
		if err != nil {
			if !errors.Is(err, io.EOF) || i != 10 || len(in.Trailers()) != 1 {
				t.Errorf("after %d messages: %v, trailers %v", i, err, in.Trailers())
			}
			break
		}
		if string(b) != fmt.Sprint(i) {
			t.Errorf("message %d is %q", i, b)
		}
	}

	// A receiver that does not read: the one stream ends, the session goes on.
	in = open()
	m, _ = next[*telfordv1.ServerMessage_Call](c)
	piece := strings.Repeat("x", 1<<20)
	for range 6 {
		chunk(m.Call.GetSeq(), piece)
	}
	if gone, _ := next[*telfordv1.ServerMessage_Cancel](c); gone.Cancel.GetSeq() != m.Call.GetSeq() {
		t.Errorf("Cancel %v", gone.Cancel)
	}
	var err error
	for err == nil {
		_, err = in.Recv()
	}
	if errs.CodeOf(err) != errs.ResourceExhausted || !strings.Contains(err.Error(), "4194304") {
		t.Errorf("the receiver that fell behind: %v", err)
	}

	// The worker asks for a stream of its own service.
	const mine = 1<<52 + 7
	c.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Call{Call: &telfordv1.Call{
		Seq: mine, Stream: true, Service: "payments", Method: "shop.v1.Payments/Watch", ContentType: "proto",
	}}})
	m, _ = next[*telfordv1.ServerMessage_Call](c)
	chunk(m.Call.GetSeq(), "one")
	if got, _ := next[*telfordv1.ServerMessage_Chunk](c); got.Chunk.GetSeq() != mine || string(got.Chunk.GetBody()) != "one" {
		t.Errorf("chunk %v", got.Chunk)
	}
	c.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Cancel{Cancel: &telfordv1.Cancel{Seq: mine}}})
	if gone, _ := next[*telfordv1.ServerMessage_Cancel](c); gone.Cancel.GetSeq() != m.Call.GetSeq() {
		t.Errorf("leaving a stream reaches its producer as %v", gone.Cancel)
	}
}

func TestSessionOpenResumes(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	key, text := r.Key(t, "payments")
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+text)
	cc := r.dial(t, ident.PinnedConfig(key, r.Clock))
	c := r.open(ctx, t, cc).hello(&telfordv1.Hello{Instance: "py-1"})
	c.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Register{Register: shop("payments")}})
	next[*telfordv1.ServerMessage_Registered](c)
	answers := make(chan error, 1)
	go func() {
		reply, err := r.call(context.WithoutCancel(t.Context()), "hello")
		if err == nil && string(reply.Body) != "kept" {
			err = fmt.Errorf("answer %q", reply.Body)
		}
		answers <- err
	}()
	m, _ := next[*telfordv1.ServerMessage_Call](c)
	c.cancel()
	doortest.Eventually(t, "the stream is lost", func() bool { _, n := r.Sessions.Counts(); return n == 0 })
	again := r.open(ctx, t, cc).hello(&telfordv1.Hello{Instance: "py-1", ResumeToken: c.ack.GetResumeToken(), ReceivedFloor: 1})
	if again.ack == nil || !again.ack.GetResumed() || again.ack.GetReplayed() != 1 {
		t.Fatalf("HelloAck %v, %v", again.ack, again.err)
	}
	// The command comes again under its number; the worker knows it and answers.
	m2, _ := next[*telfordv1.ServerMessage_Call](again)
	if m2.Call.GetSeq() != m.Call.GetSeq() {
		t.Errorf("command %d, then %d", m.Call.GetSeq(), m2.Call.GetSeq())
	}
	again.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Result{Result: &telfordv1.Result{Seq: 1, ContentType: "proto", Body: []byte("kept")}}})
	if err := <-answers; err != nil {
		t.Error(err)
	}
}

func TestSessionOpenRefusals(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{Sessions: sessions.Config{HelloTimeout: 200 * time.Millisecond}})
	key, text := r.Key(t, "payments")
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+text)
	cc := r.dial(t, ident.PinnedConfig(key, r.Clock))
	end := func(c *client) error {
		for range c.messages {
			continue
		}
		return c.err
	}
	check(t, "no credential", end(r.open(t.Context(), t, cc)), errs.Unauthenticated)
	operator := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+r.Authority.OperatorToken())
	check(t, "the operator", end(r.open(operator, t, cc)), errs.PermissionDenied)
	check(t, "no Hello", end(r.open(ctx, t, cc)), errs.DeadlineExceeded)
	check(t, "another service", end(r.open(ctx, t, cc).hello(&telfordv1.Hello{Service: "orders"})), errs.PermissionDenied)
	check(t, "a bad instance id", end(r.open(ctx, t, cc).hello(&telfordv1.Hello{Instance: "a/b"})), errs.InvalidArgument)
	c := r.open(ctx, t, cc)
	c.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Register{Register: shop("payments")}})
	check(t, "registering before Hello", end(c), errs.FailedPrecondition)
	c = r.open(ctx, t, cc).hello(&telfordv1.Hello{})
	if c.ack.GetInstance() == "" {
		t.Error("no instance id was chosen")
	}
	c.say(&telfordv1.ClientMessage{})
	check(t, "an empty message", end(c), errs.InvalidArgument)
	c = r.open(ctx, t, cc).hello(&telfordv1.Hello{})
	c.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Call{Call: &telfordv1.Call{Seq: 5, Stream: true, Method: "x", Service: "y"}}})
	if res, _ := next[*telfordv1.ServerMessage_Result](c); !strings.Contains(res.Result.GetStatus().GetMessage(), "4503599627370496") {
		t.Errorf("a stream among the numbers of commands: %v", res.Result)
	}
	c.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Call{Call: &telfordv1.Call{Seq: 1, Method: "x", ContentType: "xml"}}})
	if res, _ := next[*telfordv1.ServerMessage_Result](c); !strings.Contains(res.Result.GetStatus().GetMessage(), `"xml"`) {
		t.Errorf("an unknown content type: %v", res.Result)
	}
	c.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Call{Call: &telfordv1.Call{Method: "x"}}})
	check(t, "a call without a number", end(c), errs.InvalidArgument)

	// The same instance id from two processes.
	first := r.open(ctx, t, cc).hello(&telfordv1.Hello{Instance: "twice"})
	second := r.open(ctx, t, cc).hello(&telfordv1.Hello{Instance: "twice"})
	if m, ok := next[*telfordv1.ServerMessage_Fenced](first); !ok || m.Fenced.GetReason() == "" {
		t.Errorf("the first of two was told %v", m)
	}
	if s, _ := status.FromError(end(first)); s.Code() != codes.FailedPrecondition {
		t.Errorf("the first of two ended with %v", s)
	}
	if second.ack == nil {
		t.Error("the second of two was not welcomed")
	}

	// The key is revoked.
	if _, err := r.Authority.RevokeKey(t.Context(), key.ID, "test", "leaked"); err != nil {
		t.Fatal(err)
	}
	check(t, "revoked", end(second), errs.PermissionDenied)
}

// TestRulesOverTheStream: an instance in another language is told the rules, and
// believed, like any other.
func TestRulesOverTheStream(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	c := r.worker(t, &telfordv1.Hello{Instance: "pay-1"})
	rule, err := r.Rules.AddRule(t.Context(), "default", policy.Rule{Service: "payments", Action: policy.Handle, Effect: policy.Deny, Peer: "orders"}, "test")
	if err != nil {
		t.Fatal(err)
	}
	started := time.Now()
	for {
		m, ok := next[*telfordv1.ServerMessage_Rules](c)
		if !ok {
			t.Fatal(c.err)
		}
		if list := m.Rules.GetPolicy().GetRules(); len(list) == 1 && list[0].GetId() == rule.Rule.ID {
			break
		}
	}
	if took := time.Since(started); took > 2*time.Second {
		t.Errorf("the rule took %s", took)
	}
	c.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Report{Report: &telfordv1.Report{Denials: []*telfordv1.Denial{{
		Caller: "orders", Service: "payments", Method: "charge", By: &telfordv1.PolicyPair{Service: "payments", Action: "rpc.handle"}, Shadow: true, Count: 2,
	}}}}})
	doortest.Eventually(t, "what was reported is counted", func() bool {
		list, err := r.Rules.Shadow(t.Context(), "default")
		return err == nil && len(list) == 1 && list[0].Count == 2
	})
}
