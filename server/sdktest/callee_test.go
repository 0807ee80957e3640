package sdktest

import (
	"context"
	"log/slog"
	"net"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/client"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/direct"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/handlers"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/session"
	"telford.dev/telford/internal/view"
)

// callee is an instance with a real certificate, a real session and a real port, whose
// refusals and answers are what a test says. It counts what reaches it.
type callee struct {
	refuse func() *errs.Error                     // nil: everything is let in
	answer func(c *handlers.Context) (any, error) // of "work"

	count  func() int // instead of counting itself
	server string     // where its session goes; \"\" is the runtime itself

	refused, began atomic.Int64
	listener       *direct.Listener
	session        *client.Session
	view           *view.View
}

// seen is how many requests have reached it.
func (c *callee) seen() int {
	if c.count != nil {
		return c.count()
	}
	return int(c.refused.Load() + c.began.Load())
}

// scripted starts an instance of a service.
func (w *world) scripted(service, instance string, c *callee, change ...func(*catalog.Declaration)) *callee {
	w.t.Helper()
	key, err := ident.ParseKey(w.srv.Key(w.t, service))
	must(w.t, err)
	trust := ident.NewTrust(clock.Real())
	table := handlers.New(handlers.Options{
		Service: service, MaxRunning: 64, MaxWaiting: 64, Log: slog.New(slog.DiscardHandler),
		Refuse: func(message.Caller) *errs.Error {
			if c.refuse != nil {
				if err := c.refuse(); err != nil {
					c.refused.Add(1)
					return err
				}
			}
			return nil
		},
	})
	types := []string{"json"}
	must(w.t, table.Add(
		&handlers.Method{
			Method: catalog.Method{Name: "work", Kind: catalog.Unary, ContentTypes: types}, Full: "/x/work",
			Unary: func(ctx *handlers.Context) (any, error) { c.began.Add(1); return c.answer(ctx) },
		},
		&handlers.Method{
			Method: catalog.Method{Name: "once", Kind: catalog.Unary, ContentTypes: types, NotRetryable: true}, Full: "/x/once",
			Unary: func(ctx *handlers.Context) (any, error) { c.began.Add(1); return c.answer(ctx) },
		},
		&handlers.Method{
			Method: catalog.Method{Name: "watch", Kind: catalog.ServerStream, ContentTypes: types}, Full: "/x/watch",
			Stream: func(*handlers.Context) error { c.began.Add(1); return nil },
		},
	))
	table.Freeze()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(w.t, err)
	c.listener = direct.Serve(ln, direct.ListenerOptions{
		Trust: trust, Table: table, GRPC: grpc.NewServer(grpc.Creds(direct.Credentials())), Log: slog.New(slog.DiscardHandler),
	})
	c.view = view.New()
	server := c.server
	if server == "" {
		server = w.srv.Addr()
	}
	c.session = client.New(client.Options{
		Server: server, Key: &key, Service: service, Instance: instance, SDK: "test", Trust: trust, Table: table, View: c.view,
		Backoff: session.Backoff{Min: 20 * time.Millisecond, Max: 200 * time.Millisecond}, MaxInFlight: 64,
		Declaration: func(net.Addr) (*catalog.Declaration, error) {
			d := &catalog.Declaration{
				Service: service, Realm: "global", Methods: table.Methods(), Weight: 1, TTL: 90 * time.Second, Scope: catalog.ScopeGlobal,
				Capabilities: []string{"rpc.handle"},
				Endpoints:    []catalog.Endpoint{{Kind: "link", Host: "127.0.0.1", Port: ln.Addr().(*net.TCPAddr).Port}},
			}
			for _, f := range change {
				f(d)
			}
			return d, nil
		},
		Events: client.Events{
			Connected: func(string) {}, Reconnecting: func(int, error, time.Duration) {}, Draining: func(string) {},
			Disconnected: func(string, error) {}, Warnings: func([]catalog.DeclarationWarning) {},
			Violations: func([]catalog.DeclarationWarning) {}, Gone: func([]*catalog.Instance) {},
		},
	})
	ctx, cancel := context.WithTimeout(w.t.Context(), 15*time.Second)
	defer cancel()
	if err := c.session.Start(ctx); err != nil {
		w.t.Fatalf("start the callee: %v", err)
	}
	w.t.Cleanup(func() {
		c.session.Close("test")
		c.listener.Close()
	})
	return c
}

// refusing is a callee that lets nobody in.
func refusing(err *errs.Error) *callee {
	return &callee{refuse: func() *errs.Error { return err }, answer: func(*handlers.Context) (any, error) { return &echoResp{}, nil }}
}

// answering is a callee that answers with err, nil being success.
func answering(err error) *callee {
	return &callee{answer: func(*handlers.Context) (any, error) {
		if err != nil {
			return nil, err
		}
		return &echoResp{Text: "done"}, nil
	}}
}
