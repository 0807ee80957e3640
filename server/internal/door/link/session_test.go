package linkdoor_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/door/doortest"
	"telford.dev/telford/server/internal/door/sessions"
	"telford.dev/telford/server/internal/router"
)

// payments starts one instance of service payments with method charge.
func payments(t *testing.T, r *runtime, instance string, h message.Handler) (*doortest.Instance, *doortest.Wire) {
	t.Helper()
	key, _ := r.Key(t, "payments")
	in := doortest.NewInstance(r.addr, r.Certify(t, key, "payments", instance), h)
	w := in.Connect(t, nil)
	if refused := w.Register(doortest.Declaration("payments", "charge")).GetRefused(); refused != nil {
		t.Fatalf("registration refused: %v", refused)
	}
	return in, w
}

func (r *runtime) charge(ctx context.Context, body string) (*message.Reply, error) {
	return r.Router.Call(ctx, &router.Request{Namespace: "default", Call: &message.Call{
		Service: "payments", Method: "charge", ContentType: message.JSON, Body: []byte(body),
	}})
}

func (r *runtime) reachable(instance string) bool {
	in, err := r.Registry.Get("default", instance)
	return err == nil && in.Reachable
}

func TestCallsBothWays(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	in, w := payments(t, r, "pay-1", doortest.Echo())
	if w.Ack.GetInstance() != "pay-1" || w.Ack.GetNamespace() != "default" || w.Ack.GetService() != "payments" || w.Ack.GetResumed() || w.Ack.GetHandover() {
		t.Errorf("HelloAck %v", w.Ack)
	}
	if w.Ack.GetInitialPermits() != 64 || w.Ack.GetHeartbeatIntervalUs() != 10_000_000 || w.Ack.GetHeartbeatTimeoutUs() != 30_000_000 {
		t.Errorf("numbers of the session: %v", w.Ack)
	}
	reply, err := r.charge(t.Context(), `{"cents":1}`)
	if err != nil || string(reply.Body) != `{"cents":1}` {
		t.Fatalf("through the runtime: %v, %v", reply, err)
	}
	reply, err = in.Peer.Call(t.Context(), &message.Call{Service: "payments", Method: "charge", ContentType: message.JSON, Body: []byte(`{"cents":2}`)})
	if err != nil || string(reply.Body) != `{"cents":2}` {
		t.Fatalf("from the instance: %v, %v", reply, err)
	}
	reply, err = in.Peer.Call(t.Context(), &message.Call{Service: "paymints", Method: "charge", ContentType: message.JSON, Body: []byte(`{}`)})
	if err == nil {
		err = reply.Err
	}
	if errs.CodeOf(err) != errs.ServiceNotFound {
		t.Errorf("call of an unknown service: %v", err)
	}
}

func TestRevocationSnapshotComesFirst(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	key, _ := r.Key(t, "gone")
	if _, err := r.Authority.RevokeKey(t.Context(), key.ID, "test", "leaked"); err != nil {
		t.Fatal(err)
	}
	_, w := payments(t, r, "pay-1", doortest.Echo())
	// A second one, while the session lives, comes as a delta.
	first := w.Snapshot(t)
	if !first.GetSnapshot() || len(first.GetKeys()) != 1 || first.GetKeys()[0] != key.ID {
		t.Errorf("first revocation message: %v", first)
	}
	if err := r.Authority.RevokeInstance(t.Context(), "default", "other", "test", "lost"); err != nil {
		t.Fatal(err)
	}
	next := doortest.Next[*telfordv1.ServerMessage_Revocation](w).Revocation
	if next.GetSnapshot() || len(next.GetInstances()) != 1 || next.GetInstances()[0] != "default/other" {
		t.Errorf("second revocation message: %v", next)
	}
}

