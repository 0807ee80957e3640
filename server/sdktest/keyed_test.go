package sdktest

import (
	"bytes"
	"context"
	"crypto/x509"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
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
	"telford.dev/telford/server/internal/idempotency"
	"telford.dev/telford/server/internal/store/storetest"
	"telford.dev/telford/server/runtime"
	"telford.dev/telford/server/telfordtest"
)

type payReq struct {
	Order string `json:"order"`
	Size  int    `json:"size,omitempty"`
}

type payResp struct {
	Run  int64  `json:"run"`
	Text string `json:"text,omitempty"`
}

// till is a service that counts how often it was asked to pay.
type till struct {
	*telford.Service
	runs  atomic.Int64
	begun chan telford.Inbound
	let   chan struct{} // what waits goes on when it is closed
}

// pay starts an instance of "pay". Its methods: "pay" answers at once, "slow" waits for
// let or the end of its context, "once" is the same and is not to be run again, "refuse"
// fails.
func (w *world) pay(opts ...telford.Option) *till {
	w.t.Helper()
	p := &till{Service: w.make("pay", opts...), begun: make(chan telford.Inbound, 100), let: make(chan struct{})}
	pay := func(ctx context.Context, in *payReq) (*payResp, error) {
		n := p.runs.Add(1)
		inbound, _ := telford.InboundFrom(ctx)
		p.begun <- inbound
		return &payResp{Run: n, Text: strings.Repeat("x", in.Size)}, nil
	}
	slow := func(ctx context.Context, in *payReq) (*payResp, error) {
		out, _ := pay(ctx, in)
		select {
		case <-p.let:
			return out, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	must(w.t, telford.Handle(p.Service, "pay", pay))
	must(w.t, telford.Handle(p.Service, "slow", slow))
	must(w.t, telford.Handle(p.Service, "once", slow, telford.Retryable(false)))
	must(w.t, telford.Handle(p.Service, "refuse", func(ctx context.Context, in *payReq) (*payResp, error) {
		_, _ = pay(ctx, in)
		return nil, telford.Errorf(telford.CodeConflict, "already charged")
	}))
	must(w.t, telford.HandleStream(p.Service, "watch", func(_ context.Context, _ *payReq, out *telford.Sender[payResp]) error {
		return out.Send(&payResp{})
	}))
	return p
}

// shop starts a service that calls "pay", and waits until it knows so many instances.
func (w *world) shop(n int) *telford.Service {
	w.t.Helper()
	s := w.start(w.make("shop", telford.CallerOnly(), telford.Uses("pay")))
	eventually(w.t, "the shop knows the tills", func() bool { return len(s.ServiceMap()["pay"].Instances) == n })
	return s
}

func payFor(t testing.TB, s *telford.Service, method, order string, opts ...telford.CallOption) (*payResp, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	return telford.Call[payResp](ctx, s, "pay", method, &payReq{Order: order}, opts...)
}

func wantRun(t testing.TB, resp *payResp, err error, run int64) {
	t.Helper()
	if err != nil || resp.Run != run {
		t.Fatalf("got %+v, %v; want run %d", resp, err, run)
	}
}

func begun(t testing.TB, p *till) telford.Inbound {
	t.Helper()
	select {
	case in := <-p.begun:
		return in
	case <-time.After(20 * time.Second):
		t.Fatal("the handler was not begun")
		panic("unreachable")
	}
}

// onBoth runs a test with a runtime on each engine.
func onBoth(t *testing.T, f func(t *testing.T, w *world), opts ...telfordtest.Option) {
	t.Parallel()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		f(t, newWorld(t, opts...))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		f(t, newWorld(t, append(opts, telfordtest.WithDatabase(storetest.Postgres(t)))...))
	})
}

