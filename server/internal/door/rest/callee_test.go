package restdoor_test

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	restdoor "telford.dev/telford/server/internal/door/rest"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/router"
)

// callee starts an HTTP service and returns its address.
func callee(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.Listener.Addr().String()
}

func callees(t *testing.T) *restdoor.Callees {
	t.Helper()
	c := restdoor.NewCallees()
	t.Cleanup(c.Close)
	return c
}

func TestCallOverHTTP(t *testing.T) {
	t.Parallel()
	address := callee(t, func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if r.Method != http.MethodPost || r.URL.Path != "/shop/buy" || r.Header.Get("Content-Type") != "application/json" ||
			r.Header.Get("Telford-Request-Id") != "r1" || r.Header.Get("Telford-Chain") != "a,b" || r.Header.Get("Telford-Caller") != "web" ||
			r.Header.Get("Telford-Meta-X") != "1" || r.Header.Get("Telford-Timeout") == "" || r.ContentLength != int64(len(body)) {
			t.Errorf("%s %s %v %s", r.Method, r.URL, r.Header, body)
		}
		w.Header().Set("Telford-Meta-Y", "2")
		_, _ = w.Write(body)
	})
	reply, err := callees(t).Link(address).Call(t.Context(), &message.Call{
		Service: "shop", Method: "shop/buy", ContentType: message.JSON, Body: []byte(`{"n":1}`), RequestID: "r1", Chain: []string{"a", "b"},
		Caller: message.Caller{Service: "web"}, Headers: []message.Pair{{Key: "x", Value: []byte("1")}, {Key: "bad", Value: []byte("\n")}},
		Deadline: time.Now().Add(time.Minute),
	})
	if err != nil || reply.Err != nil {
		t.Fatal(err, reply)
	}
	if string(reply.Body) != `{"n":1}` || reply.ContentType != message.JSON || len(reply.Headers) != 1 || reply.Headers[0].Key != "y" {
		t.Errorf("%+v", reply)
	}
}