func TestRevokedKeyEndsItsSession(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	key, _ := r.Key(t, "payments")
	in := doortest.NewInstance(r.addr, r.Certify(t, key, "payments", "pay-1"), doortest.Echo())
	w := in.Connect(t, nil)
	w.Register(doortest.Declaration("payments", "charge"))
	if _, err := r.Authority.RevokeKey(t.Context(), key.ID, "test", "leaked"); err != nil {
		t.Fatal(err)
	}
	select {
	case <-w.Done():
	case <-time.After(2 * time.Second):
		t.Fatal("the session of a revoked key goes on for over 2 s")
	}
	doortest.Eventually(t, "the instance is off the map", func() bool {
		_, err := r.Registry.Get("default", "pay-1")
		return errs.CodeOf(err) == errs.NotFound
	})
	_, err := doortest.DialLink(t, r.addr, in.Trust, link.Options{})
	if errs.CodeOf(err) != errs.PermissionDenied {
		t.Errorf("coming back: %v, want a refusal that says revoked", err)
	}
}

func TestLostConnectionIsUnreachableAtOnceAndResumes(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	entered, leave := make(chan struct{}, 10), make(chan struct{})
	ran := 0
	in, w := payments(t, r, "pay-1", doortest.Handler{Call: func(ctx context.Context, call *message.Call) *message.Reply {
		ran++
		entered <- struct{}{}
		<-leave
		return &message.Reply{ContentType: call.ContentType, Body: []byte(`"done"`)}
	}})
	type answer struct {
		reply *message.Reply
		err   error
	}
	answers := make(chan answer, 1)
	go func() {
		reply, err := r.charge(context.WithoutCancel(t.Context()), `{}`)
		answers <- answer{reply, err}
	}()
	<-entered
	_ = w.NetConn().Close()
	in.Peer.Detach(w.Conn, errors.New("cut"))
	doortest.Eventually(t, "the instance is unreachable", func() bool { return !r.reachable("pay-1") })
	close(leave)
	again := in.Connect(t, nil)
	if !again.Ack.GetResumed() || again.Ack.GetHandover() || again.Ack.GetSessionId() != w.Ack.GetSessionId() || again.Ack.GetReplayed() != 1 {
		t.Errorf("HelloAck after the cut: %v", again.Ack)
	}
	got := <-answers
	if got.err != nil || string(got.reply.Body) != `"done"` || ran != 1 {
		t.Errorf("answer %v, %v after %d runs", got.reply, got.err, ran)
	}
	doortest.Eventually(t, "the instance is reachable again", func() bool { return r.reachable("pay-1") })
}

func TestSessionEndsWithItsWindow(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{Sessions: sessions.Config{Window: 50 * time.Millisecond}})
	in, w := payments(t, r, "pay-1", doortest.Echo())
	_ = w.NetConn().Close()
	in.Peer.Detach(w.Conn, errors.New("cut"))
	doortest.Eventually(t, "the session is forgotten", func() bool { all, _ := r.Sessions.Counts(); return all == 0 })
	again := in.Connect(t, nil)
	if again.Ack.GetResumed() || again.Ack.GetSessionId() == w.Ack.GetSessionId() {
		t.Errorf("HelloAck after the window: %v", again.Ack)
	}
	if _, err := r.Registry.Get("default", "pay-1"); err != nil {
		t.Errorf("the registration ended with the session: %v", err)
	}
}

