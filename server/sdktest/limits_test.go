package sdktest

import (
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"telford.dev/telford"
	"telford.dev/telford/server/telfordtest"
)

const once = 0.0001 // in a second: no second one comes in a test

// narrow is a service whose methods are limited. Handlers of hold and watch run until
// their callers leave.
type narrow struct {
	*telford.Service
	held atomic.Int64
}

func (w *world) narrow(opts ...telford.Option) *narrow {
	w.t.Helper()
	n := &narrow{Service: w.make("narrow", opts...)}
	hold := func(ctx context.Context, _ *echoReq) (*echoResp, error) {
		n.held.Add(1)
		defer n.held.Add(-1)
		<-ctx.Done()
		return nil, ctx.Err()
	}
	echo := func(_ context.Context, in *echoReq) (*echoResp, error) { return &echoResp{Text: in.Text}, nil }
	must(w.t, telford.Handle(n.Service, "hold", hold, telford.Concurrency(1), telford.Queue(3)))
	must(w.t, telford.Handle(n.Service, "many", hold, telford.Concurrency(4), telford.LimitPerService()))
	must(w.t, telford.Handle(n.Service, "slow", hold, telford.Timeout(50*time.Millisecond)))
	must(w.t, telford.Handle(n.Service, "header", echo, telford.Rate(once, 1), telford.LimitBy(telford.ByHeader("X-Tenant"))))
	must(w.t, telford.Handle(n.Service, "field", echo, telford.Rate(once, 1), telford.LimitBy(telford.ByField("text"))))
	must(w.t, telford.Handle(n.Service, "func", echo, telford.Rate(once, 1), telford.LimitBy(telford.ByFunc(
		func(ctx context.Context, in *echoReq) string {
			call, _ := telford.InboundFrom(ctx)
			return call.Caller.Service + "/" + in.Text
		}))))
	must(w.t, telford.Handle(n.Service, "caller", echo, telford.Limit(telford.Rate(once, 1), telford.LimitBy(telford.ByCaller())), telford.Concurrency(100)))
	must(w.t, telford.Handle(n.Service, "soon", echo, telford.Rate(4, 1)))
	must(w.t, telford.HandleStream(n.Service, "watch", func(ctx context.Context, _ *echoReq, out *telford.Sender[echoResp]) error {
		if err := out.Send(&echoResp{Text: "begun"}); err != nil {
			return err
		}
		<-ctx.Done()
		return ctx.Err()
	}, telford.Concurrency(1)))
	grpc_testing.RegisterTestServiceServer(n.Service, testService{})
	must(w.t, n.Configure("grpc.testing.TestService/UnaryCall", telford.Rate(once, 1), telford.LimitBy(telford.ByField("response_size"))))
	must(w.t, n.Configure("grpc.testing.TestService/StreamingOutputCall", telford.Rate(once, 1), telford.LimitBy(telford.ByFunc(
		func(_ context.Context, in *grpc_testing.StreamingOutputCallRequest) string {
			return string(in.GetPayload().GetBody())
		}))))
	must(w.t, n.Configure("grpc.testing.TestService/StreamingInputCall", telford.Rate(once, 1)))
	w.start(n.Service)
	return n
}

func (w *world) caller(name string, opts ...telford.Option) *telford.Service {
	w.t.Helper()
	s := w.start(w.make(name, append([]telford.Option{telford.CallerOnly(), telford.Uses("narrow")}, opts...)...))
	must(w.t, s.WaitReady(w.t.Context(), "narrow"))
	return s
}

func isLimit(t *testing.T, what string, err error, meta map[string]string) *telford.Error {
	t.Helper()
	var e *telford.Error
	if !errors.Is(err, telford.ErrLimit) || !errors.As(err, &e) {
		t.Fatalf("%s: no limit: %v", what, err)
	}
	if !e.NotStarted || !e.Retryable || e.RetryAfter <= 0 {
		t.Errorf("%s: %+v", what, e)
	}
	for k, v := range meta {
		if e.Meta[k] != v {
			t.Errorf("%s: %s is %q, want %q (%v)", what, k, e.Meta[k], v, e)
		}
	}
	return e
}

