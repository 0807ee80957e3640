package ipc

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"telford.dev/telford/internal/clock"
)

func TestClientCalls(t *testing.T) {
	t.Parallel()
	for _, enc := range [][2]Serializer{{JSON, JSON}, {Msgpack, Msgpack}, {JSON, Msgpack}, {Msgpack, JSON}} {
		t.Run(enc[0].String()+" to "+enc[1].String(), func(t *testing.T) {
			t.Parallel()
			g := startGateway(t, GatewayConfig{})
			hold := make(chan struct{})
			b := connect(t, g, ClientConfig{ServiceName: "b", Serializer: enc[1]}, map[string]Handler{
				"echo":  echo,
				"fail":  func(context.Context, Params) (any, error) { return nil, Errorf("NO_FUNDS", "there is no money") },
				"plain": func(context.Context, Params) (any, error) { return nil, errors.New("it broke") },
				"panic": func(context.Context, Params) (any, error) { panic("oh") },
				"none":  func(context.Context, Params) (any, error) { return nil, nil },
				"hold": func(ctx context.Context, _ Params) (any, error) {
					select {
					case <-hold:
					case <-ctx.Done():
					}
					return nil, ctx.Err()
				},
			})
			Handle(b, "double", func(_ context.Context, n int) (int, error) { return 2 * n, nil })
			a := connect(t, g, ClientConfig{ServiceName: "a", Serializer: enc[0]}, nil)
			type thing struct {
				Text  string
				List  []int
				Blob  []byte
				Inner map[string]float64
			}
			want := thing{"é\n", []int{1, -70000, 1 << 40}, []byte{0, 255}, map[string]float64{"x": 0.5}}
			var got thing
			if err := a.Call(t.Context(), "b", "echo", want, &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("echo (-want +got):\n%s", diff)
			}
			var n int
			if err := a.Call(t.Context(), "b", "double", 21, &n); err != nil || n != 42 {
				t.Errorf("double: %d, %v", n, err)
			}
			if err := a.Call(t.Context(), "b", "none", nil, &n); err != nil || n != 42 {
				t.Errorf("none: %d, %v", n, err)
			}
			for _, c := range []struct {
				to, method string
				code       Code
				text       string
			}{
				{"b", "fail", "NO_FUNDS", "there is no money"},
				{"b", "plain", CodeExecutionFailed, "it broke"},
				{"b", "panic", CodeExecutionFailed, "panicked: oh"},
				{"b", "nope", CodeMethodNotFound, "Method 'nope' not found"},
				{"z", "echo", CodeServiceNotFound, "Target service 'z' not found"},
			} {
				var options []CallOption
				if c.code == CodeMethodNotFound || c.code == CodeServiceNotFound {
					options = append(options, Retry(1000)) // which these never are
				}
				err := a.Call(t.Context(), c.to, c.method, nil, nil, options...)
				var e *Error
				if !errors.Is(err, c.code) || !errors.As(err, &e) || !strings.Contains(e.Message, c.text) || e.Target != c.to || e.Method != c.method {
					t.Errorf("%s: %v", c.method, err)
				}
			}
			if err := a.Call(t.Context(), "b", "hold", nil, nil, Timeout(20*time.Millisecond)); !errors.Is(err, CodeTimeout) {
				t.Errorf("hold: %v", err)
			}
			close(hold)
			deep := WithContext(t.Context(), Context{Root: "r", Chain: []string{"x"}, Depth: 100})
			if err := a.Call(deep, "b", "echo", nil, nil); !errors.Is(err, CodeMaxDepthExceeded) {
				t.Errorf("deep: %v", err)
			}
			late := WithContext(t.Context(), Context{Root: "r", Chain: []string{"x"}, Depth: 1, Deadline: 1})
			if err := a.Call(late, "b", "echo", nil, nil); !errors.Is(err, CodeDeadlineExceeded) {
				t.Errorf("late: %v", err)
			}
			if err := a.Call(t.Context(), "b", "echo", func() {}, nil); !errors.Is(err, CodeSerializationFailed) {
				t.Errorf("func: %v", err)
			}
			// What was registered late is known.
			eventually(t, func() bool {
				info, _ := g.Service("b")
				return slices.Contains(info.Methods, "double")
			})
			b.UnregisterMethod("echo")
			if err := a.Call(t.Context(), "b", "echo", nil, nil); !errors.Is(err, CodeMethodNotFound) {
				t.Errorf("after UnregisterMethod: %v", err)
			}
			if s := a.Status(); !s.Connected || !s.Registered || s.PendingRequests != 0 || s.ServiceName != "a" {
				t.Errorf("status %+v", s)
			}
		})
	}
}