func TestHandover(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	entered, leave := make(chan string, 10), make(chan struct{})
	in, old := payments(t, r, "pay-1", doortest.Handler{Call: func(_ context.Context, call *message.Call) *message.Reply {
		entered <- string(call.Body)
		if string(call.Body) == `"old"` {
			<-leave
		}
		return &message.Reply{ContentType: call.ContentType, Body: append([]byte(nil), call.Body...)}
	}})
	answers := make(chan error, 1)
	go func() {
		_, err := r.charge(context.WithoutCancel(t.Context()), `"old"`)
		answers <- err
	}()
	<-entered
	next := in.Connect(t, nil)
	if !next.Ack.GetResumed() || !next.Ack.GetHandover() {
		t.Errorf("HelloAck of a handover: %v", next.Ack)
	}
	if _, err := r.charge(t.Context(), `"new"`); err != nil {
		t.Errorf("a call after the handover: %v", err)
	}
	<-entered
	select {
	case <-old.Done():
		t.Error("the old connection closed while a call was running on it")
	default:
	}
	close(leave)
	if err := <-answers; err != nil {
		t.Errorf("the call on the old connection: %v", err)
	}
	select {
	case <-old.Done():
	case <-time.After(5 * time.Second):
		t.Error("the old connection stays open with nothing to do")
	}
	if !r.reachable("pay-1") {
		t.Error("unreachable after a handover")
	}
}

func TestSecondProcessFencesTheFirst(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	first, w := payments(t, r, "pay-1", doortest.Echo())
	second := doortest.NewInstance(r.addr, first.Trust, doortest.Echo())
	w2 := second.Connect(t, nil)
	if w2.Ack.GetResumed() {
		t.Errorf("HelloAck of the second process: %v", w2.Ack)
	}
	if f := doortest.Next[*telfordv1.ServerMessage_Fenced](w); f == nil || f.Fenced.GetReason() == "" {
		t.Errorf("the first process was told %v", f)
	}
	<-w.Done()
	// It does not come back with what it knows.
	w3 := first.Connect(t, nil)
	if w3.Ack != nil {
		t.Errorf("a fenced process came back: %v", w3.Ack)
	}
	select {
	case <-w2.Done():
		t.Error("the second process was thrown out by the fenced one")
	default:
	}
	if r.reachable("pay-1") {
		t.Error("reachable before the second process has registered")
	}
	w2.Register(doortest.Declaration("payments", "charge"))
	if _, err := r.charge(t.Context(), `{}`); err != nil {
		t.Error(err)
	}
}

func TestGoodbye(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	_, w := payments(t, r, "pay-1", doortest.Echo())
	w.Send(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Goodbye{Goodbye: &telfordv1.Goodbye{Draining: true}}})
	doortest.Eventually(t, "the instance drains", func() bool {
		in, err := r.Registry.Get("default", "pay-1")
		return err == nil && in.Draining
	})
	if _, err := r.charge(t.Context(), `{}`); errs.CodeOf(err) != errs.NoInstance {
		t.Errorf("a call of a draining instance: %v", err)
	}
	w.Send(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Goodbye{Goodbye: &telfordv1.Goodbye{Reason: "SIGTERM"}}})
	<-w.Done()
	doortest.Eventually(t, "the instance is gone", func() bool {
		_, err := r.Registry.Get("default", "pay-1")
		return errs.CodeOf(err) == errs.NotFound
	})
}

func TestWatch(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	_, w := payments(t, r, "pay-1", doortest.Echo())
	w.Send(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Watch{Watch: &telfordv1.WatchRequest{Services: []string{"payments"}}}})
	snapshot := doortest.Next[*telfordv1.ServerMessage_Watch](w).Watch
	if !snapshot.GetSnapshot() || len(snapshot.GetUpserts()) != 1 || snapshot.GetUpserts()[0].GetId() != "pay-1" {
		t.Fatalf("snapshot %v", snapshot)
	}
	_, w2 := payments(t, r, "pay-2", doortest.Echo())
	for seen := false; !seen; {
		m := doortest.Next[*telfordv1.ServerMessage_Watch](w)
		if m == nil {
			t.Fatalf("the connection ended: %v", w.Err())
		}
		if m.Watch.GetSnapshot() {
			t.Errorf("a snapshot where a delta was due: %v", m.Watch)
		}
		for _, u := range m.Watch.GetUpserts() {
			seen = seen || u.GetId() == "pay-2" && u.GetReachable()
		}
	}
	w2.Send(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Goodbye{Goodbye: &telfordv1.Goodbye{Reason: "done"}}})
	for gone := false; !gone; {
		m := doortest.Next[*telfordv1.ServerMessage_Watch](w)
		if m == nil {
			t.Fatalf("the connection ended: %v", w.Err())
		}
		for _, g := range m.Watch.GetRemovals() {
			gone = g.GetId() == "pay-2" && g.GetReason() == string(catalog.Deregistered)
		}
	}
}