func TestKeysOfLimits(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.narrow()
	caller, other := w.caller("caller"), w.caller("other")
	for name, mode := range map[string]telford.TransportMode{"direct": telford.Direct, "proxy": telford.Proxy} {
		call := func(s *telford.Service, method, text string, opts ...telford.CallOption) error {
			_, err := telford.Call[echoResp](t.Context(), s, "narrow", method, &echoReq{Text: name + text},
				append(opts, telford.Transport(mode), telford.MaxAttempts(1))...)
			return err
		}
		tenant := telford.Header("x-tenant", name+"A")
		must(t, call(caller, "header", "", tenant))
		isLimit(t, name+" header", call(other, "header", "", tenant), map[string]string{"limit": "method header, key header:x-tenant=" + name + "A"})
		must(t, call(caller, "header", "", telford.Header("x-tenant", name+"B")))
		for _, method := range []string{"field", "func"} {
			must(t, call(caller, method, "A"))
			err := call(caller, method, "A")
			isLimit(t, name+" "+method, err, map[string]string{"method": method, "service": "narrow", "running": "0"})
			must(t, call(caller, method, "B"))
		}
	}
	call := func(s *telford.Service) error {
		_, err := telford.Call[echoResp](t.Context(), s, "narrow", "caller", &echoReq{}, telford.MaxAttempts(1))
		return err
	}
	must(t, call(caller))
	isLimit(t, "caller", call(caller), map[string]string{"limit": "method caller, key caller=caller"})
	must(t, call(other))
}

func TestLimitsOverHTTPAndPlainGRPC(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.narrow()
	post := func(method, body string) (*http.Response, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.srv.HTTP()+"/call/narrow/"+method, strings.NewReader(body))
		must(t, err)
		req.Close = true
		req.Header.Set("Authorization", "Bearer "+w.srv.Key(t, "web"))
		resp, err := http.DefaultClient.Do(req)
		must(t, err)
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		must(t, err)
		return resp, string(text)
	}
	if resp, text := post("field", `{"text":"web"}`); resp.StatusCode != http.StatusOK {
		t.Fatal(text)
	}
	if resp, text := post("field", `{"text":"web"}`); resp.StatusCode != http.StatusTooManyRequests || resp.Header.Get("Retry-After") == "" ||
		!strings.Contains(text, "method field, key field:text=web") {
		t.Errorf("got %d, Retry-After %q: %s", resp.StatusCode, resp.Header.Get("Retry-After"), text)
	}
	if resp, text := post("grpc.testing.TestService/UnaryCall", `{"responseSize":70}`); resp.StatusCode != http.StatusOK {
		t.Fatal(text)
	}

	caller := w.caller("caller")
	trust, err := certify(t, w.srv, w.srv.Key(t, "plain"), "plain", "in-plain")
	must(t, err)
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, NextProtos: []string{"h2"}, InsecureSkipVerify: true, // it is the other end that is tested
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return trust.Certificate(), nil },
	}
	cc, err := grpc.NewClient("passthrough:///"+caller.ServiceMap()["narrow"].Instances[0].Address, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	must(t, err)
	defer cc.Close()
	for name, conn := range map[string]grpc.ClientConnInterface{"plain": cc, "Telford": caller.Conn("narrow")} {
		size := int32(len(name))
		stub := grpc_testing.NewTestServiceClient(conn)
		refused := func(what string, err error) {
			t.Helper()
			if s, _ := status.FromError(err); s.Code() != codes.ResourceExhausted {
				t.Errorf("%s, %s: got %v", name, what, err)
			}
		}
		call := func(size int32) error {
			_, err := stub.UnaryCall(t.Context(), &grpc_testing.SimpleRequest{ResponseSize: size})
			return err
		}
		must(t, call(size))
		refused("unary", call(size))
		// As JSON over HTTP it was the same field.
		refused("as before over HTTP", call(70))
		flow := func(key string) error {
			st, err := stub.StreamingOutputCall(t.Context(), &grpc_testing.StreamingOutputCallRequest{Payload: &grpc_testing.Payload{Body: []byte(key)}})
			if err == nil {
				_, err = st.Recv()
			}
			return err
		}
		must(t, flow(name+"A"))
		refused("stream", flow(name+"A"))
		must(t, flow(name+"B"))
	}
	input := func() error {
		st, err := grpc_testing.NewTestServiceClient(cc).StreamingInputCall(metadata.NewOutgoingContext(t.Context(), nil))
		if err == nil {
			_, err = st.CloseAndRecv()
		}
		return err
	}
	must(t, input())
	if s, _ := status.FromError(input()); s.Code() != codes.ResourceExhausted {
		t.Errorf("a stream of requests: %v", s)
	}
}

