package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// registryStub is a REST registry that gives prepared answers and keeps the requests.
type registryStub struct {
	*httptest.Server
	arrived chan string // method, path and body of each

	mu     sync.Mutex
	refuse int // this many creations are still refused
}

// newRegistry starts a stub that answers the first creations with a status of failure.
func newRegistry(t *testing.T, refuse, status int) *registryStub {
	t.Helper()
	r := &registryStub{arrived: make(chan string, 1000), refuse: refuse}
	token := `{"token":"6bc8d050-f86a-11e1-a89e-ca2ffe480b20"}`
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, req *http.Request) {
		body, _ := io.ReadAll(req.Body)
		r.arrived <- strings.TrimSpace(req.Method + " " + req.URL.Path + " " + string(body))
		r.mu.Lock()
		refuse := req.Method == http.MethodPost && req.URL.Path == "/v1.0/7777/services" && r.refuse > 0
		if refuse {
			r.refuse--
		}
		r.mu.Unlock()
		switch {
		case req.URL.Path == "/v2.0/tokens":
			_, _ = io.WriteString(w, `{"access":{"token":{"id":"dev","tenant":{"id":"7777"}}}}`)
		case refuse:
			w.WriteHeader(status)
		case strings.HasSuffix(req.URL.Path, "/services"):
			w.WriteHeader(http.StatusCreated)
			_, _ = io.WriteString(w, token)
		case req.Method == http.MethodPost:
			_, _ = io.WriteString(w, token)
		default:
			w.WriteHeader(http.StatusNoContent)
		}
	})
	r.Server = httptest.NewServer(mux)
	t.Cleanup(r.Close)
	return r
}

// until waits for a request and returns it and those before.
func (r *registryStub) until(t *testing.T, prefix string) []string {
	t.Helper()
	var got []string
	for {
		select {
		case line := <-r.arrived:
			if got = append(got, line); strings.HasPrefix(line, prefix) {
				return got
			}
		case <-time.After(patience):
			t.Fatalf("no %q among %q", prefix, got)
		}
	}
}

// wrapped is `telford wrap` as a process of its own.
func wrapped(t *testing.T, server string, argv ...string) (cmd *exec.Cmd, stdout, stderr *lockedBuffer) {
	t.Helper()
	cmd = exec.CommandContext(t.Context(), "telford", append([]string{"wrap"}, argv...)...)
	cmd.Env = append(os.Environ(), "TELFORD_HTTP=", "TELFORD_SERVER="+server, "TELFORD_KEY=joe:dev", "TELFORD_DATA="+t.TempDir())
	stdout, stderr = &lockedBuffer{}, &lockedBuffer{}
	cmd.Stdout, cmd.Stderr = stdout, stderr
	return cmd, stdout, stderr
}

func exitOf(t *testing.T, err error) int {
	t.Helper()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	if exit == nil {
		return 0
	}
	return exit.ExitCode()
}