func TestRefusals(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{Sessions: sessions.Config{HelloTimeout: 200 * time.Millisecond}})
	key, _ := r.Key(t, "payments")
	trust := r.Certify(t, key, "payments", "pay-1")
	hello := func(change func(*telfordv1.Hello)) error {
		w := doortest.NewInstance(r.addr, trust, doortest.Echo()).Connect(t, change)
		if w.Ack != nil {
			t.Errorf("welcomed: %v", w.Ack)
		}
		<-w.Done()
		return w.Err()
	}
	for name, c := range map[string]struct {
		change func(*telfordv1.Hello)
		want   string
	}{
		"another service":  {func(h *telfordv1.Hello) { h.Service = "orders" }, `service "orders"`},
		"another instance": {func(h *telfordv1.Hello) { h.Instance = "pay-2" }, `instance "pay-2"`},
	} {
		err := hello(c.change)
		if err == nil || !contains(err.Error(), c.want) || !contains(err.Error(), "permission_denied") {
			t.Errorf("Hello of %s: %v", name, err)
		}
	}

	open := func() (*link.Conn, func(*telfordv1.ClientMessage)) {
		c, err := doortest.DialLink(t, r.addr, trust, link.Options{Control: func([]byte) {}})
		if err != nil {
			t.Fatal(err)
		}
		return c, func(m *telfordv1.ClientMessage) {
			b, err := proto.Marshal(m)
			if err != nil {
				t.Fatal(err)
			}
			_ = c.Control(b)
		}
	}
	c, _ := open()
	if _, err := c.Call(t.Context(), &message.Call{Service: "payments", Method: "charge"}); errs.CodeOf(err) != errs.FailedPrecondition {
		t.Errorf("a call before Hello: %v", err)
	}
	<-c.Done() // no Hello in time
	if !contains(c.Err().Error(), "no Hello came") {
		t.Errorf("without Hello: %v", c.Err())
	}
	c, send := open()
	send(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Ping{Ping: &telfordv1.Ping{}}})
	<-c.Done()
	if !contains(c.Err().Error(), "begins with Hello") {
		t.Errorf("a Ping before Hello: %v", c.Err())
	}
	c, send = open()
	send(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Hello{Hello: &telfordv1.Hello{}}})
	_ = c.Control([]byte{0xff, 0xff, 0xff})
	<-c.Done()
	if !contains(c.Err().Error(), "cannot be decoded") {
		t.Errorf("garbage in a control frame: %v", c.Err())
	}
	w := doortest.NewInstance(r.addr, trust, doortest.Echo()).Connect(t, nil)
	refused := w.Register(doortest.Declaration("orders", "x")).GetRefused()
	if refused == nil || refused.GetCode() != string(errs.PermissionDenied) && refused.GetCode() != string(errs.InvalidArgument) {
		t.Errorf("a declaration of another service: %v", refused)
	}
}

