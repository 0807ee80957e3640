package drive

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// ReadyWord begins the line by which a service of the shop says that it is ready, with
// its instance behind it. That of the runtime is its own.
const ReadyWord = "ready"

const (
	startTime = 30 * time.Second
	stopTime  = 15 * time.Second
)

// process is one child. Its log goes to a file.
type process struct {
	name string
	// ready is what stood behind the ready word.
	ready string
	cmd   *exec.Cmd
	log   string
	// done is closed after the process has ended, with the reason in err.
	done chan struct{}
	err  error
}

// spawn starts a program and waits until it says that it is ready.
func spawn(ctx context.Context, dir, name string, env []string, program string, args ...string) (*process, error) {
	p := &process{name: name, cmd: exec.Command(program, args...), log: filepath.Join(dir, name+".log"), done: make(chan struct{})}
	log, err := os.Create(p.log)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	p.cmd.Env = append(os.Environ(), env...)
	p.cmd.Stderr = log
	// An interrupt at the terminal is for the demo, which then stops its children in
	// order.
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdout, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("starting %s: %w", name, err)
	}
	ready := make(chan string, 1)
	go p.watch(stdout, ready)
	limit := time.NewTimer(startTime)
	defer limit.Stop()
	select {
	case p.ready = <-ready:
		return p, nil
	case <-p.done:
		return nil, fmt.Errorf("%s ended before it was ready: %w\n%s", name, errors.Join(p.err, io.ErrUnexpectedEOF), p.tail())
	case <-limit.C:
		err = fmt.Errorf("%s was not ready within %s\n%s", name, startTime, p.tail())
	case <-ctx.Done():
		err = ctx.Err()
	}
	p.kill()
	return nil, err
}

// watch reads what the process prints until it has ended.
func (p *process) watch(stdout io.Reader, ready chan<- string) {
	defer close(p.done)
	for s := bufio.NewScanner(stdout); s.Scan(); {
		if rest, ok := strings.CutPrefix(s.Text(), ReadyWord); ok {
			select {
			case ready <- strings.TrimSpace(rest):
			default:
			}
		}
	}
	p.err = p.cmd.Wait()
}

// tail is the end of the log, for messages.
func (p *process) tail() string {
	const most = 2000
	body, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	if len(body) > most {
		body = body[len(body)-most:]
	}
	return string(body)
}

// kill ends the process as a crash would.
func (p *process) kill() {
	_ = p.cmd.Process.Kill()
	<-p.done
}

// stop asks the process to drain and end.
func (p *process) stop() error {
	select {
	case <-p.done:
		return nil
	default:
	}
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	limit := time.NewTimer(stopTime)
	defer limit.Stop()
	select {
	case <-p.done:
	case <-limit.C:
		p.kill()
		return fmt.Errorf("%s did not end within %s and was killed\n%s", p.name, stopTime, p.tail())
	}
	if p.err != nil {
		return fmt.Errorf("%s ended badly: %w\n%s", p.name, p.err, p.tail())
	}
	return nil
}