// keep begins a call that runs until the end of the test, or until the returned function
// is called.
func (n *narrow) keep(t *testing.T, caller *telford.Service, method string, opts ...telford.CallOption) (end func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	before := n.held.Load()
	go func() {
		defer close(done)
		_, _ = telford.Call[echoResp](ctx, caller, "narrow", method, &echoReq{}, append(opts, telford.Timeout(time.Minute))...)
	}()
	end = func() { cancel(); <-done }
	t.Cleanup(end)
	eventually(t, "a call runs", func() bool { return n.held.Load() > before })
	return end
}

func TestPlaceInLine(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.narrow()
	caller := w.caller("caller")
	n.keep(t, caller, "hold")
	for name, mode := range map[string]telford.TransportMode{"direct": telford.Direct, "proxy": telford.Proxy} {
		_, err := telford.Call[echoResp](t.Context(), caller, "narrow", "hold", &echoReq{},
			telford.Transport(mode), telford.Timeout(400*time.Millisecond), telford.MaxAttempts(1))
		isLimit(t, name, err, map[string]string{"limit": "method hold", "place": "1", "running": "1", "queued": "1"})
	}
	// A stream counts until it ends.
	watch := func(each func()) error {
		for _, err := range telford.Stream[echoResp](t.Context(), caller, "narrow", "watch", &echoReq{}) {
			if err != nil {
				return err
			}
			each()
			break
		}
		return nil
	}
	must(t, watch(func() {
		isLimit(t, "a second stream", watch(func() {}), map[string]string{"limit": "method watch", "running": "1"})
	}))
	eventually(t, "the place of the stream is free", func() bool { return watch(func() {}) == nil })
}

// A call that is refused by a rate comes again when it was told to.
func TestRetryAfterIsHonoured(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.narrow()
	caller := w.caller("caller")
	start := time.Now()
	for range 3 {
		if _, err := telford.Call[echoResp](t.Context(), caller, "narrow", "soon", &echoReq{}, telford.MaxAttempts(2),
			telford.RetryDelay(time.Millisecond, 2, time.Millisecond)); err != nil {
			t.Fatal(err)
		}
	}
	if took := time.Since(start); took < 490*time.Millisecond {
		t.Errorf("three calls of 4/s took %v", took)
	}
}

