package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"
	"time"
)

// outside are the modules that are no part of go.work.
var outside = []string{"bench", "tools", "tools/buf"}

// goCommand is one run of go in a module. Interrupted, it gets the chance to end its
// own children before it is killed.
func goCommand(ctx context.Context, o options, module string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = filepath.Join(o.root, module)
	work := filepath.Join(o.root, "go.work")
	if slices.Contains(outside, module) {
		work = "off"
	}
	cmd.Env = append(os.Environ(), "GOWORK="+work, "PWD="+cmd.Dir)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGINT) }
	cmd.WaitDelay = 20 * time.Second
	return cmd
}

func runModule(ctx context.Context, o options, module string, t *tally) error {
	if _, err := os.Stat(filepath.Join(o.root, module, "go.mod")); err != nil {
		return fmt.Errorf("no module there: %w", err)
	}
	args := []string{"test", "-json", "-race", "-shuffle=on", "-timeout", o.timeout.String()}
	if o.parallel > 0 {
		args = append(args, "-p", strconv.Itoa(o.parallel))
	}
	if o.run != "" {
		args = append(args, "-run", o.run)
	}
	cmd := goCommand(ctx, o, module, append(args, "./...")...)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	before := t.failed
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := t.read(out, os.Stdout); err != nil {
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
		return fmt.Errorf("reading the events of go test: %w", err)
	}
	if err := cmd.Wait(); err != nil && t.failed == before {
		return fmt.Errorf("go test: %w", err)
	}
	return nil
}
