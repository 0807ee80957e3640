package ipc

import (
	"encoding/hex"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/ipcwire"
)

// raw is a peer that writes and reads bytes.
type raw struct {
	t  testing.TB
	nc net.Conn
	in *ipcwire.Reader
}

func dial(t testing.TB, g *Gateway) *raw {
	t.Helper()
	nc, err := net.Dial("unix", g.cfg.SocketPath)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { nc.Close() })
	nc.SetDeadline(time.Now().Add(30 * time.Second))
	return &raw{t, nc, ipcwire.NewReader(nc, 0)}
}

func (r *raw) send(bodies ...string) {
	r.t.Helper()
	var b []byte
	for _, body := range bodies {
		b = ipcwire.AppendFrame(b, []byte(body))
	}
	if _, err := r.nc.Write(b); err != nil {
		r.t.Fatal(err)
	}
}

func (r *raw) next() string {
	r.t.Helper()
	frame, err := r.in.Next()
	if err != nil {
		r.t.Fatal(err)
	}
	return string(frame[ipcwire.HeaderSize:])
}

func (r *raw) expect(want ...string) {
	r.t.Helper()
	for _, w := range want {
		if diff := cmp.Diff(w, r.next()); diff != "" {
			r.t.Fatalf("message (-want +got):\n%s", diff)
		}
	}
}

func (r *raw) closed() {
	r.t.Helper()
	if frame, err := r.in.Next(); err == nil {
		r.t.Fatalf("%q came where the end was expected", frame)
	}
}

const ack = `{"type":"REGISTER_ACK"}`

func register(name string) string {
	return `{"type":"REGISTER","serviceName":"` + name + `","methods":["echo"],"version":"1.0.0","metadata":{}}`
}

func pooled(name string, index, size int) string {
	return strings.Replace(register(name), `"metadata":{}`,
		`"metadata":{"poolIndex":`+strconv.Itoa(index)+`,"poolSize":`+strconv.Itoa(size)+`}`, 1)
}

func callTo(to, id, context string) string {
	return `{"type":"CALL","id":"` + id + `","from":"a","to":"` + to + `","method":"echo","params":{"v":1},"context":` + context + `}`
}

// at is when the tests take place, for the time stamps of the gateway.
var at = time.UnixMilli(1795157887147)

func failure(id, code, message, stack string) string {
	return `{"type":"ERROR"` + id + `,"error":{"message":"` + message + `","code":"` + code + `","stack":"` + stack + `: ` + message + `"},"timestamp":1795157887147}`
}

func failed(id, to, code, message, stack, context string) string {
	return `{"type":"RESPONSE","id":"` + id + `","from":"` + to + `","to":"a","status":"error","error":{"message":"` + message + `","code":"` + code + `","stack":"` + stack + `: ` + message + `"}` + context + `}`
}

// The checks of a message, their order and their texts.
func TestGatewayRefuses(t *testing.T) {
	t.Parallel()
	g := startGateway(t, GatewayConfig{clock: clock.NewManual(at)})
	past := `{"deadline":1795157887146,"depth":101}`
	for _, c := range []struct {
		name, send string
		want       []string
	}{
		{"number", `5`, []string{failure("", "INVALID_MESSAGE", "Message is not an object", ipcError)}},
		{"null", `null`, []string{failure("", "INVALID_MESSAGE", "Message is not an object", ipcError)}},
		{"list", `[1]`, []string{failure("", "INVALID_MESSAGE", `Message missing \"type\" field`, ipcError)}},
		{"no type", `{"id":"x"}`, []string{failure(`,"id":"x"`, "INVALID_MESSAGE", `Message missing \"type\" field`, ipcError)}},
		{"unknown type", `{"type":"PING"}`, []string{failure("", "INVALID_MESSAGE", "Unknown message type: PING", ipcError)}},
		{"type of the gateway", `{"type":"ERROR"}`, []string{failure("", "INVALID_MESSAGE", "Unknown message type: ERROR", ipcError)}},
		{"no context", `{"type":"CALL","id":"1","from":"a","to":"z"}`, []string{
			failure(`,"id":"1"`, "EXECUTION_FAILED", "Cannot read properties of undefined (reading 'deadline')", typeError),
			failed("1", "z", "EXECUTION_FAILED", "Cannot read properties of undefined (reading 'deadline')", typeError, ""),
		}},
		{"deadline before depth", callTo("z", "2", past), []string{
			failure(`,"id":"2"`, "DEADLINE_EXCEEDED", "Request deadline exceeded", ipcError),
			failed("2", "z", "DEADLINE_EXCEEDED", "Request deadline exceeded", ipcError, `,"context":`+past),
		}},
		{"depth before target", callTo("z", "3", `{"deadline":1795157887147,"depth":101}`), []string{
			failure(`,"id":"3"`, "MAX_DEPTH_EXCEEDED", "Maximum call depth exceeded", ipcError),
			failed("3", "z", "MAX_DEPTH_EXCEEDED", "Maximum call depth exceeded", ipcError, `,"context":{"deadline":1795157887147,"depth":101}`),
		}},
		{"target", callTo("z", "4", `{"depth":100}`), []string{
			failure(`,"id":"4"`, "SERVICE_NOT_FOUND", "Target service 'z' not found", ipcError),
			failed("4", "z", "SERVICE_NOT_FOUND", "Target service 'z' not found", ipcError, `,"context":{"depth":100}`),
		}},
		{"context of another kind", callTo("z", "5", `7`), []string{
			failure(`,"id":"5"`, "INVALID_CONTEXT", "Message context is not an object", ipcError),
			failed("5", "z", "INVALID_CONTEXT", "Message context is not an object", ipcError, ""),
		}},
		{"no name", `{"type":"REGISTER"}`, []string{failure("", "INVALID_MESSAGE", `REGISTER needs a \"serviceName\" of 1 to 255 bytes`, ipcError)}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := dial(t, g)
			r.t = t
			r.send(c.send, register(c.name))
			r.expect(append(c.want, ack)...)
		})
	}
}

