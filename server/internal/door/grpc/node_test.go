package grpcdoor_test

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/pem"
	"errors"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/door/doortest"
	"telford.dev/telford/server/internal/router"
)

// needNode skips the test where there is no Node, except where everything must be there.
func needNode(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("CI") != "" {
		t.Fatal(err)
	}
	t.Skip(err)
}

// node is the process of testdata/node/client.js.
type node struct {
	t     *testing.T
	stdin io.WriteCloser
	lines chan map[string]any
}

// install copies the client to a directory of its own and installs what it needs.
func install(t *testing.T) string {
	t.Helper()
	npm, err := exec.LookPath("npm")
	if err != nil {
		needNode(t, err)
	}
	dir := t.TempDir()
	for _, name := range []string{"package.json", "package-lock.json", "client.js"} {
		b, err := os.ReadFile(filepath.Join("testdata", "node", name))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		needNode(t, errors.New("npm ci: "+err.Error()+"\n"+string(out)))
	}
	return dir
}

func (r *runtime) node(t *testing.T) *node {
	t.Helper()
	program, err := exec.LookPath("node")
	if err != nil {
		needNode(t, err)
	}
	dir := install(t)
	ca := filepath.Join(dir, "ca.pem")
	var roots []byte
	for _, c := range r.Authority.Roots() {
		roots = append(roots, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw})...)
	}
	if err := os.WriteFile(ca, roots, 0o600); err != nil {
		t.Fatal(err)
	}
	protos, err := filepath.Abs(filepath.Join("..", "..", "..", "..", "api"))
	if err != nil {
		t.Fatal(err)
	}
	_, key := r.Key(t, "node")
	cmd := exec.CommandContext(t.Context(), program, "client.js")
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "TELFORD_SERVER="+r.addr, "TELFORD_KEY="+key, "CA_FILE="+ca, "PROTO_DIR="+protos, "NODE_NO_WARNINGS=1")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n := &node{t: t, stdin: stdin, lines: make(chan map[string]any, 100)}
	go func() {
		defer close(n.lines)
		in := bufio.NewScanner(stdout)
		for in.Scan() {
			m := make(map[string]any)
			if err := json.Unmarshal(in.Bytes(), &m); err != nil {
				t.Errorf("node wrote %q: %v", in.Text(), err)
				continue
			}
			n.lines <- m
		}
	}()
	t.Cleanup(func() {
		_ = stdin.Close()
		for range n.lines {
			continue
		}
		_ = cmd.Wait()
	})
	return n
}

// say gives the process a command.
func (n *node) say(fields map[string]string) {
	n.t.Helper()
	b, err := json.Marshal(fields)
	if err != nil {
		n.t.Fatal(err)
	}
	if _, err := n.stdin.Write(append(b, '\n')); err != nil {
		n.t.Fatal(err)
	}
}

// until returns the next line that reports event.
func (n *node) until(event string) map[string]any {
	n.t.Helper()
	limit := time.NewTimer(20 * time.Second)
	defer limit.Stop()
	for {
		select {
		case m, ok := <-n.lines:
			switch {
			case !ok:
				n.t.Fatalf("node ended before it reported %s", event)
			case m["event"] == "error" && event != "error":
				n.t.Fatalf("node: %v", m)
			case m["event"] == event:
				return m
			}
		case <-limit.C:
			n.t.Fatalf("node did not report %s in time", event)
		}
	}
}

