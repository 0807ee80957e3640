package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"telford.dev/telford/registry/rest"
)

const (
	// exitUnregistered is the status of a registration that failed under
	// --abort-on-failure.
	exitUnregistered = 100
	// exitSignaled and the number of a signal is the status of a program that it ended.
	exitSignaled = 128
	// goodbye bounds the removal of the service after its program has ended.
	goodbye = 5 * time.Second
	// exitKey is the metadata that says how a program ended.
	exitKey = "exit_status"
)

// exitStatus ends a command line with a status of its own. Its error, if any, is shown.
type exitStatus struct {
	code int
	err  error
}

func (e *exitStatus) Error() string {
	if e.err == nil {
		return "status " + strconv.Itoa(e.code)
	}
	return e.err.Error()
}

func (e *exitStatus) Unwrap() error { return e.err }

// wrapper runs one program and keeps it registered.
type wrapper struct {
	app      *app
	registry *rest.Client
	service  rest.Service
	abort    bool

	mu     sync.Mutex
	failed bool // a failure was told, and no success since
}

// forwarded are the signals that a program gets from its wrapper.
func forwarded() []os.Signal {
	return []os.Signal{
		syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2, syscall.SIGWINCH,
	}
}

// run registers, runs the program to its end, and removes the service.
func (w *wrapper) run(ctx context.Context, path string, argv []string) error {
	signals := make(chan os.Signal, 32)
	signal.Notify(signals, forwarded()...)
	defer signal.Stop(signals)

	opts := rest.HeartbeaterOptions{OnRegistered: w.registered, OnLost: w.lost, OnError: w.trouble}
	if w.abort {
		token, err := w.registry.CreateService(ctx, w.service)
		if err != nil {
			if ctx.Err() != nil {
				return interrupted(signals)
			}
			return &exitStatus{exitUnregistered, fmt.Errorf("not registered, and %s is not started: %w", argv[0], err)}
		}
		opts.Token = token
	}
	// A signal is the program's to handle; until it has ended the service is alive.
	ctx = context.WithoutCancel(ctx)
	h, err := w.registry.NewHeartbeater(w.service, opts)
	if err != nil {
		return err
	}
	p, err := w.start(path, argv)
	if err != nil {
		w.leave(ctx, h, "")
		return notRunnable(argv[0], err)
	}
	if err := h.Start(ctx); err != nil {
		return err
	}
	state, err := p.wait(signals)
	if err != nil {
		w.leave(ctx, h, "unknown")
		return err
	}
	code, text := status(state)
	w.leave(ctx, h, text)
	if code == exitDone {
		return nil
	}
	return &exitStatus{code: code}
}

// interrupted is the end by a signal before there was a program to give it to.
func interrupted(signals <-chan os.Signal) error {
	select {
	case s := <-signals:
		if number, ok := s.(syscall.Signal); ok {
			return &exitStatus{code: exitSignaled + int(number)}
		}
	default:
	}
	return &exitStatus{code: exitFailed, err: context.Canceled}
}

// status is how a program ended, as a number for the shell and as text for the feed.
func status(state syscall.WaitStatus) (int, string) {
	if state.Signaled() {
		code := exitSignaled + int(state.Signal())
		return code, fmt.Sprintf("%d (%s)", code, state.Signal())
	}
	return state.ExitStatus(), strconv.Itoa(state.ExitStatus())
}

// leave removes the service, with how its program ended in its metadata, which the event
// of the removal shows.
func (w *wrapper) leave(ctx context.Context, h *rest.Heartbeater, how string) {
	ctx, cancel := context.WithTimeout(ctx, goodbye)
	defer cancel()
	if _, taken := w.service.Metadata[exitKey]; h.Registered() && how != "" && !taken && len(w.service.Metadata) < rest.MaxMetadata {
		metadata := maps.Clone(w.service.Metadata)
		metadata[exitKey] = how
		if err := h.Update(ctx, rest.ServiceUpdate{Metadata: metadata}); err != nil && !errors.Is(err, rest.ErrNotFound) {
			w.say("could not note the exit status: %v", err)
		}
	}
	if err := h.Stop(ctx); err != nil {
		w.say("could not remove the service, it lapses in %s: %v", w.service.HeartbeatTimeout, err)
	}
}

func (w *wrapper) registered() {
	w.mu.Lock()
	failed := w.failed
	w.failed = false
	w.mu.Unlock()
	if failed {
		w.say("registered")
	}
}

func (w *wrapper) lost(err error) {
	w.mu.Lock()
	w.failed = true
	w.mu.Unlock()
	w.say("the registry does not know the service any more, registering again: %v", err)
}

// trouble tells the first of a row of failures.
func (w *wrapper) trouble(err error) {
	w.mu.Lock()
	told := w.failed
	w.failed = true
	w.mu.Unlock()
	if !told {
		w.say("trying again: %v", err)
	}
}

func (w *wrapper) say(format string, args ...any) {
	fmt.Fprintf(w.app.stderr, "telford wrap: %s: %s\n", w.service.ID, fmt.Sprintf(format, args...))
}

// program is a process that was started.
type program struct {
	cmd   *exec.Cmd
	ended chan error
}

// start runs a program with the wrapper's own input and outputs. It is bound to the
// thread that starts it: when that ends, so does the program. So the thread is kept.
func (w *wrapper) start(path string, argv []string) (*program, error) {
	cmd := &exec.Cmd{Path: path, Args: argv, Stdin: w.app.stdin, Stdout: w.app.stdout, Stderr: w.app.stderr, SysProcAttr: tied()}
	p := &program{cmd: cmd, ended: make(chan error, 1)}
	started := make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := cmd.Start()
		started <- err
		if err == nil {
			p.ended <- cmd.Wait()
		}
	}()
	return p, <-started
}

// wait hands signals on until the program has ended.
func (p *program) wait(signals <-chan os.Signal) (syscall.WaitStatus, error) {
	for {
		select {
		case s := <-signals:
			if !fromTerminal(s) {
				_ = p.cmd.Process.Signal(s) // it may have just ended
			}
		case err := <-p.ended:
			if p.cmd.ProcessState == nil {
				return 0, fmt.Errorf("wait for the program: %w", err)
			}
			state, ok := p.cmd.ProcessState.Sys().(syscall.WaitStatus)
			if !ok {
				return 0, fmt.Errorf("wait for the program: it ended with %v", p.cmd.ProcessState)
			}
			return state, nil
		}
	}
}

// fromTerminal reports whether the program has got a signal already: a terminal sends
// those of its keys and of its size to every process in the foreground.
func fromTerminal(s os.Signal) bool {
	switch s {
	case syscall.SIGINT, syscall.SIGQUIT, syscall.SIGWINCH:
		return inForeground()
	default:
		return false
	}
}

// inForeground reports whether the process has a terminal and is in its foreground.
func inForeground() bool {
	group, err := unix.IoctlGetInt(int(os.Stdin.Fd()), unix.TIOCGPGRP)
	return err == nil && group == unix.Getpgrp()
}
