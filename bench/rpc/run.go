package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"time"

	"telford.dev/telford/bench/internal/measure"
)

// run measures everything asked for and reports it.
func run(ctx context.Context, args []string, w io.Writer) (err error) {
	o, err := parse(args, os.Stderr)
	if errors.Is(err, flag.ErrHelp) {
		return nil
	}
	if err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "telford-bench-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	if o.pairs == 0 {
		if err := makePKI(dir); err != nil {
			return fmt.Errorf("certificates for the peers: %w", err)
		}
	}
	if waited, quiet := measure.Quiet(o.quiet); !quiet {
		fmt.Fprintf(w, "note: other programs were still busy after %s; the figures hold less\n", waited.Round(time.Second))
	}
	if o.pairs > 0 {
		return runPairs(ctx, o, dir, w)
	}
	b := &bench{options: o, dir: dir, w: w, results: map[cell][]measure.Result{}}
	legend(w, o)
	err = b.measureAll(ctx)
	err = errors.Join(err, b.stopAll())
	if ctx.Err() != nil {
		return ctx.Err()
	}
	return errors.Join(err, b.report())
}

func legend(w io.Writer, o options) {
	fmt.Fprintf(w, "%d cores, %s; %d rounds, every stack once in each, %s a cell; the median counts\n",
		runtime.NumCPU(), runtime.Version(), o.rounds, o.cell)
	all := stacks()
	for _, name := range o.stacks {
		fmt.Fprintf(w, "  %-16s %s\n", name, all[name].about)
	}
}

// cell is one thing measured, in each round once.
type cell struct {
	stack         string
	callers, size int
}

func (c cell) String() string { return fmt.Sprintf("%s-%d-%d", c.stack, c.callers, c.size) }

// server is a child that serves a stack, with the process it shares.
type server struct {
	child, shared *measure.Child
}

func (s server) pids() string {
	pids := strconv.Itoa(s.child.PID())
	if s.shared != nil {
		pids += "," + strconv.Itoa(s.shared.PID())
	}
	return pids
}

type bench struct {
	options
	dir     string
	w       io.Writer
	shared  map[string]*measure.Child
	servers map[string]server
	results map[cell][]measure.Result
}

// measureAll goes round by round, so that a slow minute of the machine falls on every
// stack alike. A cell that fails is reported and left out.
func (b *bench) measureAll(ctx context.Context) error {
	b.shared, b.servers = map[string]*measure.Child{}, map[string]server{}
	var failures []error
	for _, size := range b.sizes {
		for _, callers := range b.callers {
			for round := range b.rounds {
				for _, name := range b.stacks {
					c := cell{name, callers, size}
					r, err := b.measure(ctx, c)
					if ctx.Err() != nil {
						return ctx.Err()
					}
					if err != nil {
						failures = append(failures, fmt.Errorf("%s: %w", c, err))
						fmt.Fprintf(b.w, "%-26s round %d  FAILED: %v\n", c, round+1, err)
						continue
					}
					b.results[c] = append(b.results[c], r)
					fmt.Fprintf(b.w, "%-26s round %d  %9.0f/s  p50 %8.1f  p99 %8.1f  CPU %6.2f + %6.2f µs  foreign %.2f\n",
						c, round+1, r.PerSecond, r.P50, r.P99, r.ClientCPU, r.ServerCPU, r.Foreign)
				}
			}
		}
	}
	return errors.Join(failures...)
}

func (b *bench) measure(ctx context.Context, c cell) (measure.Result, error) {
	var r measure.Result
	if b.profile != "" {
		// A profile of a server spans its life: one cell a server.
		if err := b.stopAll(); err != nil {
			return r, err
		}
	}
	s, err := b.server(ctx, c)
	if err != nil {
		return r, err
	}
	p := b.part(c, "client")
	p.env.Target, p.pids = s.child.Info, s.pids()
	if s.shared != nil {
		p.env.Shared = s.shared.Info
	}
	ctx, cancel := context.WithTimeout(ctx, b.warmup+b.cell+30*time.Second)
	defer cancel()
	out, err := measure.Output(ctx, p.args()...)
	if err != nil {
		return r, fmt.Errorf("client: %w", errors.Join(err, ctx.Err()))
	}
	if err := json.Unmarshal(out, &r); err != nil {
		return r, fmt.Errorf("client printed %q: %w", out, err)
	}
	return r, nil
}

// server starts what serves a stack, or returns what runs.
func (b *bench) server(ctx context.Context, c cell) (server, error) {
	if s, ok := b.servers[c.stack]; ok {
		return s, nil
	}
	var s server
	p := b.part(c, "server")
	if role := stacks()[c.stack].shared; role != "" {
		if b.shared[role] == nil {
			child, err := measure.Start(ctx, b.part(c, role).args()...)
			if err != nil {
				return s, err
			}
			b.shared[role] = child
		}
		s.shared = b.shared[role]
		p.env.Shared = s.shared.Info
	}
	var err error
	if s.child, err = measure.Start(ctx, p.args()...); err != nil {
		return s, err
	}
	b.servers[c.stack] = s
	return s, nil
}

func (b *bench) part(c cell, role string) part {
	p := part{
		role: role, stack: c.stack, env: env{Stack: c.stack, Dir: b.dir, Size: c.size, Callers: c.callers},
		warmup: b.warmup, measured: b.cell,
	}
	if b.profile != "" {
		p.profile = filepath.Join(b.profile, c.String()+"-"+role+".pprof")
	}
	return p
}

// stopAll ends the servers first, then what they share.
func (b *bench) stopAll() error {
	var errs []error
	for name, s := range b.servers {
		if err := s.child.Stop(); err != nil {
			errs = append(errs, fmt.Errorf("server of %s: %w", name, err))
		}
	}
	for name, child := range b.shared {
		if err := child.Stop(); err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", name, err))
		}
	}
	clear(b.servers)
	clear(b.shared)
	return errors.Join(errs...)
}

func (b *bench) report() error {
	rows := compare(b.stacks, b.callers, b.sizes, b.results)
	fmt.Fprintln(b.w, "\nTelford : peer, medians; a ratio above 1 says that Telford is better")
	if err := measure.Table(b.w, rows); err != nil {
		return err
	}
	if b.profile != "" {
		fmt.Fprintln(b.w, "profiles:", strings.TrimSuffix(b.profile, "/")+"/*.pprof")
	}
	if b.json == "" {
		return nil
	}
	return measure.WriteJSON(b.json, rows)
}
