package handlers

import (
	"context"
	"errors"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/limit"
	"telford.dev/telford/internal/message"
)

// limited is a table with one method "charge" under the given limits. Its handler runs
// until release is closed.
type limited struct {
	*Table
	t       *testing.T
	release chan struct{}
	wg      sync.WaitGroup
}

func newLimited(t *testing.T, key func(*Context, any) string, limits ...catalog.Limit) *limited {
	l := &limited{t: t, release: make(chan struct{})}
	l.Table = New(Options{Service: "svc", MaxRunning: 100, MaxWaiting: 10, MaxStreams: 2, Log: slog.New(slog.DiscardHandler)})
	m := unary("charge", func(c *Context) (any, error) {
		select {
		case <-l.release:
			return &body{}, nil
		case <-c.Done():
			return nil, c.Err()
		}
	})
	m.Limits, m.Key = limits, key
	s := &Method{Method: catalog.Method{Name: "watch"}, Full: "/svc/watch", Stream: func(*Context) error { <-l.release; return nil }}
	if err := l.Add(m, s); err != nil {
		t.Fatal(err)
	}
	l.Freeze()
	return l
}

// start begins a call and returns its answer; "" when the call runs or waits.
func (l *limited) start(ctx context.Context, call *message.Call) <-chan *message.Reply {
	out := make(chan *message.Reply, 1)
	if call.Method == "" {
		call.Method = "charge"
	}
	l.wg.Go(func() {
		if call.Method == "watch" {
			out <- l.For(&Conn{}).HandleStream(ctx, call, nil)
			return
		}
		out <- l.For(&Conn{}).HandleCall(ctx, call)
	})
	synctest.Wait()
	return out
}

func (l *limited) goes(call *message.Call) {
	l.t.Helper()
	select {
	case r := <-l.start(l.t.Context(), call):
		l.t.Errorf("answered at once: %v", r.Err)
	default:
	}
}

func (l *limited) refused(call *message.Call, meta map[string]string) *errs.Error {
	l.t.Helper()
	select {
	case r := <-l.start(l.t.Context(), call):
		e := r.Err
		if e == nil || e.Code != errs.ResourceExhausted || !e.NotStarted || !e.Retryable || e.RetryAfter <= 0 {
			l.t.Fatalf("not a refusal: %+v", e)
		}
		meta["reason"], meta["service"], meta["method"] = "limit", "svc", call.Method
		if diff := cmp.Diff(meta, e.Meta); diff != "" {
			l.t.Errorf("facts of %v: (-want +got)\n%s", e, diff)
		}
		return e
	default:
		l.t.Fatal("let in")
		return nil
	}
}

func (l *limited) end() {
	close(l.release)
	l.wg.Wait()
	if err := l.Idle(l.t.Context()); err != nil || l.Running() != 0 {
		l.t.Errorf("idle: %v, %d run", err, l.Running())
	}
}

func from(caller string) *message.Call {
	return &message.Call{Caller: message.Caller{Service: caller}, ContentType: message.JSON, Body: []byte(`{}`)}
}

func TestLimitOfAMethod(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimited(t, nil, catalog.Limit{Concurrency: 1, Queue: 1, Key: catalog.KeyCaller}, catalog.Limit{Concurrency: 3})
		l.goes(from("a"))
		l.goes(from("a"))
		l.refused(from("a"), map[string]string{"limit": "method charge, key caller=a", "running": "1", "queued": "1"})
		l.goes(from("b"))
		l.goes(from("c"))
		l.refused(from("d"), map[string]string{"limit": "method charge", "running": "3", "queued": "0"})
		l.end()
	})
}

func TestLimitOfARate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimited(t, nil, catalog.Limit{Rate: 2, Burst: 1})
		l.goes(from("a"))
		e := l.refused(from("a"), map[string]string{"limit": "method charge", "running": "0", "queued": "0"})
		if e.RetryAfter != 500*time.Millisecond {
			t.Errorf("come back after %v", e.RetryAfter)
		}
		time.Sleep(e.RetryAfter)
		l.goes(from("a"))
		l.end()
	})
}