func TestAKeyIsAnsweredOnce(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		p := w.pay()
		w.start(p.Service)
		shop := w.shop(1)
		first, err := payFor(t, shop, "pay", "1", telford.IdempotencyKey("k"), telford.BusinessKey("order 1"))
		wantRun(t, first, err, 1)
		if in := begun(t, p); in.IdempotencyKey != "k" || in.BusinessKey != "order 1" {
			t.Errorf("the handler sees %+v", in)
		}
		second, err := payFor(t, shop, "pay", "1", telford.IdempotencyKey("k"))
		wantRun(t, second, err, 1)
		_, err = payFor(t, shop, "pay", "2", telford.IdempotencyKey("k"))
		if !errors.Is(err, telford.ErrIdempotencyConflict) || !errors.Is(err, telford.ErrConflict) || !strings.Contains(err.Error(), `"k"`) {
			t.Errorf("another request: %v", err)
		}
		other, err := payFor(t, shop, "slow", "1", telford.IdempotencyKey("k"), telford.Timeout(time.Second))
		if !errors.Is(err, telford.ErrDeadlineExceeded) {
			t.Errorf("another method is another scope: %v, %v", other, err)
		}
		for range 2 {
			if _, err := payFor(t, shop, "refuse", "1", telford.IdempotencyKey("k")); !errors.Is(err, telford.ErrConflict) || !strings.Contains(err.Error(), "already charged") {
				t.Errorf("a failure of the handler: %v", err)
			}
		}
		if n := p.runs.Load(); n != 3 {
			t.Errorf("%d runs", n)
		}
	})
}

func TestManyCallsWithOneKey(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		p := w.pay()
		w.start(p.Service)
		w.start(w.pay().Service)
		shop := w.shop(2)
		const many = 100
		var got [many]int64
		var all sync.WaitGroup
		for i := range many {
			all.Go(func() {
				resp, err := payFor(t, shop, "pay", "1", telford.IdempotencyKey("many"))
				if err != nil {
					t.Errorf("call %d: %v", i, err)
					return
				}
				got[i] = resp.Run
			})
		}
		all.Wait()
		for i, run := range got {
			if run != 1 {
				t.Fatalf("call %d got the answer of run %d", i, run)
			}
		}
	})
}

func TestALargeAnswerOfAKey(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.pay()
	w.start(p.Service)
	shop := w.shop(1)
	call := func() (*payResp, error) {
		return telford.Call[payResp](t.Context(), shop, "pay", "pay", &payReq{Size: 100_000}, telford.IdempotencyKey("large"))
	}
	resp, err := call()
	wantRun(t, resp, err, 1)
	if len(resp.Text) != 100_000 {
		t.Errorf("%d bytes", len(resp.Text))
	}
	if _, err := call(); !errors.Is(err, telford.ErrAlreadyExists) || !strings.Contains(err.Error(), "not kept") {
		t.Errorf("the second call: %v", err)
	}
	if n := p.runs.Load(); n != 1 {
		t.Errorf("%d runs", n)
	}
}

func TestKeysAndTheWayOfCalls(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.pay()
	w.start(p.Service)
	shop := w.shop(1)
	if _, err := payFor(t, shop, "pay", "1", telford.IdempotencyKey("k"), telford.Transport(telford.Direct)); !errors.Is(err, telford.ErrFailedPrecondition) {
		t.Errorf("directly: %v", err)
	}
	for name, opt := range map[string]telford.CallOption{
		"empty": telford.IdempotencyKey(""), "too long": telford.IdempotencyKey(strings.Repeat("k", 257)),
		"not printable": telford.IdempotencyKey("a\nb"), "with a space": telford.IdempotencyKey(" a"),
		"no ASCII": telford.IdempotencyKey("ü"), "a business key": telford.BusinessKey("\x00"),
	} {
		if _, err := payFor(t, shop, "pay", "1", opt); !errors.Is(err, telford.ErrInvalidArgument) {
			t.Errorf("a key that is %s: %v", name, err)
		}
	}
	// Without a key the business key goes any way.
	for _, mode := range []telford.TransportMode{telford.Direct, telford.Proxy} {
		_, err := payFor(t, shop, "pay", "1", telford.BusinessKey("order 1"), telford.Transport(mode))
		must(t, err)
		if in := begun(t, p); in.BusinessKey != "order 1" || in.IdempotencyKey != "" {
			t.Errorf("the handler sees %+v", in)
		}
	}
	must(t, w.srv.Runtime().Stop(t.Context()))
	_, err := payFor(t, shop, "pay", "1", telford.IdempotencyKey("away"), telford.Timeout(time.Second))
	if !errors.Is(err, telford.ErrUnavailable) || !strings.Contains(err.Error(), "idempotency key") {
		t.Errorf("without a runtime: %v", err)
	}
}