// An undecodable message is answered, and what stands around it is not lost.
func TestGatewaySkipsWhatItCannotDecode(t *testing.T) {
	t.Parallel()
	g := startGateway(t, GatewayConfig{})
	r := dial(t, g)
	r.send(register("a"), `{"type":`, "", `{"type":"HEARTBEAT"}`, `{"type":"PING"}`)
	r.expect(ack)
	for _, want := range []string{"DESERIALIZATION_FAILED", "DESERIALIZATION_FAILED", "Unknown message type"} {
		if got := r.next(); !strings.Contains(got, want) {
			t.Errorf("got %s, want %s", got, want)
		}
	}
	if _, err := r.nc.Write([]byte{0xff, 0xff, 0xff, 0xff}); err != nil {
		t.Fatal(err)
	}
	if got := r.next(); !strings.Contains(got, "announces 4294967295 bytes") {
		t.Errorf("got %s", got)
	}
	r.closed()
	eventually(t, func() bool { return !g.IsServiceConnected("a") })
}

func TestGatewayRelaysVerbatim(t *testing.T) {
	t.Parallel()
	routed := make(chan CallRoutedEvent, 1)
	answered := make(chan ResponseRoutedEvent, 1)
	g := startGateway(t, GatewayConfig{Events: GatewayEvents{
		CallRouted:     func(e CallRoutedEvent) { routed <- e },
		ResponseRouted: func(e ResponseRoutedEvent) { answered <- e },
	}})
	a, b := dial(t, g), dial(t, g)
	a.send(register("a"))
	b.send(register("b"))
	a.expect(ack)
	b.expect(ack)
	call := ` {"x-extra" : [1, 2.50], "type":"CALL","id":"1","from":"a","to":"b","method":"m","context":{"root":"r","chain":["a"],"depth":1}}`
	a.send(call)
	b.expect(call)
	response := `{"type":"RESPONSE","id":"1","from":"b","to":"a","status":"success" ,"data":{"é":1e2}}`
	b.send(response, response, `{"type":"RESPONSE","id":"no","to":"a","status":"success"}`)
	a.expect(response)
	want := CallRoutedEvent{From: "a", To: "b", Method: "m", RequestID: "1", Context: Context{Root: "r", Chain: []string{"a"}, Depth: 1}}
	if diff := cmp.Diff(want, <-routed); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(ResponseRoutedEvent{From: "b", To: "a", Status: "success", RequestID: "1"}, <-answered); diff != "" {
		t.Errorf("event (-want +got):\n%s", diff)
	}
	// The second answer and the one to no call went nowhere.
	a.send(`{"type":"PING"}`)
	if got := a.next(); !strings.Contains(got, "PING") {
		t.Errorf("got %s", got)
	}
}

