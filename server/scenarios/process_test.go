package scenarios

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a process may take to become ready or to end.
const patience = 30 * time.Second

// process is a process that a test has started.
type process struct {
	name  string
	cmd   *exec.Cmd
	log   *buffer
	stdin io.Closer
	// ready is its first line.
	ready  string
	exited chan struct{}
}

// buffer is a bytes.Buffer for several goroutines.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write implements io.Writer.
func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// tail is the end of what was written.
func (b *buffer) tail() string {
	lines := strings.Split(strings.TrimSpace(b.String()), "\n")
	return strings.Join(lines[max(0, len(lines)-15):], "\n")
}

// start starts a process and waits for its first line.
func start(t testing.TB, name string, cmd *exec.Cmd) *process {
	t.Helper()
	p := &process{name: name, cmd: cmd, log: &buffer{}, exited: make(chan struct{})}
	cmd.Stderr = p.log
	in, err := cmd.StdinPipe()
	must(t, err)
	p.stdin = in
	out, err := cmd.StdoutPipe()
	must(t, err)
	must(t, cmd.Start())
	first := make(chan string, 1)
	go func() {
		defer close(p.exited)
		s := bufio.NewScanner(out)
		for n := 0; s.Scan(); n++ {
			if n == 0 {
				first <- s.Text()
			}
		}
		close(first)
		_ = p.cmd.Wait() // its state is looked at
	}()
	t.Cleanup(func() {
		p.kill(t)
		_ = in.Close() // it ended with the process
		if strings.Contains(p.log.String(), "DATA RACE") || strings.Contains(p.log.String(), "panic: ") {
			t.Errorf("%s:\n%s", name, p.log)
		}
		if t.Failed() && os.Getenv("TELFORD_TEST_LOG") != "" {
			t.Logf("%s:\n%s", name, p.log)
		}
	})
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case line, ok := <-first:
		if !ok {
			<-p.exited
			t.Fatalf("%s ended with status %d before it was ready:\n%s", name, cmd.ProcessState.ExitCode(), p.log.tail())
		}
		p.ready = line
	case <-limit.C:
		t.Fatalf("%s is not ready after %v:\n%s", name, patience, p.log.tail())
	}
	return p
}

// kill ends the process with SIGKILL and returns when it is gone.
func (p *process) kill(t testing.TB) {
	t.Helper()
	_ = p.cmd.Process.Kill() // it may have ended
	p.gone(t)
}

// stop ends the process with SIGTERM; it must end well.
func (p *process) stop(t testing.TB) {
	t.Helper()
	must(t, p.cmd.Process.Signal(syscall.SIGTERM))
	p.gone(t)
	if code := p.cmd.ProcessState.ExitCode(); code != 0 {
		t.Errorf("%s ended with status %d after SIGTERM:\n%s", p.name, code, p.log.tail())
	}
}

func (p *process) gone(t testing.TB) {
	t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	select {
	case <-p.exited:
	case <-limit.C:
		t.Fatalf("%s has not ended after %v:\n%s", p.name, patience, p.log.tail())
	}
}