func TestAKilledInstanceOpensTheKey(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		line := newWire(t, w.srv.Addr)
		victim := w.pay(telford.WithServer(line.addr()))
		w.start(victim.Service)
		shop := w.shop(1)
		type answer struct {
			resp *payResp
			err  error
		}
		call := func(method string, timeout time.Duration) <-chan answer {
			c := make(chan answer, 1)
			go func() {
				resp, err := payFor(t, shop, method, "1", telford.IdempotencyKey("k"), telford.Timeout(timeout), telford.MaxAttempts(1))
				c <- answer{resp, err}
			}()
			return c
		}
		first, once := call("slow", 3*time.Second), call("once", 3*time.Second)
		begun(t, victim)
		begun(t, victim)
		second := call("slow", 20*time.Second)
		line.kill()
		heir := w.pay()
		close(heir.let)
		w.start(heir.Service)
		if a := <-first; !errors.Is(a.err, telford.ErrUnavailable) && !errors.Is(a.err, telford.ErrDeadlineExceeded) {
			t.Errorf("the first call: %+v", a)
		}
		a := <-second
		wantRun(t, a.resp, a.err, 1)
		if n := heir.runs.Load(); n != 1 {
			t.Errorf("the second instance ran %d times", n)
		}
		<-once
		if _, err := payFor(t, shop, "once", "1", telford.IdempotencyKey("k")); !errors.Is(err, telford.ErrFailedPrecondition) || !strings.Contains(err.Error(), "unknown") {
			t.Errorf("a method that must not run again: %v", err)
		}
		if n := heir.runs.Load(); n != 1 {
			t.Errorf("the second instance ran %d times", n)
		}
	})
}

func TestACallerThatIsGone(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	p := w.pay()
	w.start(p.Service)
	shop := w.shop(1)
	ctx, cancel := context.WithCancel(t.Context())
	first := make(chan error, 1)
	go func() {
		_, err := telford.Call[payResp](ctx, shop, "pay", "slow", &payReq{Order: "1"}, telford.IdempotencyKey("k"))
		first <- err
	}()
	begun(t, p)
	cancel()
	if err := <-first; !errors.Is(err, telford.ErrCanceled) {
		t.Errorf("who left: %v", err)
	}
	w.stop(shop)
	close(p.let)
	heir := w.start(w.make("shop", telford.CallerOnly(), telford.Uses("pay")))
	resp, err := payFor(t, heir, "slow", "1", telford.IdempotencyKey("k"))
	wantRun(t, resp, err, 1)
	if n := p.runs.Load(); n != 1 {
		t.Errorf("%d runs", n)
	}
}

func TestKeysSurviveARestart(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		p := w.pay()
		w.start(p.Service)
		shop := w.shop(1)
		resp, err := payFor(t, shop, "pay", "1", telford.IdempotencyKey("done"))
		wantRun(t, resp, err, 1)
		cut := make(chan error, 1)
		go func() {
			_, err := payFor(t, shop, "slow", "1", telford.IdempotencyKey("cut"), telford.Timeout(4*time.Second), telford.MaxAttempts(1))
			cut <- err
		}()
		begun(t, p)
		begun(t, p)
		deadline := time.Now().Add(4 * time.Second)
		w.srv.Kill(t)
		w.srv.Restart(t)
		<-cut
		resp, err = payFor(t, shop, "pay", "1", telford.IdempotencyKey("done"))
		wantRun(t, resp, err, 1)
		// The instance of the call that was cut still runs it, as far as anybody knows.
		close(p.let)
		resp, err = payFor(t, shop, "slow", "1", telford.IdempotencyKey("cut"))
		wantRun(t, resp, err, 3)
		if early := time.Until(deadline); early > 200*time.Millisecond {
			t.Errorf("it ran %s before the deadline of the call that was cut", early)
		}
	})
}