func TestFailuresOverHTTP(t *testing.T) {
	t.Parallel()
	link := callees(t)
	for _, c := range []struct {
		name, contentType, body string
		status                  int
		path, handler           errs.Code // of the path, of the service
		says                    string
	}{
		{"no content", "", "", 204, "", "", ""},
		{"no JSON", "text/html", "<p>", 200, errs.Internal, "", "text/html that is no JSON"},
		{"a redirect", "", "", 302, "", errs.Internal, "302: Found"},
		{"a status", "text/plain", "no such thing\n", 404, "", errs.NotFound, "no such thing"},
		{"a message", "application/json", `{"message":"broken"}`, 500, "", errs.Internal, "broken"},
		{"odd JSON", "application/json", `[1]`, 400, "", errs.InvalidArgument, "Bad Request"},
		{"busy", "", "", 429, "", errs.ResourceExhausted, ""},
		{"a problem", "application/problem+json", `{"type":"urn:telford:error:conflict","code":"conflict","detail":"twice"}`, 409, "", errs.Conflict, "twice"},
		{"an unknown problem", "application/problem+json", `{"type":"urn:telford:error:x","code":"x","detail":"odd"}`, 403, "", errs.PermissionDenied, "odd"},
		{"too large", "application/json", `"` + strings.Repeat("x", message.MaxPayload) + `"`, 200, errs.ResourceExhausted, "", "over the limit"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			address := callee(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Type", c.contentType)
				w.Header().Set("Location", "/elsewhere")
				w.WriteHeader(c.status)
				_, _ = io.WriteString(w, c.body)
			})
			reply, err := link.Link(address).Call(t.Context(), &message.Call{Service: "s", Method: "m", ContentType: message.JSON, Body: []byte("{}")})
			failed, want := err, c.path
			if err == nil && reply.Err != nil {
				failed, want = reply.Err, c.handler
			}
			if errs.CodeOf(failed) != want || failed != nil && !strings.Contains(failed.Error(), c.says) || c.path == "" && err != nil {
				t.Errorf("path %v, reply %+v", err, reply)
			}
		})
	}
	t.Run("nobody there", func(t *testing.T) {
		t.Parallel()
		l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
		must(t, err)
		address := l.Addr().String()
		must(t, l.Close())
		for _, at := range []string{address, "169.254.169.254:80", "0.0.0.0:1", "[ff02::1]:1"} {
			_, err = link.Link(at).Call(t.Context(), &message.Call{Service: "s", Method: "m", ContentType: message.JSON})
			if e := errs.From(err); err == nil || e.Code != errs.Unavailable || !e.NotStarted {
				t.Errorf("%s: %v", at, err)
			}
		}
	})
	t.Run("too slow", func(t *testing.T) {
		t.Parallel()
		address := callee(t, func(_ http.ResponseWriter, r *http.Request) {
			_, _ = io.ReadAll(r.Body)
			<-r.Context().Done()
		})
		_, err := link.Link(address).Call(t.Context(), &message.Call{Service: "s", Method: "m", ContentType: message.JSON, Deadline: time.Now().Add(50 * time.Millisecond)})
		if errs.CodeOf(err) != errs.DeadlineExceeded {
			t.Error(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err = link.Link(address).Call(ctx, &message.Call{Service: "s", Method: "m"}); errs.CodeOf(err) != errs.Canceled {
			t.Error(err)
		}
	})
	t.Run("cut", func(t *testing.T) {
		t.Parallel()
		address := callee(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
		_, err := link.Link(address).Call(t.Context(), &message.Call{Service: "s", Method: "m", ContentType: message.JSON})
		if e := errs.From(err); err == nil || e.Code != errs.Unavailable || e.NotStarted {
			t.Error(err)
		}
	})
	t.Run("a stream", func(t *testing.T) {
		t.Parallel()
		if _, err := link.Link("127.0.0.1:1").Stream(t.Context(), &message.Call{Service: "s", Method: "m"}); errs.CodeOf(err) != errs.InvalidArgument {
			t.Error(err)
		}
	})
}

// A service that says where it is and what it does is called like any other.
func TestCalledThroughTheRouter(t *testing.T) {
	t.Parallel()
	f := start(t)
	r := router.New(router.Config{Index: f.registry, Clock: f.clock})
	f.connect(r, callees(t))
	address := callee(t, func(w http.ResponseWriter, r *http.Request) { _, _ = io.Copy(w, r.Body) })
	host, port, err := net.SplitHostPort(address)
	must(t, err)
	metadata := `"metadata":{"service":"Shop","methods":"buy,sell","host":"` + host + `","port":"` + port + `"}`
	f.create(t, "shop-1", 30, ","+metadata)
	call := func(service, method string) error {
		reply, err := r.Call(t.Context(), &router.Request{Caller: message.Caller{Namespace: "default", Service: "web"}, Call: &message.Call{
			Service: service, Method: method, ContentType: message.JSON, Body: []byte(`{"n":1}`), Deadline: f.clock.Now().Add(time.Hour),
		}})
		if err == nil && string(reply.Body) != `{"n":1}` {
			err = errors.New(string(reply.Body))
		}
		return err
	}
	if err := call("shop", "buy"); err != nil {
		t.Error(err)
	}
	if list := f.registry.List(registry.Filter{Service: "shop"}); len(list) != 1 || !list[0].Reachable {
		t.Errorf("%+v", list)
	}
	if err := call("shop", "steal"); errs.CodeOf(err) != errs.MethodNotFound {
		t.Error(err)
	}
	if a := f.send(t, "PUT", "/services/shop-1", `{"metadata":{"service":"market","methods":"buy","host":"`+host+`","port":"`+port+`"}}`); a.status != 204 {
		t.Fatal(a.body)
	}
	if err := call("market", "buy"); err != nil {
		t.Error(err)
	}
	f.send(t, "DELETE", "/services/shop-1", "")
	if err := call("market", "buy"); err == nil {
		t.Error("a service that is gone was called")
	}
}
