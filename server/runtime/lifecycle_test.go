package runtime_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/store/storetest"
	"telford.dev/telford/server/runtime"
	"telford.dev/telford/server/telfordtest"
)

// onBothStores runs a test on SQLite and on PostgreSQL.
func onBothStores(t *testing.T, f func(t *testing.T, database telfordtest.Option)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		f(t, telfordtest.WithDatabase(""))
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		f(t, telfordtest.WithDatabase(storetest.Postgres(t)))
	})
}

// plain are settings for a runtime on free loopback ports.
func plain(t *testing.T) runtime.Config {
	t.Helper()
	return runtime.Config{Data: t.TempDir(), GRPC: "127.0.0.1:0", HTTP: "127.0.0.1:0", HTTPPlain: "on", Fast: true}
}

func start(t *testing.T, cfg runtime.Config) *runtime.Runtime {
	t.Helper()
	rt, err := runtime.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = rt.Stop(context.Background()) })
	return rt
}

func get(t *testing.T, client *http.Client, url, token string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b strings.Builder
	if _, err := copyAll(&b, resp.Body); err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, b.String()
}

func TestStartAndStopInAnyOrder(t *testing.T) {
	t.Parallel()
	rt := start(t, plain(t))
	if err := rt.Start(t.Context()); errs.CodeOf(err) != errs.FailedPrecondition {
		t.Errorf("second start: %v", err)
	}
	if code, _ := get(t, http.DefaultClient, rt.HTTPURL()+"/readyz", ""); code != http.StatusOK {
		t.Errorf("ready after the second start: %d", code)
	}
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			if err := rt.Stop(context.Background()); err != nil {
				t.Errorf("stop: %v", err)
			}
		})
	}
	wg.Wait()
	rt.Abort()
	select {
	case <-rt.Done():
	default:
		t.Error("Done is open after Stop")
	}
	if rt.Err() != nil {
		t.Errorf("Err after an orderly stop: %v", rt.Err())
	}
	if err := rt.Start(t.Context()); errs.CodeOf(err) != errs.FailedPrecondition {
		t.Errorf("start after stop: %v", err)
	}

	never, err := runtime.New(plain(t))
	if err != nil {
		t.Fatal(err)
	}
	if err := never.Stop(t.Context()); err != nil {
		t.Errorf("stop before start: %v", err)
	}
	if err := never.Start(t.Context()); errs.CodeOf(err) != errs.FailedPrecondition {
		t.Errorf("start after stop: %v", err)
	}
}

func TestStopWhileStarting(t *testing.T) {
	t.Parallel()
	for range 5 {
		rt, err := runtime.New(plain(t))
		if err != nil {
			t.Fatal(err)
		}
		started := make(chan error, 1)
		go func() { started <- rt.Start(context.Background()) }()
		if err := rt.Stop(context.Background()); err != nil {
			t.Errorf("stop: %v", err)
		}
		// Start succeeded before the stop, or says that there was one.
		if err := <-started; err != nil && errs.CodeOf(err) != errs.Canceled && errs.CodeOf(err) != errs.FailedPrecondition {
			t.Errorf("start: %v", err)
		}
		<-rt.Done()
	}
}

func TestFailedStartLeavesNothing(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, door := range []string{"grpc", "http"} {
		cfg := plain(t)
		if door == "grpc" {
			cfg.GRPC = l.Addr().String()
		} else {
			cfg.HTTP = l.Addr().String()
		}
		rt, err := runtime.New(cfg)
		if err != nil {
			t.Fatal(err)
		}
		err = rt.Start(t.Context())
		var part *runtime.PartError
		if !errors.As(err, &part) || part.Part != door || !strings.Contains(err.Error(), "--"+door) {
			t.Errorf("a port in use: %v", err)
		}
		if rt.Err() == nil {
			t.Error("Err is nil after a failed start")
		}
		// The directory is free again: everything was taken down.
		again := plain(t)
		again.Data = cfg.Data
		start(t, again)
	}
}

func TestPartThatEndsBringsTheRestDown(t *testing.T) {
	t.Parallel()
	for _, door := range []string{"grpc", "http"} {
		rt := start(t, plain(t))
		runtime.BreakDoor(rt, door)
		<-rt.Done()
		var part *runtime.PartError
		if !errors.As(rt.Err(), &part) || part.Part != door {
			t.Errorf("after the end of %s: %v", door, rt.Err())
		}
		if err := rt.Stop(t.Context()); !errors.Is(err, rt.Err()) {
			t.Errorf("Stop says %v, Err %v", err, rt.Err())
		}
	}
}

func TestTwoRuntimesDoNotShareADirectory(t *testing.T) {
	t.Parallel()
	first := start(t, plain(t))
	cfg := plain(t)
	cfg.Data = filepath.Dir(first.Path("x"))
	second, err := runtime.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "in use") {
		t.Errorf("the second start says %v", err)
	}
	if code, _ := get(t, http.DefaultClient, first.HTTPURL()+"/readyz", ""); code != http.StatusOK {
		t.Errorf("the first is disturbed: %d", code)
	}
}

func TestFilesForTheSameHost(t *testing.T) {
	t.Parallel()
	cfg := plain(t)
	rt := start(t, cfg)
	for name, mode := range map[string]os.FileMode{"admin.token": 0o600, "ca.crt": 0o644, "http.url": 0o644} {
		info, err := os.Stat(rt.Path(name))
		if err != nil || info.Mode().Perm() != mode {
			t.Errorf("%s: %v, %v", name, info, err)
		}
	}
	if err := rt.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(rt.Path("http.url")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the address is still published: %v", err)
	}
}
