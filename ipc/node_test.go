package ipc

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// node is a program in testdata, written without any code of this package.
type node struct {
	t   testing.TB
	in  io.WriteCloser
	out *bufio.Scanner
}

func startNode(t testing.TB, args ...string) *node {
	t.Helper()
	if _, err := exec.LookPath("node"); err != nil {
		t.Fatalf("%v: this test is a peer in Node; install nodejs 20 or later (make need)", err)
	}
	args[0] = filepath.Join("testdata", args[0])
	ctx, cancel := context.WithTimeout(context.WithoutCancel(t.Context()), time.Minute)
	cmd := exec.CommandContext(ctx, "node", args...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if _, err := io.Copy(io.Discard, out); err != nil {
			t.Error(err)
		}
		if err := cmd.Wait(); err != nil || stderr.Len() > 0 {
			t.Errorf("%v: %v\n%s", args, err, stderr.String())
		}
		cancel()
	})
	return &node{t, in, bufio.NewScanner(out)}
}

func (n *node) expect(want string) {
	n.t.Helper()
	if !n.out.Scan() {
		n.t.Fatalf("the program ended where %s was expected: %v", want, n.out.Err())
	}
	if diff := cmp.Diff(want, n.out.Text()); diff != "" {
		n.t.Fatalf("line (-want +got):\n%s", diff)
	}
}

func (n *node) call(to, method, params string) {
	n.t.Helper()
	if _, err := io.WriteString(n.in, `{"to":"`+to+`","method":"`+method+`","params":`+params+"}\n"); err != nil {
		n.t.Fatal(err)
	}
}

// Services that share no code with this package call each other and ours.
func TestNodeServices(t *testing.T) {
	t.Parallel()
	g := startGateway(t, GatewayConfig{})
	ours := connect(t, g, ClientConfig{ServiceName: "ours"}, map[string]Handler{"echo": echo})
	Handle(ours, "fail", func(context.Context, any) (any, error) { return nil, Errorf("NO_FUNDS", "there is no money") })
	js := startNode(t, "service.js", g.cfg.SocketPath, "js", "json")
	js.expect(`{"registered":true}`)
	mp := startNode(t, "service.js", g.cfg.SocketPath, "mp", "msgpack")
	mp.expect(`{"registered":true}`)
	for _, c := range []struct {
		n  *node
		to string
	}{{js, "mp"}, {mp, "js"}, {js, "ours"}, {mp, "ours"}, {js, "js"}, {mp, "mp"}} {
		c.n.call(c.to, "echo", `{"v":[1,-5,0.5,"é",null,true,1795157887335]}`)
		c.n.expect(`{"data":{"v":[1,-5,0.5,"é",null,true,1795157887335]}}`)
		c.n.call(c.to, "nope", `{}`)
		c.n.expect(`{"code":"METHOD_NOT_FOUND","message":"Method 'nope' not found"}`)
	}
	for _, n := range []*node{js, mp} {
		n.call("z", "echo", `{}`)
		n.expect(`{"gateway":"SERVICE_NOT_FOUND","message":"Target service 'z' not found"}`)
		n.expect(`{"code":"SERVICE_NOT_FOUND","message":"Target service 'z' not found"}`)
		n.call("ours", "fail", `{}`)
		n.expect(`{"code":"NO_FUNDS","message":"there is no money"}`)
	}
	// Contexts go on through all of them.
	var who struct {
		Name    string
		Context Context
	}
	relay := map[string]any{"to": "mp", "method": "relay", "params": map[string]any{"to": "js", "method": "whoami", "params": map[string]any{}}}
	if err := ours.Call(t.Context(), "js", "relay", relay, &who); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"ours", "js", "mp"}, who.Context.Chain); diff != "" || who.Context.Depth != 3 || who.Name != "js" {
		t.Errorf("%+v\n%s", who, diff)
	}
	for _, name := range []string{"js", "mp"} {
		var got json.RawMessage
		if err := ours.Call(t.Context(), name, "echo", map[string]any{"a": []int{1, 2}}, &got); err != nil || string(got) != `{"a":[1,2]}` {
			t.Errorf("%s: %s, %v", name, got, err)
		}
	}
	// A second of a name is refused.
	second := startNode(t, "service.js", g.cfg.SocketPath, "js", "json")
	second.expect(`{"gateway":"CONNECTION_FAILED","message":"Service 'js' is already registered"}`)
}

// Our client is at home on a gateway of another make.
func TestNodeGateway(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "node.sock")
	startNode(t, "gateway.js", path).expect("ready")
	g := &Gateway{cfg: GatewayConfig{SocketPath: path}}
	b := connect(t, g, ClientConfig{ServiceName: "b"}, map[string]Handler{"echo": echo})
	a := connect(t, g, ClientConfig{ServiceName: "a"}, nil)
	b.RegisterMethod("late", echo) // such a gateway would close the connection for another REGISTER
	for _, method := range []string{"echo", "late"} {
		var got string
		if err := a.Call(t.Context(), "b", method, "x", &got); err != nil || got != "x" {
			t.Errorf("%s: %q, %v", method, got, err)
		}
	}
	if err := a.Call(t.Context(), "z", "echo", nil, nil, Timeout(50*time.Millisecond)); !errors.Is(err, CodeTimeout) {
		t.Errorf("unknown service: %v", err)
	}
	twin, err := NewClient(ClientConfig{ServiceName: "a", GatewayPath: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := twin.Connect(t.Context()); !errors.Is(err, CodeConnectionFailed) || !strings.Contains(err.Error(), "already registered") {
		t.Errorf("a second of the name: %v", err)
	}
}