// Each of many overlapping handlers extends its own context.
func TestClientNestedContexts(t *testing.T) {
	t.Parallel()
	g := startGateway(t, GatewayConfig{})
	last := connect(t, g, ClientConfig{ServiceName: "last"}, nil)
	Handle(last, "who", func(ctx context.Context, _ any) (Context, error) {
		c, _ := FromContext(ctx)
		return c, nil
	})
	middle := connect(t, g, ClientConfig{ServiceName: "middle", Serializer: Msgpack}, nil)
	Handle(middle, "pass", func(ctx context.Context, _ any) (Context, error) {
		var c Context
		err := middle.Call(ctx, "last", "who", nil, &c)
		return c, err
	})
	first := connect(t, g, ClientConfig{ServiceName: "first"}, nil)
	roots := make([]int, 200)
	for i := range roots {
		roots[i] = i
	}
	got, err := Concurrently(t.Context(), roots, 50, func(ctx context.Context, i int) (Context, error) {
		var c Context
		own := Context{Root: "root-" + strconv.Itoa(i), Chain: []string{"x"}, Depth: 1, Deadline: 4e12}
		err := first.Call(WithContext(ctx, own), "middle", "pass", nil, &c)
		return c, err
	})
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range got {
		want := Context{Root: "root-" + strconv.Itoa(i), Chain: []string{"x", "first", "middle"}, Depth: 3, Deadline: 4e12}
		if diff := cmp.Diff(want, c); diff != "" {
			t.Fatalf("call %d (-want +got):\n%s", i, diff)
		}
	}
	var top Context
	if err := first.Call(t.Context(), "last", "who", nil, &top); err != nil || top.Depth != 1 || len(top.Chain) != 1 || top.Validate() != nil {
		t.Errorf("first context %+v, %v", top, err)
	}
}

