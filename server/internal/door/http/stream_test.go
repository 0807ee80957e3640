package httpdoor

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/door/doortest"
)

// counter streams numbers: as many as the request says, then fails if it says so.
func counter(ended chan<- error) doortest.Handler {
	return doortest.Handler{Stream: func(ctx context.Context, call *message.Call, out message.Sender) *message.Reply {
		var in struct {
			N    int
			Fail string
			Pad  int
			Wait bool
		}
		if err := json.Unmarshal(call.Body, &in); err != nil {
			return &message.Reply{Err: errs.New(errs.InvalidArgument, "%w", err)}
		}
		if err := out.SendHeaders([]message.Pair{{Key: "h", Value: []byte("1")}}); err != nil {
			return &message.Reply{Err: errs.From(err)}
		}
		for i := 0; in.N < 0 || i < in.N; i++ {
			if err := out.Send([]byte(fmt.Sprintf("{\n \"i\": %d, \"pad\": %q\n}", i, strings.Repeat("x", in.Pad)))); err != nil {
				ended <- err
				return &message.Reply{Err: errs.From(err)}
			}
		}
		if in.Wait {
			<-ctx.Done()
			ended <- ctx.Err()
		}
		r := &message.Reply{ContentType: message.JSON, Trailers: []message.Pair{{Key: "t", Value: []byte("end")}}}
		if in.Fail != "" {
			r.Err = errs.New(errs.FailedPrecondition, "%s", in.Fail)
		}
		return r
	}}
}

func TestStreamForms(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	f.provider(t, counter(make(chan error, 10)))
	res := f.post(t, "/stream/shop/count", []byte(`{"n":2}`))
	if got, want := read(t, res), `{"chunk":{"i":0,"pad":""}}`+"\n"+`{"chunk":{"i":1,"pad":""}}`+"\n"+`{"end":true,"trailers":{"t":["end"]}}`+"\n"; got != want || res.Header.Get("Content-Type") != "application/x-ndjson" || res.Header.Get("Telford-Meta-H") != "1" {
		t.Errorf("NDJSON:\n%s\nheaders %v", got, res.Header)
	}
	res = f.post(t, "/stream/shop/count", []byte(`{"n":1}`), "Accept", "text/event-stream")
	if got, want := read(t, res), "data: {\"i\":0,\"pad\":\"\"}\n\nevent: end\ndata: {\"end\":true,\"trailers\":{\"t\":[\"end\"]}}\n\n"; got != want || res.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("SSE:\n%s\nheaders %v", got, res.Header)
	}
	// A failure after the first message comes as the last line, one before it as the status.
	res = f.post(t, "/stream/shop/count", []byte(`{"n":1,"fail":"too late"}`))
	lines := strings.Split(strings.TrimSpace(read(t, res)), "\n")
	var last ending
	if err := json.Unmarshal([]byte(lines[len(lines)-1]), &last); err != nil || last.Error == nil || last.Error.Code != "failed_precondition" || last.Error.Detail != "too late" || last.End {
		t.Errorf("failure at the end: %q", lines)
	}
	res = f.post(t, "/stream/shop/count", []byte(`{"n":0,"fail":"never"}`))
	if p := problem(t, res); res.StatusCode != http.StatusBadRequest || p.Detail != "never" {
		t.Errorf("failure at the start: %d %+v", res.StatusCode, p)
	}
	res = f.post(t, "/stream/shop/count", []byte("\x80"), "Content-Type", "application/msgpack")
	if p := problem(t, res); res.StatusCode != http.StatusUnsupportedMediaType || !strings.Contains(p.Detail, "msgpack") {
		t.Errorf("msgpack: %d %+v", res.StatusCode, p)
	}
	res = f.post(t, "/stream/shop/echo", []byte(`{}`))
	if p := problem(t, res); res.StatusCode != http.StatusBadRequest {
		t.Errorf("a unary method as a stream: %d %+v", res.StatusCode, p)
	}
}

func TestLeavingAStreamEndsIt(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	ended := make(chan error, 10)
	f.provider(t, counter(ended))
	res := f.post(t, "/stream/shop/count", []byte(`{"n":1,"wait":true}`))
	if line, err := bufio.NewReader(res.Body).ReadString('\n'); err != nil || !strings.HasPrefix(line, `{"chunk"`) {
		t.Fatalf("%q, %v", line, err)
	}
	_ = res.Body.Close()
	<-ended
}

// A caller that stops reading is cut after the write timeout, and the producer with it.
func TestStalledReaderIsCut(t *testing.T) {
	t.Parallel()
	f := start(t, func(c *Config) { c.writeTimeout = 200 * time.Millisecond })
	ended := make(chan error, 10)
	f.provider(t, counter(ended))
	nc, err := net.Dial("tcp", strings.TrimPrefix(f.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	body := `{"n":-1,"pad":10000}`
	fmt.Fprintf(nc, "POST /stream/shop/count HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nContent-Length: %d\r\n\r\n%s", f.key, len(body), body)
	select {
	case <-ended:
	case <-time.After(10 * time.Second):
		t.Fatal("the producer goes on for a caller that does not read")
	}
}

func TestSilentStreamShowsLife(t *testing.T) {
	t.Parallel()
	f := start(t, func(c *Config) { c.keepAlive = 20 * time.Millisecond })
	f.provider(t, counter(make(chan error, 10)))
	for accept, want := range map[string]string{"text/event-stream": ":\n", "application/x-ndjson": "\n"} {
		res := f.post(t, "/stream/shop/count", []byte(`{"wait":true}`), "Accept", accept)
		if line, err := bufio.NewReader(res.Body).ReadString('\n'); err != nil || line != want {
			t.Errorf("%s: %q, %v", accept, line, err)
		}
		_ = res.Body.Close()
	}
}

func TestRevokedKeyEndsItsStream(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	f.provider(t, counter(make(chan error, 10)))
	key, text := f.Key(t, "caller")
	f.key = text
	res := f.post(t, "/stream/shop/count", []byte(`{"n":1,"wait":true}`))
	in := bufio.NewReader(res.Body)
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Authority.RevokeKey(t.Context(), key.ID, "test", "leaked"); err != nil {
		t.Fatal(err)
	}
	line, err := in.ReadString('\n')
	var last ending
	if err != nil || json.Unmarshal([]byte(line), &last) != nil || last.Error == nil || last.Error.Code != string(errs.PermissionDenied) {
		t.Errorf("last line %q, %v", line, err)
	}
	if res := f.post(t, "/call/shop/echo", nil); res.StatusCode != http.StatusUnauthorized {
		t.Errorf("the next call: %d", res.StatusCode)
	}
}

func TestStopCutsStreamsWithAReason(t *testing.T) {
	t.Parallel()
	f := start(t, nil)
	f.provider(t, counter(make(chan error, 10)))
	res := f.post(t, "/stream/shop/count", []byte(`{"n":1,"wait":true}`))
	in := bufio.NewReader(res.Body)
	if _, err := in.ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	f.door.Stop(ctx)
	f.door.Stop(ctx)
	line, err := in.ReadString('\n')
	if err != nil || !strings.Contains(line, "the runtime is stopping") {
		t.Errorf("last line %q, %v", line, err)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if err := f.door.Start(l); errs.CodeOf(err) != errs.FailedPrecondition {
		t.Errorf("a start after the stop: %v", err)
	}
}
