//go:build linux

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"telford.dev/telford"
)

// limitFiles sets how large a file may become that the process writes; 0 lifts the
// limit.
func (p *process) limitFiles(t *testing.T, bytes uint64) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_FSIZE, nil, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur = limit.Max; bytes > 0 {
		limit.Cur = bytes
	}
	if err := unix.Prlimit(p.cmd.Process.Pid, unix.RLIMIT_FSIZE, &limit, nil); err != nil {
		t.Fatal(err)
	}
}

// api is the operator's way to a process that serves with --dev.
func (p *process) api(t *testing.T, dir, method, path, body string) (status int, answer string) {
	t.Helper()
	token, err := os.ReadFile(filepath.Join(dir, "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+p.ready["http"]+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	req.Close = true
	req.Header.Set("Authorization", "Bearer "+string(bytes.TrimSpace(token)))
	req.Header.Set("Content-Type", "application/json")
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(text)
}

type word struct {
	Text string `json:"text"`
}

// instance starts a service that echoes, with the dev key; it stops with the test.
func (p *process) instance(t *testing.T, dir, name string, patience time.Duration) error {
	t.Helper()
	key, err := os.ReadFile(filepath.Join(dir, "dev.key"))
	if err != nil {
		t.Fatal(err)
	}
	svc, err := telford.New(name, telford.WithServer(p.ready["grpc"]), telford.WithKey(string(bytes.TrimSpace(key))))
	if err != nil {
		t.Fatal(err)
	}
	if err := telford.Handle(svc, "echo", func(_ context.Context, in *word) (*word, error) { return in, nil }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		_ = svc.Stop(ctx) // the runtime may be gone
	})
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	return svc.Start(ctx)
}

// TestFullDisk: a runtime whose files may not grow refuses what it would have to store,
// says why, serves everything else, and goes on when there is room again. What it has
// acknowledged survives its death.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := serve(t, nil, "--dev", "--data", dir)
	if err := p.instance(t, dir, "payments", patience); err != nil {
		t.Fatal(err)
	}
	acknowledged := make(map[string]bool)
	create := func() (int, string) {
		status, answer := p.api(t, dir, http.MethodPost, "/api/v1/keys", `{"service":"payments"}`)
		if status == http.StatusOK {
			var key struct{ ID string }
			if err := json.Unmarshal([]byte(answer), &key); err != nil || key.ID == "" {
				t.Fatalf("%v: %s", err, answer)
			}
			acknowledged[key.ID] = true
		}
		return status, answer
	}
	create()
	p.limitFiles(t, 1<<12) // less than any file of the store has
	status, answer := create()
	if status != http.StatusTooManyRequests && status != http.StatusInsufficientStorage || !strings.Contains(answer, "no space left") {
		t.Fatalf("a key: %d %s", status, answer)
	}
	err := p.instance(t, dir, "orders", 3*time.Second)
	if err == nil || !strings.Contains(err.Error(), "no space left") || !strings.Contains(err.Error(), "free") {
		t.Errorf("a registration: %v", err)
	}
	waitFor(t, p.stderr, "registration refused")
	if !strings.Contains(p.stderr.String(), "no space left") {
		t.Errorf("the log does not say why:\n%s", p.stderr)
	}
	if status, answer := p.api(t, dir, http.MethodPost, "/call/payments/echo", `{"text":"still here"}`); status != http.StatusOK || !strings.Contains(answer, "still here") {
		t.Errorf("a call: %d %s", status, answer)
	}
	if status, answer := p.api(t, dir, http.MethodGet, "/readyz", ""); status != http.StatusOK {
		t.Errorf("/readyz: %d %s", status, answer)
	}

	p.limitFiles(t, 0)
	if status, answer := create(); status != http.StatusOK {
		t.Errorf("with room again: %d %s", status, answer)
	}
	if err := p.instance(t, dir, "orders", patience); err != nil {
		t.Errorf("a registration with room again: %v", err)
	}

	if err := p.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	receive(t, p.exited)
	p = serve(t, nil, "--dev", "--data", dir)
	status, answer = p.api(t, dir, http.MethodGet, "/api/v1/keys?page_size=1000", "")
	for id := range acknowledged {
		if !strings.Contains(answer, fmt.Sprintf("%q", id)) {
			t.Errorf("key %s was acknowledged and is gone; listed: %d %s", id, status, answer)
		}
	}
	status, answer = p.api(t, dir, http.MethodGet, "/api/v1/services", "")
	for _, name := range []string{"payments", "orders"} {
		if !strings.Contains(answer, `"`+name+`"`) {
			t.Errorf("an instance of %s was acknowledged and is gone; listed: %d %s", name, status, answer)
		}
	}
}