func TestKeysOfLimits(t *testing.T) {
	t.Parallel()
	call := func(ct message.ContentType, body, header string) *message.Call {
		return &message.Call{ContentType: ct, Body: []byte(body), Headers: []message.Pair{{Key: "x-tenant", Value: []byte(header)}}}
	}
	for key, calls := range map[string][3]*message.Call{
		"header:x-tenant": {call(message.JSON, "{}", "A"), call(message.JSON, "{}", "A"), call(message.JSON, "{}", "B")},
		"field:tenant": {
			call(message.JSON, `{"other":{"tenant":"B"},"tenant":"A"}`, ""), call(message.Msgpack, "\x81\xa6tenant\xa1A", ""), call(message.JSON, `{"tenant":"B"}`, ""),
		},
		"func": {call(message.JSON, `{"n":1}`, ""), call(message.JSON, `{"n":1}`, ""), call(message.JSON, `{"n":2}`, "")},
	} {
		t.Run(key, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				l := newLimited(t, func(c *Context, _ any) string {
					var in body
					if err := c.Decode(&in); err != nil {
						return ""
					}
					if in.N == 2 {
						panic("no key")
					}
					return "A" + strconv.Itoa(in.N)
				}, catalog.Limit{Concurrency: 1, Key: key})
				l.goes(calls[0])
				want := map[string]string{"limit": "method charge, key " + key + "=A", "running": "1", "queued": "0"}
				if key == "func" {
					want["limit"] = "method charge, key func=A1"
				}
				l.refused(calls[1], want)
				l.goes(calls[2])
				l.end()
			})
		})
	}
}

func TestSetLimits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimited(t, nil, catalog.Limit{Concurrency: 1})
		l.goes(from("a"))
		full := map[string]string{"limit": "method charge", "running": "1", "queued": "0"}
		l.refused(from("a"), full)
		rule := func(method string, lim catalog.Limit) []limit.Rule {
			return []limit.Rule{{ID: "lim_1", Service: "svc", Method: method, Limit: lim}, {Service: "other", Limit: catalog.Limit{Concurrency: 1}}}
		}
		l.SetLimits(rule("charge", catalog.Limit{Concurrency: 2, Queue: 1}))
		l.goes(from("a"))
		waits := l.start(t.Context(), from("a"))
		if got := l.Limits("charge"); len(got) != 1 || got[0].Concurrency != 2 {
			t.Errorf("in force: %+v", got)
		}
		l.SetLimits(nil)
		l.refused(from("a"), map[string]string{"limit": "method charge", "running": "2", "queued": "1"})
		if len(waits) != 0 {
			t.Error("who waited was answered")
		}
		// A key that the handler does not have counts all together.
		l.SetLimits(rule("charge", catalog.Limit{Concurrency: 9, Key: catalog.KeyFunc}))
		synctest.Wait()
		l.goes(from("b"))
		// The instance.
		l.SetLimits(rule("", catalog.Limit{Concurrency: 5, Rate: 1, Burst: 1}))
		l.refused(from("b"), map[string]string{"limit": "method charge", "running": "3", "queued": "0"})
		l.SetLimits(append(rule("charge", catalog.Limit{Concurrency: 50}), rule("", catalog.Limit{Concurrency: 5, Rate: 1, Burst: 1})...))
		l.goes(from("b"))
		l.refused(from("b"), map[string]string{"limit": "instance of svc", "running": "0", "queued": "0"})
		time.Sleep(time.Second)
		l.refused(from("b"), map[string]string{"limit": "inbound calls of this instance of svc", "running": "5", "queued": "0"})
		if got := l.Limits(""); len(got) != 3 || got[0].Concurrency != 5 || got[1].Concurrency != 5 || got[2].Rate != 1 {
			t.Errorf("in force: %+v", got)
		}
		l.SetLimits(nil)
		if got := l.Limits(""); len(got) != 2 || got[0].Concurrency != 100 || got[1].Concurrency != 2 {
			t.Errorf("in force: %+v", got)
		}
		l.end()
	})
}