func TestTimeoutOfAHandler(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.narrow()
	caller := w.caller("caller")
	for name, mode := range map[string]telford.TransportMode{"direct": telford.Direct, "proxy": telford.Proxy} {
		_, err := telford.Call[echoResp](t.Context(), caller, "narrow", "slow", &echoReq{}, telford.Transport(mode), telford.Timeout(time.Minute))
		var e *telford.Error
		if !errors.Is(err, telford.ErrDeadlineExceeded) || !errors.As(err, &e) || e.Meta["timeout"] != "50ms" || !strings.Contains(e.Message, "limit of 50ms that its method sets itself") {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestLimitsChangeLive(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.narrow()
	caller := w.caller("caller")
	call := func(opts ...telford.CallOption) error {
		_, err := telford.Call[echoResp](t.Context(), caller, "narrow", "header", &echoReq{}, append(opts, telford.MaxAttempts(1))...)
		return err
	}
	must(t, call())
	isLimit(t, "declared", call(), nil)
	start := time.Now()
	id := w.srv.SetLimit(t, "narrow", "header", telfordtest.Limit{Rate: 1e6})
	eventually(t, "the override holds", func() bool { return call() == nil })
	w.srv.RemoveLimit(t, id)
	eventually(t, "the declaration holds again", func() bool { return call() != nil })
	if took := time.Since(start); took > 4*time.Second {
		t.Errorf("two changes took %v", took)
	}
	// A call that waits gets in when there is more room.
	n.keep(t, caller, "hold")
	waits := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go func() {
		_, err := telford.Call[echoResp](ctx, caller, "narrow", "hold", &echoReq{}, telford.Timeout(time.Minute))
		waits <- err
	}()
	w.srv.SetLimit(t, "narrow", "hold", telfordtest.Limit{Concurrency: 2})
	eventually(t, "the call that waited runs", func() bool { return n.held.Load() == 2 })
	cancel()
	if err := <-waits; !errors.Is(err, telford.ErrCanceled) {
		t.Error(err)
	}
	// The bounds of the instance.
	w.srv.SetLimit(t, "narrow", "", telfordtest.Limit{Concurrency: 1})
	eventually(t, "the bound of the instance holds", func() bool {
		_, err := telford.Call[echoResp](t.Context(), caller, "narrow", "soon", &echoReq{}, telford.MaxAttempts(1))
		var e *telford.Error
		return errors.As(err, &e) && e.Meta["limit"] == "inbound calls of this instance of narrow" && e.Meta["running"] == "1"
	})
}

func TestQuotaOfANamespace(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	n := w.narrow()
	caller := w.caller("caller")
	w.srv.SetLimit(t, "", "", telfordtest.Limit{Concurrency: 1, Instances: 2})
	end := n.keep(t, caller, "hold", telford.Transport(telford.Proxy))
	call := func(mode telford.TransportMode) error {
		_, err := telford.Call[echoResp](t.Context(), caller, "narrow", "caller", &echoReq{}, telford.Transport(mode), telford.MaxAttempts(1))
		return err
	}
	isLimit(t, "quota", call(telford.Proxy), map[string]string{"limit": "quota of namespace default", "running": "1", "queued": "0", "namespace": "default"})
	must(t, call(telford.Direct))
	end()
	eventually(t, "the quota is free", func() bool {
		var e *telford.Error
		return errors.As(call(telford.Proxy), &e) && e.Meta["limit"] == "method caller, key caller=caller"
	})
	// A third instance has no place.
	third := w.make("third", telford.CallerOnly())
	ctx, cancel := context.WithTimeout(t.Context(), 500*time.Millisecond)
	defer cancel()
	err := third.Start(ctx)
	if !errors.Is(err, telford.ErrResourceExhausted) && !errors.Is(err, telford.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "quota of namespace default") {
		t.Errorf("the third instance: %v", err)
	}
	w.stop(third)
}

// A limit of the service is divided among its instances, and divided anew when one comes
// or goes.
func TestLimitOfAServiceIsDivided(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	first := w.narrow()
	caller := w.caller("caller")
	only := telford.Instance(first.Identity().Instance)
	var ends []func()
	for range 2 {
		ends = append(ends, first.keep(t, caller, "many", only))
	}
	_ = ends
	fits := func() bool { // whether a third call runs
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		result := make(chan error, 1)
		go func() {
			_, err := telford.Call[echoResp](ctx, caller, "narrow", "many", &echoReq{}, only, telford.MaxAttempts(1))
			result <- err
		}()
		limit := time.NewTimer(10 * time.Second)
		defer limit.Stop()
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case err := <-result:
				isLimit(t, "a third call", err, map[string]string{"limit": "method many", "running": "2"})
				return false
			case <-tick.C:
				if first.held.Load() == 3 {
					cancel()
					<-result
					return true
				}
			case <-limit.C:
				t.Fatal("a call neither ran nor was refused")
			}
		}
	}
	if !fits() {
		t.Fatal("alone, and it has not the whole")
	}
	second := w.narrow()
	eventually(t, "the limit is divided by two", func() bool { return !fits() })
	w.stop(second.Service)
	eventually(t, "the limit is whole again", fits)
}
