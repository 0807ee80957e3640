package httpdoor

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/door/doortest"
)

func TestCall(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	seen := make(chan message.Call, 10)
	f.provider(t, doortest.Handler{Call: func(ctx context.Context, call *message.Call) *message.Reply {
		c := *call
		if d, ok := ctx.Deadline(); ok {
			c.Deadline = d
		}
		seen <- c
		return &message.Reply{
			ContentType: call.ContentType, Body: append([]byte(nil), call.Body...),
			Headers:  []message.Pair{{Key: "h", Value: []byte("1")}, {Key: "h-bin", Value: []byte{0, 255}}},
			Trailers: []message.Pair{{Key: "t", Value: []byte("end")}},
		}
	}})
	res := f.post(t, "/call/shop/echo", []byte(`{"a":1}`), "Content-Type", "application/json", "Telford-Request-Id", "req-1",
		"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "Telford-Timeout", "7s",
		"Telford-Meta-X", "1", "Telford-Meta-X", "2", "Telford-Meta-Y-Bin", "AP8=")
	if body := read(t, res); res.StatusCode != http.StatusOK || body != `{"a":1}` {
		t.Fatalf("%d %s", res.StatusCode, body)
	}
	for name, want := range map[string]string{
		"Content-Type": "application/json", "Telford-Request-Id": "req-1", "Telford-Meta-H": "1", "Telford-Meta-H-Bin": "AP8=",
		"Telford-Trailer-T": "end", "Traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
	} {
		if got := res.Header.Get(name); got != want {
			t.Errorf("header %s is %q, want %q", name, got, want)
		}
	}
	call := <-seen
	if call.RequestID != "req-1" || !call.Trace.Valid() || call.Caller.Service != "caller" || len(call.Headers) != 3 || string(call.Headers[2].Value) != "\x00\xff" {
		t.Errorf("at the callee: %+v", call)
	}
	if left := time.Until(call.Deadline); left < 5*time.Second || left > 7*time.Second {
		t.Errorf("deadline at the callee in %s", left)
	}
	// The full name, the bare last segment, the operator, msgpack for JSON handlers, no body.
	for path, headers := range map[string][]string{
		"/call/shop/shop.v1.Shop/Buy": nil,
		"/call/shop/Buy":              nil,
		"/call/shop/echo":             {"Authorization", "", "Authorization", "Bearer " + f.Authority.OperatorToken()},
	} {
		if res := f.post(t, path, nil, headers...); res.StatusCode != http.StatusOK {
			t.Errorf("%s: %d %s", path, res.StatusCode, read(t, res))
		} else if body := read(t, res); body != "{}" {
			t.Errorf("%s: %s", path, body)
		}
		if call := <-seen; headers != nil && call.Caller.Service != "telford.operator" {
			t.Errorf("the operator calls as %+v", call.Caller)
		}
	}
	// What curl -d sends, with nothing said of its type.
	res = f.post(t, "/call/shop/echo", []byte(`{"a":1}`), "Content-Type", "application/x-www-form-urlencoded")
	if body := read(t, res); res.StatusCode != http.StatusOK || body != `{"a":1}` || (<-seen).ContentType != message.JSON {
		t.Errorf("as a form: %d %q", res.StatusCode, body)
	}
	res = f.post(t, "/call/shop/echo", []byte("\x81\xa1a\x01"), "Content-Type", "application/msgpack")
	if body := read(t, res); res.StatusCode != http.StatusOK || body != "\x81\xa1a\x01" || res.Header.Get("Content-Type") != "application/msgpack" {
		t.Errorf("msgpack: %d %q %v", res.StatusCode, body, res.Header)
	}
}

