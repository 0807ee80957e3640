package runtime_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"telford.dev/telford"
	"telford.dev/telford/server/runtime"
	"telford.dev/telford/server/telfordtest"
)

type text struct {
	Text string `json:"text"`
}

// slow is a service whose method waits until it is let go.
type slow struct {
	begun chan struct{}
	let   chan struct{}
}

func startSlow(t *testing.T, srv *telfordtest.Server) *slow {
	t.Helper()
	s := &slow{begun: make(chan struct{}, 10), let: make(chan struct{})}
	svc, err := telford.New("slow", telford.WithServer(srv.Addr()), telford.WithKey(srv.Key(t, "slow")))
	if err != nil {
		t.Fatal(err)
	}
	err = telford.Handle(svc, "wait", func(ctx context.Context, in *text) (*text, error) {
		s.begun <- struct{}{}
		select {
		case <-s.let:
			return in, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := svc.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = svc.Stop(ctx) // the runtime may be gone
	})
	return s
}

// answer is what a call over HTTP came to.
type answer struct {
	status int
	body   string
	err    error
}

func callWait(ctx context.Context, srv *telfordtest.Server, token string) <-chan answer {
	done := make(chan answer, 1)
	go func() {
		req, err := http.NewRequestWithContext(ctx, http.MethodPost, srv.HTTP()+"/call/slow/wait", strings.NewReader(`{"text":"patience"}`))
		if err != nil {
			done <- answer{err: err}
			return
		}
		req.Close = true
		req.Header.Set("Authorization", "Bearer "+token)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			done <- answer{err: err}
			return
		}
		defer resp.Body.Close()
		body, err := io.ReadAll(resp.Body)
		done <- answer{resp.StatusCode, string(body), err}
	}()
	return done
}

func within[T any](t *testing.T, what string, c <-chan T) T {
	t.Helper()
	select {
	case v := <-c:
		return v
	case <-time.After(30 * time.Second):
		t.Fatalf("%s did not come", what)
		panic("unreachable")
	}
}

func TestStopLetsRunningCallsFinish(t *testing.T) {
	t.Parallel()
	onBothStores(t, func(t *testing.T, database telfordtest.Option) {
		srv := telfordtest.Start(t, database)
		s := startSlow(t, srv)
		token := srv.AdminToken()
		first := callWait(t.Context(), srv, token)
		within(t, "the call", s.begun)

		stopped := make(chan error, 1)
		go func() { stopped <- srv.Runtime().Stop(context.Background()) }()
		// New work is refused while the call still runs.
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for a := (answer{}); a.err == nil; <-tick.C {
			a = within(t, "an answer", probe(t, srv))
			if a.err == nil && a.status != http.StatusServiceUnavailable && a.status != http.StatusOK {
				t.Fatalf("/readyz answered %d", a.status)
			}
		}
		select {
		case err := <-stopped:
			t.Fatalf("stopped over a running call: %v", err)
		default:
		}
		close(s.let)
		if a := within(t, "the answer", first); a.err != nil || a.status != http.StatusOK || !strings.Contains(a.body, "patience") {
			t.Errorf("the call ended with %+v", a)
		}
		if err := within(t, "the stop", stopped); err != nil {
			t.Errorf("stop: %v", err)
		}
	})
}

// probe asks /readyz on a connection of its own.
func probe(t *testing.T, srv *telfordtest.Server) <-chan answer {
	t.Helper()
	done := make(chan answer, 1)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.HTTP()+"/readyz", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		done <- answer{err: err}
		return done
	}
	defer resp.Body.Close()
	done <- answer{status: resp.StatusCode}
	return done
}

func TestDrainTimeoutCutsWhatStillRuns(t *testing.T) {
	t.Parallel()
	srv := telfordtest.Start(t, telfordtest.With(func(c *runtime.Config) { c.DrainTimeout = 200 * time.Millisecond }))
	s := startSlow(t, srv)
	call := callWait(t.Context(), srv, srv.AdminToken())
	within(t, "the call", s.begun)
	began := time.Now()
	if err := srv.Runtime().Stop(context.Background()); err != nil {
		t.Errorf("stop: %v", err)
	}
	if took := time.Since(began); took < 200*time.Millisecond || took > 20*time.Second {
		t.Errorf("the stop took %s", took)
	}
	if a := within(t, "the answer", call); a.err == nil && a.status != http.StatusServiceUnavailable {
		t.Errorf("the call was cut with %+v", a)
	}
}

func TestWatchesDoNotHoldUpTheStop(t *testing.T) {
	t.Parallel()
	srv := telfordtest.Start(t)
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, srv.HTTP()+"/api/v1/services:watch", http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+srv.AdminToken())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	buf := make([]byte, 1)
	if _, err := resp.Body.Read(buf); err != nil {
		t.Fatal(err)
	}
	stopped := make(chan error, 1)
	began := time.Now()
	go func() { stopped <- srv.Runtime().Stop(context.Background()) }()
	rest, err := io.ReadAll(resp.Body)
	if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) || !strings.Contains(string(rest), "unavailable") {
		t.Errorf("the watch ended with %v: %s", err, rest)
	}
	if err := within(t, "the stop", stopped); err != nil || time.Since(began) > 5*time.Second {
		t.Errorf("stop after %s: %v", time.Since(began), err)
	}
}