// TestNode holds a session and calls by plain gRPC from a language that has no SDK.
func TestNode(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("installs packages")
	}
	r := start(t, doortest.Options{})
	r.provider(t, "payments", "pay-1", doortest.Handler{
		Call: func(_ context.Context, call *message.Call) *message.Reply {
			for _, h := range call.Headers {
				if h.Key == "x-from" && string(h.Value) == "node" {
					return &message.Reply{
						ContentType: call.ContentType, Body: append([]byte("charged "), call.Body...),
						Trailers: []message.Pair{{Key: "t", Value: []byte("end")}},
					}
				}
			}
			return &message.Reply{Err: errs.New(errs.InvalidArgument, "the header x-from is missing")}
		},
		Stream: func(_ context.Context, call *message.Call, out message.Sender) *message.Reply {
			for _, s := range []string{"one", "two", "three"} {
				if err := out.Send([]byte(s)); err != nil {
					return &message.Reply{Err: errs.From(err)}
				}
			}
			return &message.Reply{ContentType: call.ContentType}
		},
	})
	n := r.node(t)
	if hello := n.until("hello"); hello["instance"] != "node-1" || hello["resumed"] != false || hello["namespace"] != "default" {
		t.Errorf("HelloAck in Node: %v", hello)
	}
	if m := n.until("revocation"); m["snapshot"] != true {
		t.Errorf("revocations in Node: %v", m)
	}
	if m := n.until("registered"); m["refused"] != nil {
		t.Fatalf("registration: %v", m)
	}
	if m := n.until("watch"); m["snapshot"] != true {
		t.Errorf("watch in Node: %v", m)
	}

	// Calls to the service in Node.
	call := func(method, body string) (*message.Reply, error) {
		return r.Router.Call(t.Context(), &router.Request{Namespace: "default", Caller: message.Caller{Namespace: "default", Service: "go"}, Call: &message.Call{
			Service: "node", Method: method, ContentType: message.JSON, Body: []byte(body),
		}})
	}
	reply, err := call("echo", `{"n":1}`)
	if err != nil || string(reply.Body) != `{"echo":{"n":1},"caller":"go"}` {
		t.Errorf("echo in Node: %+v, %v", reply, err)
	}
	reply, err = call("fail", `{}`)
	if err != nil || reply.Err == nil || reply.Err.Message != "node says no" || reply.Err.GRPCCode != 9 {
		t.Errorf("fail in Node: %+v, %v", reply, err)
	}
	in, err := r.Router.Stream(t.Context(), &router.Request{Namespace: "default", Call: &message.Call{
		Service: "node", Method: "count", Stream: true, ContentType: message.JSON, Body: []byte(`{"n":3}`),
	}})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for {
		b, err := in.Recv()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, string(b))
	}
	if strings.Join(got, " ") != `{"i":0} {"i":1} {"i":2}` || len(in.Trailers()) != 1 || string(in.Trailers()[0].Value) != "3" {
		t.Errorf("stream from Node: %q, trailers %v", got, in.Trailers())
	}

	// Calls by the service in Node: over its session, and by plain gRPC.
	n.say(map[string]string{"do": "session", "service": "node", "method": "echo", "body": `{"self":true}`})
	if m := n.until("session"); m["status"] != nil || m["body"] != `{"echo":{"self":true},"caller":"node"}` {
		t.Errorf("a call over the session: %v", m)
	}
	n.say(map[string]string{"do": "session", "service": "nobody", "method": "x", "body": `{}`})
	if m := n.until("session"); m["status"] != "service_not_found" {
		t.Errorf("a call of nobody over the session: %v", m)
	}
	n.say(map[string]string{"do": "unary", "service": "payments", "method": charge, "body": "5 EUR"})
	if m := n.until("unary"); m["code"] != 0.0 || m["body"] != "charged 5 EUR" || m["trailers"].(map[string]any)["t"] != "end" {
		t.Errorf("plain gRPC, unary: %v", m)
	}
	n.say(map[string]string{"do": "unary", "service": "paymints", "method": charge, "body": ""})
	if m := n.until("unary"); m["code"] != 5.0 || m["trailers"].(map[string]any)["telford-not-started"] != "1" {
		t.Errorf("plain gRPC, unknown service: %v", m)
	}
	n.say(map[string]string{"do": "stream", "service": "payments", "method": watch, "body": "go"})
	if m := n.until("stream"); m["code"] != 0.0 || len(m["got"].([]any)) != 3 {
		t.Errorf("plain gRPC, server stream: %v", m)
	}
	n.say(map[string]string{"do": "bye"})
	doortest.Eventually(t, "the instance in Node is off the map", func() bool {
		_, err := r.Registry.Get("default", "node-1")
		return errs.CodeOf(err) == errs.NotFound
	})
}
