package sdktest

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"telford.dev/telford"
)

// A service that is deaf is not ready, and goes on with direct calls in both directions.
func TestDeafService(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	exits := make(chan int, 1)
	echo := w.echo(telford.DeafAfter(time.Second), telford.ExitWhenDeaf(func(code int) { exits <- code }))
	changes := make(chan telford.Deaf, 10)
	echo.OnDeaf(func(d telford.Deaf) { changes <- d })
	w.start(echo)
	caller := w.start(w.make("caller", telford.CallerOnly(), telford.Uses("echo")))
	must(t, caller.WaitReady(t.Context(), "echo"))
	must(t, echo.Healthy())
	probe := func() (int, string) {
		rec := httptest.NewRecorder()
		echo.HealthHandler().ServeHTTP(rec, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/readyz", http.NoBody))
		return rec.Code, rec.Body.String()
	}
	if code, text := probe(); code != http.StatusOK || text != "ok\n" {
		t.Fatalf("the probe is told %d %s", code, text)
	}
	call := func() error {
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err := telford.Call[echoResp](ctx, caller, "echo", "echo", &echoReq{}, telford.Transport(telford.Direct))
		return err
	}
	must(t, call())

	w.srv.Kill(t)
	d := <-changes
	if d.Over || d.Cause == nil || time.Since(d.Since) < time.Second {
		t.Fatalf("told %+v", d)
	}
	if code := <-exits; code != telford.ExitDeaf {
		t.Fatalf("exit with %d", code)
	}
	if err := echo.Healthy(); err == nil || !strings.Contains(err.Error(), "deaf") {
		t.Fatalf("healthy: %v", err)
	}
	if code, text := probe(); code != http.StatusServiceUnavailable || !strings.Contains(text, "deaf") {
		t.Fatalf("the probe is told %d %s", code, text)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := echo.WaitReady(ctx); err == nil {
		t.Fatal("ready although deaf")
	}
	must(t, caller.Healthy()) // it has five minutes
	must(t, call())

	w.srv.Restart(t)
	if d := <-changes; !d.Over {
		t.Fatalf("told %+v", d)
	}
	must(t, echo.WaitReady(t.Context()))
	must(t, echo.Healthy())
	if len(exits) != 0 {
		t.Error("the end of the process was asked for twice")
	}
}