func TestCallRefusals(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	f.provider(t, doortest.Handler{
		Call: func(context.Context, *message.Call) *message.Reply {
			return &message.Reply{Err: &errs.Error{Code: errs.Handler, GRPCCode: codes.NotFound, Message: "no such card"}}
		},
	})
	large := make([]byte, 17<<20)
	for name, c := range map[string]struct {
		path    string
		body    []byte
		headers []string
		status  int
		code    errs.Code
		says    string
	}{
		"no credential":      {"/call/shop/echo", nil, []string{"Authorization", ""}, 401, errs.Unauthenticated, "credential"},
		"a false key":        {"/call/shop/echo", nil, []string{"Authorization", "", "Authorization", "Bearer tlf_x"}, 401, errs.Unauthenticated, "key"},
		"another namespace":  {"/call/shop/echo", nil, []string{"Telford-Namespace", "acme"}, 403, errs.PermissionDenied, "acme"},
		"unknown service":    {"/call/shoop/echo", nil, nil, 404, errs.ServiceNotFound, "shop"},
		"unknown method":     {"/call/shop/ecko", nil, nil, 404, errs.MethodNotFound, "echo"},
		"no method":          {"/call/shop/", nil, nil, 400, errs.InvalidArgument, "/call/{service}/{method}"},
		"a stream as a call": {"/call/shop/count", nil, nil, 400, errs.FailedPrecondition, "stream"},
		"a content type":     {"/call/shop/echo", nil, []string{"Content-Type", "text/xml"}, 415, errs.InvalidArgument, "text/xml"},
		"a form":             {"/call/shop/echo", []byte("a=1&b=2"), []string{"Content-Type", "application/x-www-form-urlencoded"}, 415, errs.InvalidArgument, "Content-Type: application/protobuf"},
		"a timeout":          {"/call/shop/echo", nil, []string{"Telford-Timeout", "soon"}, 400, errs.InvalidArgument, `"soon"`},
		"a negative timeout": {"/call/shop/echo", nil, []string{"Telford-Timeout", "-1s"}, 400, errs.InvalidArgument, "-1s"},
		"two request ids":    {"/call/shop/echo", nil, []string{"Telford-Request-Id", "a", "Telford-Request-Id", "b"}, 400, errs.InvalidArgument, "telford-request-id"},
		"a reserved header":  {"/call/shop/echo", nil, []string{"Telford-Meta-Telford-Chain", "a"}, 400, errs.InvalidArgument, "telford-chain"},
		"headers too large":  {"/call/shop/echo", nil, []string{"Telford-Meta-X", strings.Repeat("a", 17<<10)}, 413, errs.ResourceExhausted, "16384"},
		"17 MiB":             {"/call/shop/echo", large, nil, 413, errs.ResourceExhausted, "17825792"},
		"a handler's error":  {"/call/shop/fail", nil, nil, 404, errs.Handler, "no such card"},
		"another path":       {"/cal/shop/echo", nil, nil, 404, errs.NotFound, "/cal/shop/echo"},
	} {
		res := f.post(t, c.path, c.body, c.headers...)
		p := problem(t, res)
		if res.StatusCode != c.status || p.Code != string(c.code) || !strings.Contains(p.Detail, c.says) {
			t.Errorf("%s: %d %+v, want %d %s naming %q", name, res.StatusCode, p, c.status, c.code, c.says)
		}
		if c.status == 401 && res.Header.Get("WWW-Authenticate") == "" {
			t.Errorf("%s: 401 without WWW-Authenticate", name)
		}
		if started := name == "a handler's error" || name == "another path"; p.NotStarted == started {
			t.Errorf("%s: not_started is %t", name, p.NotStarted)
		}
		if len(p.Meta) > 0 && p.Meta[metaStatus] != "" {
			t.Errorf("%s: meta %v", name, p.Meta)
		}
	}
	if p := problem(t, f.post(t, "/call/shop/echo", large)); !strings.Contains(p.Detail, "16777216") {
		t.Errorf("17 MiB does not name the limit: %q", p.Detail)
	}
	// The same without a length that could be looked at first.
	req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, f.url+"/call/shop/echo", &endless{left: 17 << 20})
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+f.key)
	if res, err := f.client.Do(req); err != nil {
		t.Errorf("17 MiB in pieces: %v", err)
	} else {
		if p := problem(t, res); res.StatusCode != http.StatusRequestEntityTooLarge || !strings.Contains(p.Detail, "16777216") {
			t.Errorf("17 MiB in pieces: %d %+v", res.StatusCode, p)
		}
		_ = res.Body.Close()
	}
}