func TestClientLife(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "g.sock")
	g := NewGateway(GatewayConfig{SocketPath: path})
	var mu sync.Mutex
	var events []string
	note := func(e string) func() {
		return func() { mu.Lock(); defer mu.Unlock(); events = append(events, e) }
	}
	c, err := NewClient(ClientConfig{
		ServiceName: "a", GatewayPath: path, ReconnectDelay: time.Millisecond,
		Events: ClientEvents{Connected: note("connected"), Registered: note("registered"), Disconnected: note("disconnected")},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Connect(t.Context()); !errors.Is(err, CodeConnectionFailed) {
		t.Errorf("without a gateway: %v", err)
	}
	if err := c.Call(t.Context(), "a", "echo", nil, nil); !errors.Is(err, CodeNotConnected) {
		t.Errorf("without a connection: %v", err)
	}
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.Stop(); err != nil {
			t.Error(err)
		}
	}()
	c.RegisterMethod("echo", echo)
	started := make(chan struct{}, 2)
	c.RegisterMethod("hang", func(ctx context.Context, _ Params) (any, error) {
		started <- struct{}{}
		<-ctx.Done()
		return nil, ctx.Err()
	})
	for range 2 {
		if err := c.Connect(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	twin, err := NewClient(ClientConfig{ServiceName: "a", GatewayPath: path})
	if err != nil {
		t.Fatal(err)
	}
	if err := twin.Connect(t.Context()); !errors.Is(err, CodeConnectionFailed) || !strings.Contains(err.Error(), "already registered") {
		t.Errorf("a second of the name: %v", err)
	}
	// A lost connection fails what is under way, and comes back.
	failed := make(chan error, 1)
	hang := func() { failed <- c.Call(t.Context(), "a", "hang", nil, nil) }
	go hang()
	<-started
	if err := g.Stop(); err != nil {
		t.Error(err)
	}
	if err := <-failed; !errors.Is(err, CodeConnectionLost) {
		t.Errorf("under way when the gateway went: %v", err)
	}
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	eventually(t, c.IsConnected)
	if err := c.Call(t.Context(), "a", "echo", 1, nil); err != nil {
		t.Errorf("after the return: %v", err)
	}
	go hang()
	<-started
	for range 2 {
		if err := c.Disconnect(); err != nil {
			t.Error(err)
		}
	}
	if err := <-failed; !errors.Is(err, CodeNotConnected) {
		t.Errorf("under way at the end: %v", err)
	}
	eventually(t, func() bool { return len(g.ConnectedServices()) == 0 && c.handling.Load() == 0 })
	if diff := cmp.Diff([]string{"registered", "connected", "disconnected", "registered", "connected", "disconnected"}, events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	for _, bad := range []ClientConfig{{}, {ServiceName: "x", PoolSize: -1}, {ServiceName: strings.Repeat("x", 256)}} {
		if _, err := NewClient(bad); !errors.Is(err, CodeInvalidMessage) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
}

func TestClientPool(t *testing.T) {
	t.Parallel()
	g := startGateway(t, GatewayConfig{})
	b := connect(t, g, ClientConfig{ServiceName: "b", PoolSize: 4, ReconnectDelay: time.Millisecond}, map[string]Handler{"echo": echo})
	a := connect(t, g, ClientConfig{ServiceName: "a", PoolSize: 3, Serializer: Msgpack, ReconnectDelay: time.Millisecond}, nil)
	items := make([]int, 2000)
	for i := range items {
		items[i] = i
	}
	call := func(ctx context.Context, i int) (int, error) {
		var n int
		err := a.Call(ctx, "b", "echo", i, &n)
		return n, err
	}
	got, err := Batch(t.Context(), items, 500, call)
	if diff := cmp.Diff(items, got); err != nil || diff != "" {
		t.Fatalf("%v (-want +got):\n%s", err, diff)
	}
	for _, l := range b.live()[1:] {
		l.close()
	}
	eventually(t, func() bool { return b.Status().Connections == 4 })
	if got, err = Concurrently(t.Context(), items, 0, call); err != nil || !slices.Equal(got, items) {
		t.Errorf("after losses: %v", err)
	}
}

func TestClientRetries(t *testing.T) {
	t.Parallel()
	g := startGateway(t, GatewayConfig{})
	now := clock.NewManual(time.Now())
	tries := 0
	b := connect(t, g, ClientConfig{ServiceName: "b"}, nil)
	Handle(b, "flaky", func(context.Context, any) (int, error) {
		if tries++; tries < 3 {
			return 0, errors.New("not yet")
		}
		return tries, nil
	})
	a := connect(t, g, ClientConfig{ServiceName: "a", HeartbeatInterval: time.Hour, clock: now}, nil)
	done := make(chan error, 1)
	var n int
	go func() { done <- a.Call(t.Context(), "b", "flaky", nil, &n, Retry(2)) }()
	for range 2 {
		// The timer of the heartbeat, and that of the wait once no call is under way.
		eventually(t, func() bool { return now.Pending() == 2 && a.Status().PendingRequests == 0 })
		now.Advance(2 * time.Second)
	}
	if err := <-done; err != nil || n != 3 {
		t.Errorf("%d, %v", n, err)
	}
}

func TestBackoff(t *testing.T) {
	t.Parallel()
	for attempt, want := range []time.Duration{5 * time.Second, 10 * time.Second, 20 * time.Second, 30 * time.Second, 30 * time.Second} {
		if got := backoff(5*time.Second, attempt+1, 0); got != want {
			t.Errorf("attempt %d: %v, want %v", attempt+1, got, want)
		}
	}
	if got := backoff(8*time.Second, 1, 0.5); got != 7*time.Second {
		t.Errorf("with jitter: %v", got)
	}
	if got := backoff(50*time.Millisecond, 1000, 0); got != maxReconnectDelay {
		t.Errorf("far out: %v", got)
	}
}

func TestGatewayHooks(t *testing.T) {
	t.Parallel()
	var wg sync.WaitGroup
	defer wg.Wait()
	g := startGateway(t, GatewayConfig{Hooks: GatewayHooks{
		Admit: func(r Registration) error {
			if r.Name == "bad" {
				return Errorf(CodeConnectionFailed, "nobody is called %s here", r.Name)
			}
			return nil
		},
		Authorize: func(i CallInfo) error {
			if i.Method == "secret" {
				return Errorf("PERMISSION_DENIED", "%s may not call %s", i.From, i.Method)
			}
			return nil
		},
		Resolve: func(f *ForeignCall) bool {
			if f.To != "far" {
				return false
			}
			wg.Go(func() {
				if f.Method == "fail" {
					f.Fail("FAR", "it is far away")
					return
				}
				if err := f.Respond(f.Params); err != nil {
					t.Error(err)
				}
			})
			return true
		},
	}})
	for _, enc := range []Serializer{JSON, Msgpack} {
		name := "svc-" + enc.String()
		c := connect(t, g, ClientConfig{ServiceName: name, Serializer: enc}, map[string]Handler{
			"echo": echo,
			"hang": func(ctx context.Context, _ Params) (any, error) { <-ctx.Done(); return nil, ctx.Err() },
		})
		var got map[string]any
		if err := c.Call(t.Context(), "far", "echo", map[string]any{"v": 1.5}, &got); err != nil || got["v"] != 1.5 {
			t.Errorf("%s: %v, %v", enc, got, err)
		}
		if err := c.Call(t.Context(), "far", "fail", nil, nil); !errors.Is(err, Code("FAR")) {
			t.Errorf("%s: %v", enc, err)
		}
		if err := c.Call(t.Context(), name, "secret", nil, nil); !errors.Is(err, Code("PERMISSION_DENIED")) {
			t.Errorf("%s: %v", enc, err)
		}
		// The other way round: a call from no connection.
		out := OutboundCall{From: "far", To: name, Method: "echo", Params: []byte(`{"n":[1]}`), Context: NewContext("far", time.Minute)}
		if data, err := g.Call(t.Context(), out); err != nil || string(data) != `{"n":[1]}` {
			t.Errorf("%s: %s, %v", enc, data, err)
		}
		out.Method = "nope"
		if _, err := g.Call(t.Context(), out); !errors.Is(err, CodeMethodNotFound) {
			t.Errorf("%s: %v", enc, err)
		}
		out.Method = "hang"
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		if _, err := g.Call(ctx, out); !errors.Is(err, CodeTimeout) || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %v", enc, err)
		}
		cancel()
		out.To = "nobody"
		if _, err := g.Call(t.Context(), out); !errors.Is(err, CodeServiceNotFound) {
			t.Errorf("%s: %v", enc, err)
		}
	}
	bad, err := NewClient(ClientConfig{ServiceName: "bad", GatewayPath: g.cfg.SocketPath})
	if err != nil {
		t.Fatal(err)
	}
	if err := bad.Connect(t.Context()); err == nil || !strings.Contains(err.Error(), "nobody is called bad here") {
		t.Errorf("refused: %v", err)
	}
}

// Whatever dies while calls are under way: each call ends, exactly once, with its own
// answer or with the word that the connection was lost, and nothing stays in the table.
func TestInFlightUnderDeaths(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		s := &service{name: "b", index: map[*conn]int{}, calls: map[callKey]flight{}}
		members := rapid.IntRange(1, 4).Draw(r, "members")
		for range members {
			s.conns = append(s.conns, new(conn))
		}
		callers := []*conn{new(conn), new(conn)}
		open := map[callKey]*conn{}
		ended := map[callKey]int{}
		for step := range rapid.IntRange(1, 60).Draw(r, "steps") {
			switch rapid.IntRange(0, 3).Draw(r, "step") {
			case 0, 1:
				who := rapid.IntRange(0, 1).Draw(r, "caller")
				key := callKey{fmt.Sprint("c", who), fmt.Sprint(step)}
				target, err := s.begin(flight{key: key, caller: callers[who], expires: 1}, 1<<20)
				if (err == nil) != (len(s.conns) > 0) {
					r.Fatalf("begin with %d connections: %v", len(s.conns), err)
				}
				if err == nil {
					open[key] = target
				}
			case 2:
				for key := range open {
					f, ok := s.end([]byte(key.from), []byte(key.id))
					if !ok || f.key != key || f.target != open[key] {
						r.Fatalf("answer to %v: %v %+v", key, ok, f)
					}
					ended[key]++
					delete(open, key)
					break
				}
			case 3:
				if len(s.conns) == 0 {
					continue
				}
				dead := s.conns[rapid.IntRange(0, len(s.conns)-1).Draw(r, "dead")]
				owed, last := s.remove(dead)
				if last != (len(s.conns) == 0) {
					r.Fatalf("last %v with %d left", last, len(s.conns))
				}
				for _, f := range owed {
					if open[f.key] != dead {
						r.Fatalf("%v was not owed by the dead", f.key)
					}
					ended[f.key]++
					delete(open, f.key)
				}
				for key, target := range open {
					if target == dead {
						r.Fatalf("%v was forgotten", key)
					}
				}
			}
			if len(s.calls) != len(open) {
				r.Fatalf("%d in the table, %d open", len(s.calls), len(open))
			}
		}
		for key, n := range ended {
			if _, again := s.end([]byte(key.from), []byte(key.id)); n != 1 || again {
				r.Fatalf("%v ended %d times, again %v", key, n, again)
			}
		}
	})
}

func TestCodecHelpers(t *testing.T) {
	t.Parallel()
	for _, enc := range []Serializer{JSON, Msgpack} {
		frame, err := Encode(map[string]int{"a": 1}, enc)
		if err != nil {
			t.Fatal(err)
		}
		if n, ok := PeekLength(frame); !ok || n != len(frame)-4 || !Complete(frame) || Complete(frame[:len(frame)-1]) {
			t.Errorf("%s: length %d of %d", enc, n, len(frame))
		}
		bodies, rest, err := Split(append(slices.Clone(frame), frame[:3]...))
		if err != nil || len(bodies) != 1 || len(rest) != 3 {
			t.Fatalf("%s: %d bodies, rest %d, %v", enc, len(bodies), len(rest), err)
		}
		var got map[string]int
		if err := Decode(bodies[0], &got); err != nil || got["a"] != 1 {
			t.Errorf("%s: %v, %v", enc, got, err)
		}
		if err := Decode(bodies[0][:2], &got); !errors.Is(err, CodeDeserializationFailed) {
			t.Errorf("%s: %v", enc, err)
		}
	}
}

func BenchmarkRelay(b *testing.B) {
	for _, enc := range []Serializer{JSON, Msgpack} {
		b.Run(enc.String(), func(b *testing.B) {
			g := startGateway(b, GatewayConfig{})
			connect(b, g, ClientConfig{ServiceName: "b", Serializer: enc}, map[string]Handler{"echo": echo})
			a := connect(b, g, ClientConfig{ServiceName: "a", Serializer: enc}, nil)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if err := a.Call(b.Context(), "b", "echo", 1, nil); err != nil {
						b.Error(err)
						return
					}
				}
			})
		})
	}
}