func TestSilentInstanceIsSuspendedThenCut(t *testing.T) {
	t.Parallel()
	// The instance reads nothing and says nothing: a black hole behind an open socket.
	r := start(t, doortest.Options{Sessions: sessions.Config{Interval: 90 * time.Millisecond, Timeout: 400 * time.Millisecond}})
	key, _ := r.Key(t, "payments")
	trust := r.Certify(t, key, "payments", "pay-1")
	hole := &blackHole{Conn: doortest.Dial(t, r.addr, trust, link.ALPN), closed: make(chan struct{})}
	answered := make(chan *telfordv1.ServerMessage, 100)
	c, err := link.Dial(t.Context(), hole, link.Options{Handler: doortest.Echo(), Control: func(b []byte) {
		m := new(telfordv1.ServerMessage)
		if proto.Unmarshal(b, m) == nil {
			select {
			case answered <- m:
			default:
			}
		}
	}})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close(nil)
	for _, m := range []*telfordv1.ClientMessage{
		{Message: &telfordv1.ClientMessage_Hello{Hello: &telfordv1.Hello{}}},
		{Message: &telfordv1.ClientMessage_Register{Register: doortest.Declaration("payments", "charge")}},
	} {
		b, _ := proto.Marshal(m)
		if err := c.Control(b); err != nil {
			t.Fatal(err)
		}
	}
	doortest.Eventually(t, "the instance is reachable", func() bool { return r.reachable("pay-1") })
	hole.swallow.Store(true)
	doortest.Eventually(t, "the silent instance is unreachable", func() bool { return !r.reachable("pay-1") })
	_, connected := r.Sessions.Counts()
	if connected != 1 {
		t.Error("two misses cut the connection instead of suspending the session")
	}
	// A call does not wait for it.
	if _, err := r.charge(t.Context(), `{}`); errs.CodeOf(err) != errs.NoInstance || !contains(err.Error(), "without a live session") {
		t.Errorf("a call to a silent instance: %v", err)
	}
	doortest.Eventually(t, "the silent connection is cut", func() bool { _, n := r.Sessions.Counts(); return n == 0 })
}

func TestDeafInstanceIsFound(t *testing.T) {
	t.Parallel()
	const interval = 300 * time.Millisecond
	r := start(t, doortest.Options{Sessions: sessions.Config{Interval: interval, Timeout: time.Second}})
	key, _ := r.Key(t, "payments")
	trust := r.Certify(t, key, "payments", "pay-1")
	// It answers pings, which the link does, but no command ever reaches its handler's end
	// and it acknowledges nothing.
	stuck := make(chan struct{})
	defer close(stuck)
	c, err := doortest.DialLink(t, r.addr, trust, link.Options{Control: func([]byte) {}, Handler: doortest.Handler{
		Call: func(context.Context, *message.Call) *message.Reply { <-stuck; return nil },
	}})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range []*telfordv1.ClientMessage{
		{Message: &telfordv1.ClientMessage_Hello{Hello: &telfordv1.Hello{}}},
		{Message: &telfordv1.ClientMessage_Register{Register: doortest.Declaration("payments", "charge")}},
	} {
		b, _ := proto.Marshal(m)
		if err := c.Control(b); err != nil {
			t.Fatal(err)
		}
	}
	doortest.Eventually(t, "the instance is reachable", func() bool { return r.reachable("pay-1") })
	begin := time.Now()
	_, err = r.charge(t.Context(), `{}`)
	took := time.Since(begin)
	if errs.CodeOf(err) != errs.Unavailable || !contains(err.Error(), "acknowledged no command") {
		t.Errorf("the waiting call: %v", err)
	}
	if took < 2*interval || took > 4*interval {
		t.Errorf("found after %s, want about two intervals of %s", took, interval)
	}
	if r.reachable("pay-1") {
		t.Error("still reachable")
	}
}