// The two encodings call each other, and 64-bit integers in the context do not go on.
func TestGatewayTranscodes(t *testing.T) {
	t.Parallel()
	g := startGateway(t, GatewayConfig{})
	a, b, c := dial(t, g), dial(t, g), dial(t, g)
	pack := func(text string) string {
		t.Helper()
		b, err := ipcwire.Transcode(nil, []byte(text), ipcwire.JSON, 0)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	a.send(register("a"))
	b.send(pack(register("b")))
	c.send(pack(register("c")))
	a.expect(ack)
	b.expect(pack(ack))
	c.expect(pack(ack))
	call := callTo("b", "1", `{"root":"r","chain":["a"],"depth":1,"deadline":9795157887147}`)
	a.send(call)
	b.expect(pack(call))
	response := `{"type":"RESPONSE","id":"1","from":"b","to":"a","status":"success","data":[1,-5,0.5,"x"]}`
	b.send(pack(response))
	a.expect(response)
	wide := strings.Replace(pack(strings.ReplaceAll(call, `"from":"a","to":"b"`, `"from":"c","to":"b"`)),
		hexed("cb42a1d142d3e2e580"), "\xd3\x00\x00\x08\xe8\xa1\x69\xf1\x6b", 1)
	wide = strings.Replace(wide, "\xa5depth\x01", "\xa5depth\xcf\x00\x00\x00\x00\x00\x00\x00\x01", 1)
	c.send(wide)
	got := b.next()
	if !strings.Contains(got, "\xa5depth\xcb\x3f\xf0\x00\x00\x00\x00\x00\x00") || strings.Contains(got, "\xd3") {
		t.Errorf("got %x", got)
	}
	b.send(pack(register("third")))
	b.expect(pack(ack))
	if !g.IsServiceConnected("third") || !g.IsServiceConnected("b") {
		t.Errorf("services %v", g.ConnectedServices())
	}
	b.nc.Close()
	eventually(t, func() bool { return len(g.ConnectedServices()) == 2 })
}

func hexed(s string) string {
	b, err := hex.DecodeString(s)
	if err != nil {
		panic(err)
	}
	return string(b)
}

func TestGatewayNames(t *testing.T) {
	t.Parallel()
	gone := make(chan string, 64)
	g := startGateway(t, GatewayConfig{Events: GatewayEvents{ServiceDisconnected: func(e ServiceDisconnectedEvent) { gone <- e.ServiceName }}})
	a, second := dial(t, g), dial(t, g)
	a.send(register("a"))
	a.expect(ack)
	refusal := `{"type":"ERROR","error":{"message":"Service 'a' is already registered","code":"CONNECTION_FAILED"}}`
	second.send(register("a"))
	second.expect(refusal)
	second.closed()
	// Pool metadata opens no door to a name that is no pool.
	trick := dial(t, g)
	trick.send(pooled("a", 1, 2))
	trick.expect(refusal)
	trick.closed()
	// Nor does it lend a name.
	spoof := dial(t, g)
	spoof.send(`{"type":"CALL","id":"1","from":"a","to":"a","method":"m","context":{}}`)
	if got := spoof.next(); !strings.Contains(got, "not registered as that") {
		t.Errorf("got %s", got)
	}
	// Whoever registers again without saying that it is an update is refused, and gone.
	a.send(register("a"))
	a.expect(refusal)
	a.closed()
	a.nc.Close()
	if name := <-gone; name != "a" {
		t.Errorf("%s is gone", name)
	}
	again := dial(t, g)
	again.send(register("a"))
	again.expect(ack)
	// A name whose holder has hung up is free at once.
	for range 20 {
		again.nc.Close()
		again = dial(t, g)
		again.send(register("a"))
		again.expect(ack)
	}
}

func TestGatewayPools(t *testing.T) {
	t.Parallel()
	g := startGateway(t, GatewayConfig{})
	caller := dial(t, g)
	caller.send(register("a"))
	caller.expect(ack)
	var pool []*raw
	for i := range 3 {
		r := dial(t, g)
		r.send(pooled("p", i, 3))
		r.expect(ack)
		pool = append(pool, r)
	}
	for _, place := range [][2]int{{0, 3}, {1, 2}, {7, 3}} {
		other := dial(t, g)
		other.send(pooled("p", place[0], place[1]))
		if got := other.next(); !strings.Contains(got, "already registered") {
			t.Errorf("place %v: %s", place, got)
		}
	}
	id := 0
	hear := func(order ...int) {
		t.Helper()
		for _, i := range order {
			id++
			call := callTo("p", strconv.Itoa(id), `{}`)
			caller.send(call)
			pool[i].expect(call)
		}
	}
	hear(0, 1, 2, 0, 1, 2)
	pool[0].nc.Close()
	// The calls of the member that was lost are answered, and the service stays.
	for range 2 {
		if got := caller.next(); !strings.Contains(got, "CONNECTION_LOST") {
			t.Errorf("got %s", got)
		}
	}
	hear(1, 2, 1)
	pool[0] = dial(t, g)
	pool[0].send(pooled("p", 0, 3))
	pool[0].expect(ack)
	hear(2, 0, 1, 2)
	if info, ok := g.Service("p"); !ok || info.Connections != 3 || info.Peer.PID != os.Getpid() {
		t.Errorf("service %+v", info)
	}
	// Answers go to the caller from any member.
	pool[1].send(`{"type":"RESPONSE","id":"` + strconv.Itoa(id) + `","to":"a","status":"success"}`)
	caller.expect(`{"type":"RESPONSE","id":"` + strconv.Itoa(id) + `","to":"a","status":"success"}`)
}

func TestGatewayForgetsTheSilent(t *testing.T) {
	t.Parallel()
	now := clock.NewManual(at)
	g := startGateway(t, GatewayConfig{clock: now, HeartbeatInterval: time.Second, Timeout: 10 * time.Second})
	a, b := dial(t, g), dial(t, g)
	a.send(register("a"))
	a.expect(ack)
	b.send(register("b"))
	b.expect(ack)
	advance := func(d time.Duration) {
		for range d / (100 * time.Millisecond) {
			eventually(t, func() bool { return now.Pending() > 0 })
			now.Advance(100 * time.Millisecond)
		}
		eventually(t, func() bool { return now.Pending() > 0 })
	}
	beat := func() {
		a.send(`{"type":"HEARTBEAT"}`)
		eventually(t, func() bool {
			info, ok := g.Service("a")
			return !ok || info.LastHeartbeat.Equal(now.Now())
		})
	}
	a.send(callTo("b", "1", `{}`))
	b.next()
	for range 3 {
		advance(time.Second)
		beat()
	}
	advance(time.Second)
	if got := a.next(); !strings.Contains(got, "CONNECTION_LOST") {
		t.Errorf("got %s", got)
	}
	if diff := cmp.Diff([]string{"a"}, g.ConnectedServices()); diff != "" {
		t.Errorf("services (-want +got):\n%s", diff)
	}
	b.closed()
}

// A call without a deadline does not wait for ever.
func TestGatewayTimeout(t *testing.T) {
	t.Parallel()
	g := startGateway(t, GatewayConfig{Timeout: 20 * time.Millisecond})
	a, b := dial(t, g), dial(t, g)
	a.send(register("a"))
	a.expect(ack)
	b.send(register("b"))
	b.expect(ack)
	a.send(callTo("b", "1", `{}`))
	if got := a.next(); !strings.Contains(got, `"TIMEOUT"`) {
		t.Errorf("got %s", got)
	}
	if info, _ := g.Service("b"); info.InFlight != 0 {
		t.Errorf("%d calls in flight", info.InFlight)
	}
}

// Whoever does not read is cut off, and its callers are told.
func TestGatewaySlowReader(t *testing.T) {
	t.Parallel()
	g := startGateway(t, GatewayConfig{WriteBuffer: 256 << 10})
	a, slow := dial(t, g), dial(t, g)
	a.send(register("a"))
	a.expect(ack)
	slow.send(register("b"))
	slow.expect(ack)
	body := strings.Replace(callTo("b", "1", `{}`), `{"v":1}`, `"`+strings.Repeat("x", 64<<10)+`"`, 1)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range 40 {
			nc := a.nc
			if _, err := nc.Write(ipcwire.AppendFrame(nil, []byte(strings.Replace(body, `"id":"1"`, `"id":"`+strconv.Itoa(i)+`"`, 1)))); err != nil {
				return
			}
		}
	}()
	for answered := 0; answered < 40; {
		got := a.next()
		if strings.Contains(got, `"RESPONSE"`) {
			answered++
		}
	}
	<-done
	if g.IsServiceConnected("b") {
		t.Error("the slow service is still there")
	}
}

