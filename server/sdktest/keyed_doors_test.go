package sdktest

import (
	"bytes"
	"context"
	"crypto/x509"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/interop/grpc_testing"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"telford.dev/telford/server/internal/idempotency"
)

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
		failure, err := status.New(codes.Code(s.GetCode()), s.GetMessage()).WithDetails(&grpc_testing.Payload{Body: []byte("why")})
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