func waitUntil(t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !done(); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

// TestWrap: what a program is registered as, what it gets and how it ends.
func TestWrap(t *testing.T) {
	t.Parallel()
	script := filepath.Join(t.TempDir(), "not-executable")
	if err := os.WriteFile(script, []byte("#!/bin/sh\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct {
		argv           []string
		status         int
		stdout, stderr string
		exit           string // metadata in the end; "": nothing was registered
	}{
		"success":           {[]string{"true"}, 0, "", "", "0"},
		"failure":           {[]string{"sh", "-c", "exit 7"}, 7, "", "", "7"},
		"signal":            {[]string{"sh", "-c", "kill -TERM $$"}, 143, "", "", "143 (terminated)"},
		"kill":              {[]string{"sh", "-c", "kill -KILL $$"}, 137, "", "", "137 (killed)"},
		"streams":           {[]string{"sh", "-c", "cat; echo to-stderr >&2"}, 0, "from stdin\n", "to-stderr\n", "0"},
		"flags of its own":  {[]string{"echo", "--id", "-i", "--", "--tags=x"}, 0, "--id -i -- --tags=x\n", "", "0"},
		"dashes":            {[]string{"--", "echo", "--", "-x"}, 0, "-- -x\n", "", "0"},
		"no such program":   {[]string{"./no-such-program"}, 127, "", "run ./no-such-program", ""},
		"not in PATH":       {[]string{"no-such-program"}, 127, "", "executable file not found", ""},
		"not executable":    {[]string{script}, 126, "", "permission denied", ""},
		"not a program":     {[]string{os.DevNull}, 126, "", os.DevNull, ""},
		"abort, and passes": {[]string{"--abort-on-failure", "sh", "-c", "exit 3"}, 3, "", "", "3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := newRegistry(t, 0, 0)
			flags := []string{"--id", "my-host1-api0", "--tags=api,www", "-m", "port=8000,host=localhost", "--interval", "20", "--abort-on-failure"}
			cmd, stdout, stderr := wrapped(t, reg.URL, append(flags, test.argv...)...)
			cmd.Stdin = strings.NewReader("from stdin\n")
			if got := exitOf(t, cmd.Run()); got != test.status {
				t.Errorf("status %d, want %d\n%s", got, test.status, stderr)
			}
			if stdout.String() != test.stdout || !strings.Contains(stderr.String(), test.stderr) || test.stderr == "" && stderr.String() != "" {
				t.Errorf("stdout %q, stderr %q", stdout, stderr)
			}
			if test.exit == "" {
				if len(reg.arrived) > 0 {
					t.Errorf("asked for %s", <-reg.arrived)
				}
				return
			}
			const service = "/v1.0/7777/services"
			want := []string{
				`POST /v2.0/tokens {"auth":{"RAX-KSKEY:apiKeyCredentials":{"username":"joe","apiKey":"dev"}}}`,
				`POST ` + service + ` {"id":"my-host1-api0","heartbeat_timeout":20,"tags":["api","www"],"metadata":{"host":"localhost","port":"8000"}}`,
				`PUT ` + service + `/my-host1-api0 {"metadata":{"exit_status":"` + test.exit + `","host":"localhost","port":"8000"}}`,
				`DELETE ` + service + `/my-host1-api0`,
			}
			if diff := cmp.Diff(want, reg.until(t, "DELETE")); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

// TestWrapForwardsSignals and removes the service only when the program has ended.
func TestWrapForwardsSignals(t *testing.T) {
	t.Parallel()
	for name, s := range map[string]syscall.Signal{
		"HUP": syscall.SIGHUP, "INT": syscall.SIGINT, "QUIT": syscall.SIGQUIT, "TERM": syscall.SIGTERM, "USR1": syscall.SIGUSR1, "USR2": syscall.SIGUSR2,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			reg := newRegistry(t, 0, 0)
			cmd, stdout, stderr := wrapped(t, reg.URL, "--id", "abc", "sh", "-c",
				`trap 'echo first; trap "echo second; exit 5" `+name+`' `+name+`; echo ready; while :; do sleep 0.02; done`)
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			reg.until(t, "POST /v1.0/7777/services")
			for _, line := range []string{"ready", "first"} {
				waitUntil(t, line, func() bool { return strings.Contains(stdout.String(), line) })
				if err := cmd.Process.Signal(s); err != nil {
					t.Fatal(err)
				}
			}
			if got := exitOf(t, cmd.Wait()); got != 5 {
				t.Errorf("status %d, want 5: %s", got, stderr)
			}
			if stdout.String() != "ready\nfirst\nsecond\n" {
				t.Errorf("the program said %q", stdout)
			}
			reg.until(t, "DELETE")
		})
	}
}

// TestWrapKilled: no program outlives its wrapper, and none is left as a zombie of it.
func TestWrapKilled(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, 0, 0)
	cmd, stdout, _ := wrapped(t, reg.URL, "--id", "abc", "--", "sh", "-c", `trap '' TERM HUP INT; echo $$; while :; do sleep 0.02; done`)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	waitUntil(t, "the program says its number", func() bool { return strings.HasSuffix(stdout.String(), "\n") })
	pid, err := strconv.Atoi(strings.TrimSpace(stdout.String()))
	if err != nil {
		t.Fatal(err)
	}
	if !alive(pid) {
		t.Fatal("the program is not running")
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // killed
	waitUntil(t, "the program has gone", func() bool { return !alive(pid) })
}

// alive reports whether a process runs. One that has ended and that nobody has waited
// for yet, whoever has taken it over, does not.
func alive(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return false
	}
	_, rest, _ := bytes.Cut(stat, []byte(") "))
	return !bytes.HasPrefix(rest, []byte("Z")) && !bytes.HasPrefix(rest, []byte("X"))
}

// TestWrapAborts: with --abort-on-failure no program runs unregistered.
func TestWrapAborts(t *testing.T) {
	t.Parallel()
	gone := httptest.NewServer(nil)
	gone.Close()
	full := newRegistry(t, 1, http.StatusBadRequest)
	for name, server := range map[string]string{"unreachable": gone.URL, "refused": full.URL} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cmd, stdout, stderr := wrapped(t, server, "--id", "abc", "--abort-on-failure", "echo", "ran")
			if got := exitOf(t, cmd.Run()); got != 100 || stdout.String() != "" || !strings.Contains(stderr.String(), "not registered, and echo is not started") {
				t.Errorf("status %d, stdout %q, stderr %q", got, stdout, stderr)
			}
		})
	}
}

