package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"zombiezen.com/go/sqlite"
	"zombiezen.com/go/sqlite/sqlitex"

	"telford.dev/telford/server/internal/store/storetest"
)

// process is `telford serve` as a process of its own.
type process struct {
	cmd    *exec.Cmd
	ready  map[string]string // the doors of the ready line
	stderr *lockedBuffer
	lines  chan string // further lines of stdout
	exited chan struct{}
}

type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// serve starts `telford serve` and waits for its ready line.
func serve(t *testing.T, env []string, args ...string) *process {
	t.Helper()
	p := &process{stderr: &lockedBuffer{}, lines: make(chan string, 100), exited: make(chan struct{})}
	p.cmd = exec.CommandContext(t.Context(), "telford", append([]string{"serve", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"}, args...)...)
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = p.stderr
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		defer close(p.exited)
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
		close(p.lines)
		_ = p.cmd.Wait() // its state is looked at
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill() // it has gone mostly
		<-p.exited
	})
	line, ok := receive(t, p.lines)
	if !ok {
		t.Fatalf("no ready line\n%s", p.stderr)
	}
	doors := strings.Fields(line)
	if doors[0] != "ready" {
		t.Fatalf("the first line is %q", line)
	}
	p.ready = make(map[string]string)
	for _, d := range doors[1:] {
		name, addr, _ := strings.Cut(d, "=")
		p.ready[name] = addr
	}
	return p
}

func receive[T any](t *testing.T, c <-chan T) (v T, ok bool) {
	t.Helper()
	select {
	case v, ok = <-c:
		return v, ok
	case <-time.After(patience):
		t.Fatal("timed out")
		return v, false
	}
}

// terminate sends SIGTERM, and status waits for the end.
func (p *process) terminate(t *testing.T) {
	t.Helper()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
}

func (p *process) status(t *testing.T) int {
	t.Helper()
	receive(t, p.exited)
	return p.cmd.ProcessState.ExitCode()
}

func TestServe(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, env []string) {
		dir := t.TempDir()
		p := serve(t, env, "--dev", "--data", dir, "--ipc", "off", "--bus", "off")
		if len(p.ready) != 2 || !strings.HasPrefix(p.ready["grpc"], "127.0.0.1:") || strings.HasSuffix(p.ready["http"], ":0") {
			t.Errorf("doors %v", p.ready)
		}
		for _, name := range []string{"admin.token", "dev.key"} {
			info, err := os.Stat(filepath.Join(dir, name))
			if err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v %v", name, info, err)
			}
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+p.ready["http"]+"/readyz", http.NoBody)
		if err != nil {
			t.Fatal(err)
		}
		req.Close = true
		resp, err := http.DefaultClient.Do(req)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("/readyz: %v %v", resp, err)
		}
		_ = resp.Body.Close()
		if !strings.Contains(p.stderr.String(), "telford --dev") {
			t.Errorf("no banner:\n%s", p.stderr)
		}
		p.terminate(t)
		if code := p.status(t); code != 0 {
			t.Errorf("status %d after SIGTERM\n%s", code, p.stderr)
		}
		for line := range p.lines {
			t.Errorf("a further line on stdout: %q", line)
		}
		token, _ := os.ReadFile(filepath.Join(dir, "admin.token"))
		key, _ := os.ReadFile(filepath.Join(dir, "dev.key"))
		for _, secret := range [][]byte{token, key} {
			if len(secret) == 0 || strings.Contains(p.stderr.String(), string(bytes.TrimSpace(secret))) {
				t.Error("a secret is missing, or in the log")
			}
		}
	})
}

// onBoth runs a test on SQLite and on PostgreSQL; env says so to the process.
func onBoth(t *testing.T, f func(t *testing.T, env []string)) {
	t.Helper()
	t.Run("sqlite", func(t *testing.T) {
		t.Parallel()
		f(t, nil)
	})
	t.Run("postgres", func(t *testing.T) {
		t.Parallel()
		f(t, []string{"TELFORD_SERVE_DATABASE=" + storetest.Postgres(t), "TELFORD_CLUSTER_SECRET=0123456789abcdef0123"})
	})
}

