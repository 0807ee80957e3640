package measure

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"time"
)

const readyWord = "READY"

// Ready tells the parent that this child serves, with what the parent needs to know.
func Ready(info string) { fmt.Println(readyWord, info) }

// ParentGone returns a context that ends when the parent has closed this child's
// standard input: when it wants the child to end, and when it is gone.
func ParentGone(ctx context.Context) context.Context {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		_, _ = io.Copy(io.Discard, os.Stdin)
	}()
	return ctx
}

// Child is another process of this program, which serves until it is stopped.
type Child struct {
	// Info is what the child said when it was ready.
	Info  string
	cmd   *exec.Cmd
	stdin io.WriteCloser
	// done is closed when the child has ended, with err.
	done chan struct{}
	err  error
}

// Start runs this program with args and waits until it is ready, at most 30 s.
func Start(ctx context.Context, args ...string) (*Child, error) {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c := &Child{cmd: cmd, stdin: stdin, done: make(chan struct{})}
	ready := make(chan string, 1)
	go func() {
		for s := bufio.NewScanner(stdout); s.Scan(); {
			if info, ok := strings.CutPrefix(s.Text(), readyWord); ok {
				ready <- strings.TrimSpace(info)
			} else {
				fmt.Fprintln(os.Stderr, s.Text())
			}
		}
		c.err = cmd.Wait()
		close(c.done)
	}()
	limit := time.NewTimer(30 * time.Second)
	defer limit.Stop()
	select {
	case c.Info = <-ready:
		return c, nil
	case <-c.done:
		return nil, fmt.Errorf("%s ended before it was ready: %w", strings.Join(args, " "), errors.Join(c.err, io.ErrUnexpectedEOF))
	case <-limit.C:
		_ = cmd.Process.Kill()
		<-c.done
		return nil, fmt.Errorf("%s was not ready within 30 s", strings.Join(args, " "))
	}
}

// PID is the child's process id.
func (c *Child) PID() int { return c.cmd.Process.Pid }

// Stop ends the child, by force if it takes longer than 10 s.
func (c *Child) Stop() error {
	if c == nil {
		return nil
	}
	_ = c.stdin.Close()
	limit := time.NewTimer(10 * time.Second)
	defer limit.Stop()
	select {
	case <-c.done:
		return c.err
	case <-limit.C:
		_ = c.cmd.Process.Kill()
		<-c.done
		return fmt.Errorf("process %d did not end within 10 s and was killed", c.PID())
	}
}

// Output runs this program with args to its end and returns what it printed.
func Output(ctx context.Context, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Stderr = os.Stderr
	return cmd.Output()
}
