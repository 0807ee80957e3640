package sdktest

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"telford.dev/telford"
	"telford.dev/telford/server/telfordtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type echoReq struct {
	Text  string        `json:"text"`
	N     int           `json:"n,omitempty"`
	Sleep time.Duration `json:"sleep,omitempty"`
}

type echoResp struct {
	Text     string `json:"text"`
	Instance string `json:"instance,omitempty"`
}

// logger writes where TELFORD_TEST_LOG says, for whoever looks for a fault.
func logger() *slog.Logger {
	if os.Getenv("TELFORD_TEST_LOG") == "" {
		return slog.New(slog.DiscardHandler)
	}
	return slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// world is a runtime and what calls it.
type world struct {
	t   *testing.T
	srv *telfordtest.Server
	ids atomic.Int64
}

func newWorld(t *testing.T, opts ...telfordtest.Option) *world {
	t.Helper()
	return &world{t: t, srv: telfordtest.Start(t, append([]telfordtest.Option{telfordtest.WithLog(logger())}, opts...)...)}
}

// make makes a service that is not started.
func (w *world) make(name string, opts ...telford.Option) *telford.Service {
	w.t.Helper()
	s, err := telford.New(name, append([]telford.Option{
		telford.WithServer(w.srv.Addr()), telford.WithKey(w.srv.Key(w.t, name)),
		telford.Logger(logger().With("n", w.ids.Add(1))), telford.Reconnect(20*time.Millisecond, 200*time.Millisecond, 0),
	}, opts...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// start starts a service and stops it at the end of the test.
func (w *world) start(s *telford.Service) *telford.Service {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), 15*time.Second)
	defer cancel()
	if err := s.Start(ctx); err != nil {
		w.t.Fatalf("start %s: %v", s.Name(), err)
	}
	w.t.Cleanup(func() { w.stop(s) })
	return s
}

func (w *world) stop(s *telford.Service) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		w.t.Errorf("stop %s: %v", s.Name(), err)
	}
}

// echo is a service with the methods that the tests call.
func (w *world) echo(opts ...telford.Option) *telford.Service {
	w.t.Helper()
	s := w.make("echo", opts...)
	must(w.t, telford.Handle(s, "echo", func(ctx context.Context, in *echoReq) (*echoResp, error) {
		if in.Sleep > 0 {
			select {
			case <-time.After(in.Sleep):
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		return &echoResp{Text: in.Text, Instance: s.Identity().Instance}, nil
	}))
	must(w.t, telford.HandleStream(s, "count", func(ctx context.Context, in *echoReq, out *telford.Sender[echoResp]) error {
		for i := 0; in.N < 0 || i < in.N; i++ {
			if err := out.Send(&echoResp{Text: fmt.Sprint(i)}); err != nil {
				return err
			}
			if in.Sleep > 0 {
				select {
				case <-time.After(in.Sleep):
				case <-ctx.Done():
					return ctx.Err()
				}
			}
		}
		return nil
	}))
	must(w.t, telford.Handle(s, "fail", func(context.Context, *echoReq) (*echoResp, error) {
		return nil, telford.Errorf(telford.CodeConflict, "already charged")
	}))
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestTransports(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.start(w.echo())
	caller := w.start(w.make("caller", telford.CallerOnly(), telford.Uses("echo")))
	must(t, caller.WaitReady(t.Context(), "echo"))
	for _, mode := range []telford.TransportMode{telford.Direct, telford.Proxy, telford.Auto} {
		t.Run(fmt.Sprint(mode), func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			resp, err := telford.Call[echoResp](ctx, caller, "echo", "echo", &echoReq{Text: "hi"}, telford.Transport(mode))
			if err != nil || resp.Text != "hi" {
				t.Fatalf("got %v, %v", resp, err)
			}
			n := 0
			for chunk, err := range telford.Stream[echoResp](ctx, caller, "echo", "count", &echoReq{N: 100}, telford.Transport(mode)) {
				if err != nil {
					t.Fatal(err)
				}
				if chunk.Text != fmt.Sprint(n) {
					t.Fatalf("message %d is %q", n, chunk.Text)
				}
				n++
			}
			if n != 100 {
				t.Fatalf("%d messages", n)
			}
			_, err = telford.Call[echoResp](ctx, caller, "echo", "fail", &echoReq{}, telford.Transport(mode))
			if !errors.Is(err, telford.ErrConflict) {
				t.Fatalf("got %v, want a conflict", err)
			}
		})
	}
}