func TestStreamsHaveTheirOwnBound(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimited(t, nil)
		stream := func() *message.Call { return &message.Call{Method: "watch", Stream: true} }
		l.goes(stream())
		l.goes(stream())
		l.refused(stream(), map[string]string{"limit": "inbound streams of this instance of svc", "running": "2", "queued": "0"})
		l.goes(from("a"))
		if l.Running() != 3 {
			t.Errorf("%d run", l.Running())
		}
		l.end()
	})
}

func TestPlaceInLine(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimited(t, nil, catalog.Limit{Concurrency: 1, Queue: 5})
		l.goes(from("a"))
		l.goes(from("a"))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		r := <-l.start(ctx, from("a"))
		if r.Err == nil || r.Err.Code != errs.ResourceExhausted || r.Err.Meta["place"] != "2" || r.Err.Meta["queued"] != "2" || ctx.Err() != nil {
			t.Errorf("got %+v, %v", r.Err, ctx.Err())
		}
		ctx, cancel = context.WithCancel(t.Context())
		answer := l.start(ctx, from("a"))
		cancel()
		if r := <-answer; r.Err == nil || r.Err.Code != errs.Canceled || r.Err.Meta["place"] != "2" || !r.Err.NotStarted || !errors.Is(r.Err, context.Canceled) {
			t.Errorf("got %+v", r.Err)
		}
		// Who waits when the instance drains goes elsewhere at once.
		answer = l.start(t.Context(), from("a"))
		l.Drain()
		l.Drain()
		if r := <-answer; r.Err == nil || r.Err.Code != errs.Unavailable || !r.Err.NotStarted {
			t.Errorf("got %+v", r.Err)
		}
		l.end()
	})
}

func TestTimeoutOfAMethod(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		tab := New(Options{Service: "svc", MaxRunning: 9, Log: slog.New(slog.DiscardHandler)})
		m := unary("charge", func(c *Context) (any, error) {
			<-c.Done()
			return nil, context.Cause(c)
		})
		m.Unary = func(c *Context) (any, error) { <-c.Done(); return nil, c.Err() }
		own := unary("own", func(c *Context) (any, error) { <-c.Done(); return nil, errs.New(errs.Conflict, "paid") })
		m.Timeout, own.Timeout = time.Second, time.Second
		if err := tab.Add(m, own); err != nil {
			t.Fatal(err)
		}
		tab.Freeze()
		start := time.Now()
		r := call(t.Context(), tab, "charge")
		if r.Err == nil || r.Err.Code != errs.DeadlineExceeded || r.Err.Meta["timeout"] != "1s" || r.Err.NotStarted || time.Since(start) != time.Second {
			t.Errorf("after %v: %+v", time.Since(start), r.Err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
		defer cancel()
		if r := call(ctx, tab, "charge"); r.Err == nil || r.Err.Code != errs.DeadlineExceeded || r.Err.Meta["timeout"] != "" {
			t.Errorf("the caller's own deadline: %+v", r.Err)
		}
		if r := call(t.Context(), tab, "own"); r.Err == nil || r.Err.Code != errs.Conflict {
			t.Errorf("another failure: %+v", r.Err)
		}
	})
}

func TestUpdate(t *testing.T) {
	t.Parallel()
	tab := table(1, 0, unary("a", func(*Context) (any, error) { return &body{}, nil }))
	if err := tab.Update("a", func(m *Method) error { m.Description = "x"; return nil }); err != nil {
		t.Error(err)
	}
	wrong := errors.New("wrong")
	if err := tab.Update("a", func(m *Method) error { m.Description = "y"; return wrong }); !errors.Is(err, wrong) || tab.Methods()[0].Description != "x" {
		t.Errorf("%v, %+v", err, tab.Methods())
	}
	if err := tab.Update("b", func(*Method) error { return nil }); errs.CodeOf(err) != errs.MethodNotFound {
		t.Error(err)
	}
	tab.Freeze()
	if err := tab.Update("a", func(*Method) error { return nil }); errs.CodeOf(err) != errs.FailedPrecondition {
		t.Error(err)
	}
}
