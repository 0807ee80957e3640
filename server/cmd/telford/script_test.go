package main

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/alarm"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/internal/store/storetest"
	"telford.dev/telford/server/telfordtest"
)

// TestScripts runs each transcript in testdata against a runtime of its own.
func TestScripts(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no scripts: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			runScript(t, file)
		})
	}
}

// TestScriptsOnPostgres runs those transcripts that touch what is stored.
func TestScriptsOnPostgres(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"keys", "namespaces", "services", "policy", "transport", "idempotency"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			runScript(t, "testdata/"+name+".txtar", telfordtest.WithDatabase(storetest.Postgres(t)))
		})
	}
}

func runScript(t *testing.T, file string, opts ...telfordtest.Option) {
	t.Helper()
	srv := telfordtest.Start(t, opts...)
	tls := telfordtest.Start(t, telfordtest.WithTLS())
	testscript.Run(t, testscript.Params{
		Files:               []string{file},
		RequireUniqueNames:  true,
		RequireExplicitExec: true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("TELFORD_DATA", srv.Data())
			e.Setenv("HTTP", srv.HTTP())
			e.Setenv("GRPC", srv.Addr())
			e.Setenv("HTTP_ADDR", srv.Runtime().HTTPAddr())
			e.Setenv("TLS_ADDR", tls.Runtime().HTTPAddr())
			e.Setenv("TLS_HTTP", tls.HTTP())
			e.Setenv("TLS_DATA", tls.Data())
			e.Setenv("KEY", srv.Key(t, "caller"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			// register SERVICE ID [TAG] puts an instance on the map and answers its calls.
			"register": func(ts *testscript.TestScript, _ bool, args []string) { register(ts, srv, args) },
			// unregister ID takes it off the map, as its own goodbye would.
			"unregister": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Check(srv.Runtime().Registry().Deregister(context.Background(), "default", args[0], catalog.Deregistered))
			},
			// alarm CODE MESSAGE raises an alarm.
			"alarm": func(_ *testscript.TestScript, _ bool, args []string) {
				srv.Runtime().Alarms().Raise(args[0], alarm.Warning, args[1])
			},
			// perish SERVICE N registers instances that are never heard of again, and waits
			// until their leases have run out.
			"perish": func(ts *testscript.TestScript, _ bool, args []string) { perish(ts, srv, args) },
			// until FILE PATTERN waits until a file that is being written has a line.
			"until": until,
			// admin NAME puts the operator's token into a variable.
			"admin": func(ts *testscript.TestScript, _ bool, args []string) { ts.Setenv(args[0], srv.AdminToken()) },
			// keep VARIABLE PATTERN puts what matches in the last output into a variable.
			"keep": func(ts *testscript.TestScript, _ bool, args []string) {
				ts.Setenv(args[0], regexp.MustCompile(args[1]).FindString(ts.ReadFile("stdout")))
			},
			// cli runs a command line of telford in this process, much faster than one of
			// its own; `exec telford` does the latter.
			"cli": inProcess,
		},
	})
}

func inProcess(ts *testscript.TestScript, neg bool, args []string) {
	a := &app{
		stdin: strings.NewReader(""), stdout: ts.Stdout(), stderr: ts.Stderr(),
		getenv: ts.Getenv, environ: func() []string { return nil },
	}
	if status := a.run(context.Background(), args); (status != exitDone) != neg {
		ts.Fatalf("telford %s: unexpected status %d", strings.Join(args, " "), status)
	}
}

// patience bounds the wait for another process.
const patience = 20 * time.Second

func until(ts *testscript.TestScript, _ bool, args []string) {
	pattern, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	var text []byte
	for range int(patience / (5 * time.Millisecond)) {
		if text, _ = os.ReadFile(ts.MkAbs(args[0])); pattern.Match(text) { // it may not exist yet
			return
		}
		<-tick.C
	}
	ts.Fatalf("%s has no line like %s:\n%s", args[0], args[1], text)
}

func register(ts *testscript.TestScript, srv *telfordtest.Server, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: register SERVICE ID [TAG]")
	}
	rt := srv.Runtime()
	owner := registry.Owner{Namespace: "default", Instance: args[1], Service: args[0], Door: "link"}
	var limits []catalog.Limit
	if slices.Contains(args, "limited") {
		limits = []catalog.Limit{{Concurrency: 4, Queue: 16, Key: "caller"}, {Rate: 2.5, Burst: 5, Scope: catalog.LimitService}}
	}
	_, _, err := rt.Registry().Register(context.Background(), owner, &catalog.Declaration{
		Service: args[0], Realm: "global", Version: "1.4.2", Tags: args[2:], Status: catalog.OK,
		Methods: []catalog.Method{
			{Name: "echo", Kind: catalog.Unary, ContentTypes: []string{"json"}, Limits: limits},
			{Name: "shop.v1.Shop/Fail", Kind: catalog.Unary, ContentTypes: []string{"json"}},
			{Name: "count", Kind: catalog.ServerStream, ContentTypes: []string{"json"}},
		},
		Endpoints: []catalog.Endpoint{{Kind: "link", Host: "127.0.0.1", Port: 4001}},
	})
	ts.Check(err)
	rt.Registry().Reach("default", args[1], true)
	rt.Router().Attach("default", args[1], instance(args[1]))
}

func perish(ts *testscript.TestScript, srv *telfordtest.Server, args []string) {
	n, err := strconv.Atoi(args[1])
	ts.Check(err)
	reg := srv.Runtime().Registry()
	for i := range n {
		owner := registry.Owner{Namespace: "default", Instance: args[0] + "-" + strconv.Itoa(i), Service: args[0], Door: "link"}
		_, _, err := reg.Register(context.Background(), owner, &catalog.Declaration{TTL: time.Second})
		ts.Check(err)
	}
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for range int(patience / (5 * time.Millisecond)) {
		if held := reg.Held(); len(held) == 1 && held[0].Instances == n {
			return
		}
		<-tick.C
	}
	ts.Fatalf("held back are %+v", reg.Held())
}

// instance stands for a connected instance: it answers with what it was asked.
type instance string

func (i instance) Call(_ context.Context, call *message.Call) (*message.Reply, error) {
	if call.Method == "shop.v1.Shop/Fail" {
		return &message.Reply{Err: errs.New(errs.Handler, "the till is empty")}, nil
	}
	headers := ""
	for _, h := range call.Headers {
		headers += h.Key + "=" + string(h.Value)
	}
	return &message.Reply{
		ContentType: message.JSON,
		Body:        []byte(`{"instance":"` + string(i) + `","caller":"` + call.Caller.Service + `","headers":"` + headers + `","body":` + string(call.Body) + `}`),
	}, nil
}

func (i instance) Stream(_ context.Context, call *message.Call) (message.Stream, error) {
	fail := strings.Contains(string(call.Body), "fail")
	return &counting{n: 3, fail: fail}, nil
}

// counting is a stream of numbers.
type counting struct {
	sent, n int
	fail    bool
}

func (c *counting) Recv() ([]byte, error) {
	if c.sent == c.n {
		if c.fail {
			return nil, errs.New(errs.Handler, "lost count")
		}
		return nil, io.EOF
	}
	c.sent++
	return []byte(`{"n":` + string(rune('0'+c.sent)) + `}`), nil
}
func (c *counting) Headers() ([]message.Pair, error) { return nil, nil }
func (c *counting) Trailers() []message.Pair         { return nil }
func (c *counting) ContentType() message.ContentType { return message.JSON }
func (c *counting) Close()                           {}