func TestServeAgainKeepsTheCluster(t *testing.T) {
	t.Parallel()
	onBoth(t, func(t *testing.T, env []string) {
		dir := t.TempDir()
		var roots, token []byte
		for range 2 {
			p := serve(t, env, "--data", dir, "--http-plain")
			ca, err := os.ReadFile(filepath.Join(dir, "ca.crt"))
			if err != nil {
				t.Fatal(err)
			}
			admin, err := os.ReadFile(filepath.Join(dir, "admin.token"))
			if err != nil {
				t.Fatal(err)
			}
			if roots != nil && (!bytes.Equal(ca, roots) || !bytes.Equal(admin, token)) {
				t.Error("the root or the operator's token has changed")
			}
			roots, token = ca, admin
			p.terminate(t)
			if code := p.status(t); code != 0 {
				t.Fatalf("status %d\n%s", code, p.stderr)
			}
		}
	})
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	p := serve(t, nil, "--dev", "--data", dir, "--drain-timeout", "5m")
	token, err := os.ReadFile(filepath.Join(dir, "admin.token"))
	if err != nil {
		t.Fatal(err)
	}
	// A request whose body does not come keeps the drain waiting.
	nc, err := net.Dial("tcp", p.ready["http"])
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	fmt.Fprintf(nc, "POST /call/payments/charge HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer %s\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n", bytes.TrimSpace(token))
	if line, err := bufio.NewReader(nc).ReadString('\n'); err != nil || !strings.Contains(line, "100") {
		t.Fatalf("the request did not begin: %q %v", line, err)
	}
	p.terminate(t)
	waitFor(t, p.stderr, "draining")
	select {
	case <-p.exited:
		t.Fatalf("the first signal did not wait:\n%s", p.stderr)
	case <-time.After(200 * time.Millisecond): // long beside an idle stop
	}
	p.terminate(t)
	if code := p.status(t); code != 1 || !strings.Contains(p.stderr.String(), "second signal") {
		t.Errorf("status %d after the second signal\n%s", code, p.stderr)
	}
}

func waitFor(t *testing.T, b *lockedBuffer, text string) {
	t.Helper()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(patience); !strings.Contains(b.String(), text); <-tick.C {
		if time.Now().After(end) {
			t.Fatalf("%q did not come:\n%s", text, b)
		}
	}
}

func TestJSONLog(t *testing.T) {
	t.Parallel()
	p := serve(t, []string{"TELFORD_SERVE_LOG_FORMAT=json", "TELFORD_SERVE_LOG_LEVEL=debug"}, "--data", t.TempDir(), "--http-plain=proxy")
	p.terminate(t)
	if code := p.status(t); code != 0 {
		t.Errorf("status %d", code)
	}
	object := regexp.MustCompile(`^\{"time":".+","level":"[A-Z]+","msg":".+\}$`)
	for line := range strings.Lines(p.stderr.String()) {
		if !object.MatchString(strings.TrimSpace(line)) {
			t.Errorf("not a record: %s", line)
		}
	}
}

// fails runs `telford serve` to its failure and returns status and standard error.
func fails(t *testing.T, args ...string) (int, string) {
	t.Helper()
	var stderr, stdout bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "telford", append([]string{"serve", "--grpc", "127.0.0.1:0", "--http", "127.0.0.1:0"}, args...)...)
	cmd.Stderr, cmd.Stdout = &stderr, &stdout
	cmd.Env = append(os.Environ(), "TELFORD_CLUSTER_SECRET=0123456789abcdef0123")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	end := time.AfterFunc(patience, func() { _ = cmd.Process.Kill() })
	defer end.Stop()
	_ = cmd.Wait() // its state is looked at
	if stdout.Len() > 0 {
		t.Errorf("telford serve %v wrote to stdout: %s", args, stdout.String())
	}
	return cmd.ProcessState.ExitCode(), stderr.String()
}

func TestServeOnWhatItCannotUse(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	readOnly := filepath.Join(t.TempDir(), "ro")
	if err := os.Mkdir(readOnly, 0o500); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		readOnly = "/proc/self/telford" // root may write everywhere but here
	}
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"a file as directory":   {[]string{"--data", file}, file},
		"a read-only directory": {[]string{"--data", readOnly}, readOnly},
		"no database server":    {[]string{"--data", t.TempDir(), "--database", "postgres://u:sesame@127.0.0.1:1/d"}, "127.0.0.1"},
		"a newer schema":        {[]string{"--data", newerSchema(t)}, "newer"},
		"a damaged database":    {[]string{"--data", damaged(t)}, "telford.db"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			status, stderr := fails(t, append(c.args, "--http-plain")...)
			if status != 1 || !strings.Contains(stderr, c.says) {
				t.Errorf("status %d: %s", status, stderr)
			}
			if strings.Contains(stderr, "sesame") {
				t.Error("the password is told")
			}
		})
	}
}

// newerSchema is a data directory that a newer version has used.
func newerSchema(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	p := serve(t, nil, "--dev", "--data", dir)
	p.terminate(t)
	if code := p.status(t); code != 0 {
		t.Fatalf("status %d", code)
	}
	c, err := sqlite.OpenConn(filepath.Join(dir, "telford.db"), sqlite.OpenReadWrite)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if err := sqlitex.ExecuteTransient(c, "INSERT INTO schema_migrations (version, name, applied_at) VALUES (9999, 'from_the_future', 0)", nil); err != nil {
		t.Fatal(err)
	}
	return dir
}

func damaged(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	f, err := os.Create(filepath.Join(dir, "telford.db"))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(f, strings.Repeat("this is no database ", 1000)); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}