func TestStopDrains(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	entered, leave := make(chan struct{}), make(chan struct{})
	_, w := payments(t, r, "pay-1", doortest.Handler{Call: func(_ context.Context, call *message.Call) *message.Reply {
		close(entered)
		<-leave
		return &message.Reply{ContentType: call.ContentType, Body: []byte(`1`)}
	}})
	answers := make(chan error, 1)
	go func() {
		_, err := r.charge(context.WithoutCancel(t.Context()), `{}`)
		answers <- err
	}()
	<-entered
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		r.StopSessions(10 * time.Second)
	}()
	d := doortest.Next[*telfordv1.ServerMessage_Drain](w)
	if d == nil || d.Drain.GetReconnectAfterUs() <= 0 || d.Drain.GetDeadlineUs() <= 0 {
		t.Fatalf("Drain: %v", d)
	}
	key, _ := r.Key(t, "payments")
	_, err := doortest.DialLink(t, r.addr, r.Certify(t, key, "payments", "pay-2"), link.Options{})
	var e *errs.Error
	if !errors.As(err, &e) || e.Code != errs.Unavailable || e.RetryAfter <= 0 {
		t.Errorf("a connection while the runtime stops: %v", err)
	}
	close(leave)
	if err := <-answers; err != nil {
		t.Errorf("the call under way: %v", err)
	}
	<-w.Done()
	<-stopped
}

func TestRenewOverTheSession(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{})
	in, w := payments(t, r, "pay-1", doortest.Echo())
	private, csr, err := ident.NewRequest()
	if err != nil {
		t.Fatal(err)
	}
	body, _ := proto.Marshal(&telfordv1.RenewRequest{Csr: csr})
	reply, err := in.Peer.Call(t.Context(), &message.Call{Service: "telford", Method: "telford.v1.Identity/Renew", ContentType: message.Proto, Body: body})
	if err != nil || reply.Err != nil {
		t.Fatal(err, reply)
	}
	renewed := new(telfordv1.RenewResponse)
	if err := proto.Unmarshal(reply.Body, renewed); err != nil {
		t.Fatal(err)
	}
	cert, err := ident.Certificate(renewed.GetChain(), private)
	if err != nil {
		t.Fatal(err)
	}
	if err := in.Trust.SetCertificate(cert); err != nil {
		t.Fatal(err)
	}
	next := in.Connect(t, nil)
	if !next.Ack.GetHandover() {
		t.Errorf("HelloAck with the next certificate: %v", next.Ack)
	}
	if _, err := r.charge(t.Context(), `{}`); err != nil {
		t.Error(err)
	}
	_ = w
}

func TestLinkEndsWithItsCertificate(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{LeafLife: 2 * time.Second})
	in, w := payments(t, r, "pay-1", doortest.Echo())
	end := in.Trust.Identity().NotAfter
	select {
	case <-w.Done():
	case <-time.After(time.Until(end) + 2*time.Second):
		t.Fatal("the link goes on after its certificate has ended")
	}
	if time.Now().Before(end.Add(-time.Second)) {
		t.Error("the link ended long before its certificate")
	}
}

// A cut that the runtime has not noticed: the instance comes back with its token while
// the old connection still looks alive. What was on its way there goes on over the new
// one without waiting for a timeout of the network.
func TestResumeBeforeTheCutIsNoticed(t *testing.T) {
	t.Parallel()
	r := start(t, doortest.Options{Sessions: sessions.Config{Interval: 600 * time.Millisecond}})
	key, _ := r.Key(t, "payments")
	trust := r.Certify(t, key, "payments", "pay-1")
	in := doortest.NewInstance(r.addr, trust, doortest.Echo())
	hole := &blackHole{Conn: doortest.Dial(t, r.addr, trust, link.ALPN), closed: make(chan struct{})}
	old := in.Over(t, hole)
	old.Register(doortest.Declaration("payments", "charge"))
	hole.swallow.Store(true)
	answers := make(chan error, 1)
	go func() {
		_, err := r.charge(context.WithoutCancel(t.Context()), `{}`)
		answers <- err
	}()
	doortest.Eventually(t, "the call is on its way", func() bool {
		for _, s := range r.Sessions.List() {
			if s.Outbound == 1 {
				return true
			}
		}
		return false
	})
	in.Peer.Detach(old.Conn, errors.New("no route"))
	if next := in.Connect(t, nil); !next.Ack.GetResumed() {
		t.Errorf("HelloAck %v", next.Ack)
	}
	select {
	case err := <-answers:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		t.Error("the call is lost with the old connection")
	}
}