// TestWrapInterruptedWhileRegistering: there is no program yet that a signal could go to.
func TestWrapInterruptedWhileRegistering(t *testing.T) {
	t.Parallel()
	asked, release := make(chan struct{}, 10), make(chan struct{})
	srv := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked <- struct{}{}; <-release }))
	t.Cleanup(srv.Close)
	t.Cleanup(func() { close(release) })
	cmd, stdout, stderr := wrapped(t, srv.URL, "--id", "abc", "--abort-on-failure", "echo", "ran")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	<-asked
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if got := exitOf(t, cmd.Wait()); got != 143 || stdout.String() != "" {
		t.Errorf("status %d, stdout %q, stderr %q", got, stdout, stderr)
	}
}

// TestWrapRunsUnregistered: the program starts whether the registry is there or not, and
// the registration is tried behind it.
func TestWrapRunsUnregistered(t *testing.T) {
	t.Parallel()
	t.Run("to its end", func(t *testing.T) {
		t.Parallel()
		gone := httptest.NewServer(nil)
		gone.Close()
		cmd, stdout, stderr := wrapped(t, gone.URL, "--id", "abc", "sh", "-c", "echo ran; exit 4")
		if got := exitOf(t, cmd.Run()); got != 4 || stdout.String() != "ran\n" {
			t.Errorf("status %d, stdout %q, stderr %q", got, stdout, stderr)
		}
	})
	t.Run("until it is registered", func(t *testing.T) {
		t.Parallel()
		reg := newRegistry(t, 3, http.StatusServiceUnavailable)
		cmd, _, stderr := wrapped(t, reg.URL, "--id", "abc", "cat")
		in, err := cmd.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		waitUntil(t, "it says that it is registered", func() bool { return strings.Contains(stderr.String(), "abc: registered") })
		if err := in.Close(); err != nil {
			t.Fatal(err)
		}
		if got := exitOf(t, cmd.Wait()); got != 0 {
			t.Errorf("status %d: %s", got, stderr)
		}
		if n := strings.Count(stderr.String(), "trying again"); n != 1 {
			t.Errorf("%d complaints:\n%s", n, stderr)
		}
		creations := 0
		for _, r := range reg.until(t, "DELETE") {
			if strings.HasPrefix(r, "POST /v1.0/7777/services {") {
				creations++
			}
		}
		if creations != 4 {
			t.Errorf("%d attempts to register", creations)
		}
	})
}