func TestKeysExpire(t *testing.T) {
	t.Parallel()
	w := newWorld(t, telfordtest.With(func(c *runtime.Config) { c.IdempotencyLifetime = time.Second }))
	p := w.pay()
	w.start(p.Service)
	shop := w.shop(1)
	resp, err := payFor(t, shop, "pay", "1", telford.IdempotencyKey("k"))
	wantRun(t, resp, err, 1)
	eventually(t, "the key has expired", func() bool {
		resp, err := payFor(t, shop, "pay", "1", telford.IdempotencyKey("k"))
		return err == nil && resp.Run == 2
	})
}

// postPay calls over HTTP.
func (w *world) postPay(t testing.TB, token, method, body string, headers ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.srv.HTTP()+"/call/pay/"+method, strings.NewReader(body))
	must(t, err)
	req.Close = true
	req.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i < len(headers); i += 2 {
		req.Header.Add(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(req)
	must(t, err)
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	must(t, err)
	return resp.StatusCode, string(bytes.TrimSpace(text))
}

func TestKeysOverHTTP(t *testing.T) {
	onBoth(t, func(t *testing.T, w *world) {
		p := w.pay()
		w.start(p.Service)
		token := w.srv.Key(t, "web")
		var all sync.WaitGroup
		var answers [100]string
		for i := range answers {
			all.Go(func() {
				header := []string{"Idempotency-Key", "Telford-Idempotency-Key"}[i%2]
				status, body := w.postPay(t, token, "pay", `{"order":"1"}`, header, "k", "Telford-Business-Key", "order 1")
				answers[i] = strconv.Itoa(status) + " " + body
			})
		}
		all.Wait()
		for _, a := range answers {
			if a != `200 {"run":1}` {
				t.Fatalf("an answer is %s", a)
			}
		}
		if in := begun(t, p); in.IdempotencyKey != "k" || in.BusinessKey != "order 1" {
			t.Errorf("the handler sees %+v", in)
		}
		for _, c := range []struct {
			body    string
			headers []string
			status  int
			says    string
		}{
			{`{"order":"1"}`, []string{"Idempotency-Key", `"k"`}, 200, `"run":1`},
			{`{"order":"2"}`, []string{"Idempotency-Key", "k"}, 409, `"conflict"`},
			{`{"order":"1"}`, []string{"Idempotency-Key", "k", "Telford-Idempotency-Key", "l"}, 400, "one of them"},
			{`{"order":"1"}`, []string{"Idempotency-Key", "k", "Idempotency-Key", "l"}, 400, "once"},
			{`{"order":"1"}`, []string{"Idempotency-Key", ""}, 400, "empty"},
			{`{"order":"1"}`, []string{"Idempotency-Key", strings.Repeat("k", 257)}, 400, "256"},
			{`{"order":"1"}`, []string{"Idempotency-Key", "ü"}, 400, "ASCII"},
			{`{"order":"1"}`, []string{"Telford-Business-Key", strings.Repeat("k", 257)}, 400, "256"},
		} {
			if status, body := w.postPay(t, token, "pay", c.body, c.headers...); status != c.status || !strings.Contains(body, c.says) {
				t.Errorf("%v: %d %s, want %d with %q", c.headers, status, body, c.status, c.says)
			}
		}
		if status, body := w.postPay(t, w.srv.AdminToken(), "pay", `{"order":"2"}`, "Idempotency-Key", "k"); status != 200 || body != `{"run":2}` {
			t.Errorf("another caller is another scope: %d %s", status, body)
		}
		if n := p.runs.Load(); n != 2 {
			t.Errorf("%d runs", n)
		}
		records, err := w.srv.Runtime().Keys().List(t.Context(), idempotency.Filter{BusinessKey: "order 1"})
		if err != nil || len(records) != 1 || records[0].Caller != "web" || records[0].State != idempotency.Answered || records[0].Instance != p.Identity().Instance {
			t.Errorf("%v, %v", records, err)
		}
	})
}

// generated is a service of generated code that fails when it is asked to, with all that
// a failure of gRPC has.
type generated struct {
	grpc_testing.UnimplementedTestServiceServer
	runs atomic.Int32
}

func (g *generated) UnaryCall(ctx context.Context, in *grpc_testing.SimpleRequest) (*grpc_testing.SimpleResponse, error) {
	n := g.runs.Add(1)
	_ = grpc.SetHeader(ctx, metadata.Pairs("head", "h", "head-bin", "\x00\xff"))
	_ = grpc.SetTrailer(ctx, metadata.Pairs("tail", "t"))
	if s := in.GetResponseStatus(); s != nil {
		failure, err := status.New(codes.Code(s.GetCode()), s.GetMessage()).WithDetails(&grpc_testing.Payload{Body: []byte("why")}) //nolint:gosec // small
		if err != nil {
			return nil, err
		}
		return nil, failure.Err()
	}
	return &grpc_testing.SimpleResponse{Username: strconv.Itoa(int(n))}, nil
}

func TestKeysOverPlainGRPC(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	s, g := w.make("plain"), &generated{}
	grpc_testing.RegisterTestServiceServer(s, g)
	w.start(s)
	text, err := os.ReadFile(w.srv.CA())
	must(t, err)
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(text)
	conn, err := grpc.NewClient(w.srv.Addr(), grpc.WithTransportCredentials(credentials.NewClientTLSFromCert(pool, "localhost")))
	must(t, err)
	defer conn.Close()
	client := grpc_testing.NewTestServiceClient(conn)
	key := w.srv.Key(t, "web")
	call := func(id string, in *grpc_testing.SimpleRequest) (string, metadata.MD, metadata.MD, error) {
		ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+key, "telford-idempotency-key", id)
		var head, tail metadata.MD
		out, err := client.UnaryCall(ctx, in, grpc.Header(&head), grpc.Trailer(&tail))
		return out.GetUsername(), head, tail, err
	}
	for range 2 {
		got, head, tail, err := call("k", &grpc_testing.SimpleRequest{})
		if err != nil || got != "1" || head.Get("head-bin")[0] != "\x00\xff" || tail.Get("tail")[0] != "t" {
			t.Fatalf("%q, %v, %v, %v", got, head, tail, err)
		}
	}
	if _, _, _, err := call("k", &grpc_testing.SimpleRequest{FillUsername: true}); status.Code(err) != codes.Aborted {
		t.Errorf("another request: %v", err)
	}
	var first string
	for i := range 2 {
		_, head, _, err := call("failing", &grpc_testing.SimpleRequest{ResponseStatus: &grpc_testing.EchoStatus{Code: int32(codes.DataLoss), Message: "gone"}})
		st := status.Convert(err)
		if st.Code() != codes.DataLoss || st.Message() != "gone" || len(st.Details()) == 0 || len(head.Get("head")) != 1 {
			t.Fatalf("%v, %v, %v", err, st.Details(), head)
		}
		if i == 0 {
			first = st.Proto().String()
		} else if again := st.Proto().String(); again != first {
			t.Errorf("the first status is %s, the second %s", first, again)
		}
	}
	if n := g.runs.Load(); n != 2 {
		t.Errorf("%d runs", n)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+key, "telford-idempotency-key", "k")
	stream, err := client.StreamingOutputCall(ctx, &grpc_testing.StreamingOutputCallRequest{})
	must(t, err)
	if _, err := stream.Recv(); status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "unary") {
		t.Errorf("a stream with a key: %v", err)
	}
}
