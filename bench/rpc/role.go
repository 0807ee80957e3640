package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"runtime/pprof"
	"strconv"
	"strings"
	"time"

	"telford.dev/telford/bench/internal/measure"
)

// roleFlag marks a child: the parent runs this program again with it.
const roleFlag = "-role"

// part is what a child is told.
type part struct {
	role, stack, profile string
	env                  env
	pids                 string
	warmup, measured     time.Duration
}

func (p part) args() []string {
	return []string{
		roleFlag, p.role, "-stack", p.stack, "-dir", p.env.Dir, "-target", p.env.Target, "-shared", p.env.Shared,
		"-size", strconv.Itoa(p.env.Size), "-callers", strconv.Itoa(p.env.Callers), "-pids", p.pids,
		"-warmup", p.warmup.String(), "-for", p.measured.String(), "-profile", p.profile,
	}
}

func parsePart(args []string) (part, error) {
	var p part
	if len(args) == 0 {
		return p, errors.New("no role given")
	}
	p.role = args[0]
	f := flag.NewFlagSet("role", flag.ContinueOnError)
	f.StringVar(&p.stack, "stack", "", "")
	f.StringVar(&p.env.Dir, "dir", "", "")
	f.StringVar(&p.env.Target, "target", "", "")
	f.StringVar(&p.env.Shared, "shared", "", "")
	f.IntVar(&p.env.Size, "size", 0, "")
	f.IntVar(&p.env.Callers, "callers", 0, "")
	f.StringVar(&p.pids, "pids", "", "")
	f.DurationVar(&p.warmup, "warmup", 0, "")
	f.DurationVar(&p.measured, "for", 0, "")
	f.StringVar(&p.profile, "profile", "", "")
	err := f.Parse(args[1:])
	p.env.Stack = p.stack
	return p, err
}

// play is a child's whole life.
func play(ctx context.Context, args []string) error {
	p, err := parsePart(args)
	if err != nil {
		return err
	}
	s, known := stacks()[p.stack]
	if !known && (p.role == "server" || p.role == "client") {
		return fmt.Errorf("unknown stack %q", p.stack)
	}
	if p.role != "client" {
		ctx = measure.ParentGone(ctx)
		stop, err := profile(p.profile)
		if err != nil {
			return err
		}
		defer stop()
	}
	switch p.role {
	case "server":
		err = s.serve(ctx, p.env)
	case "broker":
		err = runBroker(ctx)
	case "runtime":
		err = runRuntime(ctx, p.env)
	case "client":
		return call(ctx, s, p)
	default:
		return fmt.Errorf("unknown role %q", p.role)
	}
	if ctx.Err() != nil {
		return nil
	}
	return err
}

// call measures one case and prints its result as JSON.
func call(ctx context.Context, s stack, p part) error {
	loop := measure.Loop{Callers: p.env.Callers, Warmup: p.warmup, For: p.measured}
	for field := range strings.SplitSeq(p.pids, ",") {
		pid, err := strconv.Atoi(field)
		if err != nil {
			return fmt.Errorf("process id %q: %w", field, err)
		}
		loop.Servers = append(loop.Servers, pid)
	}
	stop := func() {}
	loop.Measuring = func(on bool) (err error) {
		if on {
			stop, err = profile(p.profile)
			return err
		}
		stop()
		return nil
	}
	c, err := s.dial(ctx, p.env)
	if err != nil {
		return fmt.Errorf("dial: %w", err)
	}
	defer c.close()
	result, err := loop.Run(ctx, c.caller)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(result)
}

// profile writes a CPU profile to path until it is stopped; without a path it does
// nothing.
func profile(path string) (stop func(), err error) {
	if path == "" {
		return func() {}, nil
	}
	f, err := os.Create(filepath.Clean(path))
	if err != nil {
		return nil, fmt.Errorf("profile: %w", err)
	}
	if err := pprof.StartCPUProfile(f); err != nil {
		return nil, errors.Join(fmt.Errorf("profile: %w", err), f.Close())
	}
	return func() {
		pprof.StopCPUProfile()
		_ = f.Close()
	}, nil
}