// TestWrapCommandLine: mistakes are told before anything is started.
func TestWrapCommandLine(t *testing.T) {
	t.Parallel()
	many := strings.Repeat("t,", 10) + "t"
	var pairs []string
	for i := range 21 {
		pairs = append(pairs, fmt.Sprint("k", i, "=v"))
	}
	for want, argv := range map[string][]string{
		"say what the program is registered as": {"true"},
		`--id: "ab" is not 3 to 65`:             {"--id", "ab", "true"},
		`--id: "a/bc" is not`:                   {"--id", "a/bc", "true"},
		"Usage: telford wrap --id ID":           {"--id", "abc"},
		"--interval: 2 is outside 3 to 120":     {"--id", "abc", "--interval", "2", "true"},
		"--interval: 121 is outside":            {"--id", "abc", "-i", "121", "true"},
		`invalid argument "soon"`:               {"--id", "abc", "-i", "soon", "true"},
		`--tags: "" is not 1 to 55`:             {"--id", "abc", "-t", "a,,b", "true"},
		"11 tags are more than 10":              {"--id", "abc", "-t", many, "true"},
		`--metadata: "port" is not KEY=VALUE`:   {"--id", "abc", "-m", "port", "true"},
		`key and value of "=x"`:                 {"--id", "abc", "-m", "=x", "true"},
		`"a" is given twice`:                    {"--id", "abc", "-m", "a=1", "-m", "a=2", "true"},
		"21 entries are more than 20":           {"--id", "abc", "-m", strings.Join(pairs, ","), "true"},
		"no key:":                               {"--id", "abc", "--server", "http://127.0.0.1:1", "true"},
		"neither a service key nor ID:SECRET":   {"--id", "abc", "--key", "hunter2", "true"},
		`--server: "here" is not an address`:    {"--id", "abc", "--key", "a:b", "--server", "here", "true"},
		"telford wrap does not take it":         {"--namespace", "blue", "--id", "abc", "true"},
		"unknown flag: --session-metadata":      {"--id", "abc", "--session-metadata", "a=b", "true"},
		"--ca: open /nonexistent: no such file": {"--id", "abc", "--key", "a:b", "--ca", "/nonexistent", "true"},
		"shorthand":                             {"-x", "--id", "abc", "true"},
	} {
		var out bytes.Buffer
		a := &app{
			stdin: strings.NewReader(""), stdout: &out, stderr: &out, environ: func() []string { return nil },
			getenv: func(name string) string {
				if name == "TELFORD_DATA" {
					return t.TempDir()
				}
				return ""
			},
		}
		status := a.run(t.Context(), append([]string{"wrap"}, argv...))
		if !strings.Contains(out.String(), want) || strings.Contains(out.String(), "hunter2") {
			t.Errorf("%q: said %q, want %q", argv, out.String(), want)
		}
		if status != exitUsage && !strings.HasPrefix(want, "--ca") {
			t.Errorf("%q: status %d", argv, status)
		}
	}
}

// TestWrapFindsTheRegistry by flag, variable and data directory, and in plain text where
// a bare address of loopback turns out to speak it.
func TestWrapFindsTheRegistry(t *testing.T) {
	t.Parallel()
	reg := newRegistry(t, 0, 0)
	addr := strings.TrimPrefix(reg.URL, "http://")
	published := t.TempDir()
	for name, text := range map[string]string{"http.url": reg.URL + "\n", "dev.key": "joe:dev\n"} {
		if err := os.WriteFile(filepath.Join(published, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	const elsewhere = "127.0.0.1:1"
	for name, test := range map[string]struct {
		env  map[string]string
		argv []string
	}{
		"flag":                  {map[string]string{"TELFORD_HTTP": elsewhere, "TELFORD_SERVER": "http://" + elsewhere}, []string{"--server", reg.URL}},
		"bare address":          {nil, []string{"--server", addr}},
		"TELFORD_HTTP":          {map[string]string{"TELFORD_HTTP": addr, "TELFORD_SERVER": "http://" + elsewhere}, nil},
		"TELFORD_SERVER":        {map[string]string{"TELFORD_SERVER": addr}, nil},
		"TELFORD_SERVER, a URL": {map[string]string{"TELFORD_SERVER": reg.URL}, nil},
		// The variable is where services in Go find the port of links.
		"data directory": {map[string]string{"TELFORD_SERVER": elsewhere, "TELFORD_DATA": published, "TELFORD_KEY": ""}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var out bytes.Buffer
			empty := t.TempDir()
			a := &app{
				stdin: strings.NewReader(""), stdout: &out, stderr: &out, environ: func() []string { return nil },
				getenv: func(name string) string {
					if v, ok := test.env[name]; ok {
						return v
					}
					return map[string]string{"TELFORD_DATA": empty, "TELFORD_KEY": "joe:dev"}[name]
				},
			}
			argv := append(append([]string{"wrap", "--id", "abc", "--abort-on-failure"}, test.argv...), "true")
			if status := a.run(context.Background(), argv); status != exitDone || out.Len() > 0 {
				t.Errorf("status %d: %s", status, out.String())
			}
		})
	}
}

// TestServiceKeyIsAPair: a service key of Telford is a user name and an API key.
func TestServiceKeyIsAPair(t *testing.T) {
	t.Parallel()
	if _, _, err := (&app{getenv: os.Getenv}).registryKey("tlf_short"); err == nil || !strings.Contains(err.Error(), "truncated") {
		t.Errorf("got %v", err)
	}
	if (&exitStatus{code: 3}).Error() != "status 3" {
		t.Error("an exit status does not say its number")
	}
}