func TestGatewayLife(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "g.sock")
	var events []string
	cfg := GatewayConfig{SocketPath: path, Mode: 0o660, Events: GatewayEvents{
		Started: func(e StartedEvent) { events = append(events, "started "+filepath.Base(e.SocketPath)) },
		Stopped: func() { events = append(events, "stopped") },
	}}
	// A socket file that nobody serves is in nobody's way.
	stale, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	stale.SetUnlinkOnClose(false)
	stale.Close()
	g := NewGateway(cfg)
	if err := g.Stop(); err != nil {
		t.Error(err)
	}
	for range 2 {
		if err := g.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := g.Start(t.Context()); !errors.Is(err, CodeConnectionFailed) || !strings.Contains(err.Error(), "already running") {
			t.Errorf("second start: %v", err)
		}
		if err := NewGateway(cfg).Start(t.Context()); !errors.Is(err, CodeConnectionFailed) || !strings.Contains(err.Error(), "another process") {
			t.Errorf("second gateway: %v", err)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o660 {
			t.Errorf("mode %v, %v", info.Mode(), err)
		}
		if s := g.Status(); !s.Running || s.SocketPath != path {
			t.Errorf("status %+v", s)
		}
		// Connections that never registered do not hold up the end.
		dial(t, g)
		for range 2 {
			if err := g.Stop(); err != nil {
				t.Error(err)
			}
		}
		if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the socket file after the end: %v", err)
		}
	}
	if diff := cmp.Diff([]string{"started g.sock", "stopped", "started g.sock", "stopped"}, events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := g.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "is no socket") {
		t.Errorf("on a file: %v", err)
	}
}