// endless is a body of unknown length.
type endless struct{ left int }

func (e *endless) Read(p []byte) (int, error) {
	n := min(len(p), e.left)
	e.left -= n
	if n == 0 {
		return 0, io.EOF
	}
	return n, nil
}

func TestDeadlineAndDisconnectReachTheHandler(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	entered, ended := make(chan struct{}, 2), make(chan struct{}, 2)
	f.provider(t, doortest.Handler{Call: func(ctx context.Context, _ *message.Call) *message.Reply {
		entered <- struct{}{}
		<-ctx.Done()
		ended <- struct{}{}
		return &message.Reply{Err: errs.From(ctx.Err())}
	}})
	res := f.post(t, "/call/shop/echo", nil, "Telford-Timeout", "100ms")
	if p := problem(t, res); res.StatusCode != http.StatusGatewayTimeout || p.Code != string(errs.DeadlineExceeded) {
		t.Errorf("deadline: %d %+v", res.StatusCode, p)
	}
	<-entered
	<-ended
	ctx, cancel := context.WithCancel(t.Context())
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, f.url+"/call/shop/echo", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+f.key)
	go func() { <-entered; cancel() }()
	if res, err := f.client.Do(req); err == nil {
		_ = res.Body.Close()
		t.Error("a cancelled request was answered")
	}
	<-ended
}

func TestHealthReadyMetricsAdmin(t *testing.T) {
	t.Parallel()
	var notReady error
	f := start(t, func(c *Config) {
		c.Ready = func(context.Context) error { return notReady }
		c.Metrics = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("telford_up 1\n")) })
		c.Admin = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { _, _ = w.Write([]byte("admin " + r.URL.Path)) })
	})
	get := func(path, key string) (int, string) {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, f.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if key != "" {
			req.Header.Set("Authorization", "Bearer "+key)
		}
		res, err := f.client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		return res.StatusCode, read(t, res)
	}
	for _, c := range []struct {
		path, key string
		status    int
		says      string
	}{
		{"/healthz", "", 200, `"ok"`},
		{"/readyz", "", 200, `"ready"`},
		{"/metrics", "", 401, "credential"},
		{"/metrics", f.key, 200, "telford_up 1"},
		{"/api/v1/services", "", 200, "admin /api/v1/services"},
		{"/", "", 401, "credential"},
		{"/", f.key, 404, "POST /call/"},
		{"/call/shop/echo", f.key, 405, ""},
	} {
		if status, body := get(c.path, c.key); status != c.status && c.status != 405 || !strings.Contains(body, c.says) {
			t.Errorf("GET %s: %d %s, want %d with %q", c.path, status, body, c.status, c.says)
		}
	}
	notReady = errs.New(errs.Unavailable, "the store does not answer")
	if status, body := get("/readyz", ""); status != 503 || !strings.Contains(body, "the store does not answer") {
		t.Errorf("not ready: %d %s", status, body)
	}
}

// Every code has a status, and the one that the table in the reference gives it.
func TestStatusOfEveryCode(t *testing.T) {
	t.Parallel()
	want := map[errs.Code]int{
		errs.InvalidArgument: 400, errs.NotFound: 404, errs.ServiceNotFound: 404, errs.MethodNotFound: 404, errs.NoInstance: 503,
		errs.AlreadyExists: 409, errs.Conflict: 409, errs.PermissionDenied: 403, errs.Unauthenticated: 401, errs.DeadlineExceeded: 504,
		errs.Canceled: 499, errs.Unavailable: 503, errs.ResourceExhausted: 429, errs.DepthExceeded: 508, errs.FailedPrecondition: 400,
		errs.Terminal: 422, errs.Handler: 500, errs.Internal: 500,
	}
	for _, code := range errs.Codes() {
		if got := Status(errs.New(code, "x")); got != want[code] {
			t.Errorf("%s is %d, want %d", code, got, want[code])
		}
		if title(want[code]) == "" {
			t.Errorf("status %s has no title", strconv.Itoa(want[code]))
		}
	}
}
