package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"
)

type options struct {
	stacks  []string
	callers []int
	sizes   []int
	rounds  int
	pairs   int      // of features on and off; 0: stacks are measured
	only    []string // features
	warmup  time.Duration
	cell    time.Duration
	json    string
	profile string
	quiet   time.Duration
}

// errUsage says that the command line was wrong; its message has been printed.
var errUsage = errors.New("wrong usage")

// exitStatus is 2 for wrong usage, else 1.
func exitStatus(err error) int {
	if errors.Is(err, errUsage) {
		return 2
	}
	return 1
}

func parse(args []string, w io.Writer) (options, error) {
	var o options
	var short bool
	var names, callers, sizes, only string
	f := flag.NewFlagSet("rpc", flag.ContinueOnError)
	f.SetOutput(w)
	f.BoolVar(&short, "short", false, "1 and 64 callers, 128 B, shorter cells: under 240 s in all")
	f.StringVar(&names, "stacks", strings.Join(stackNames(), ","), "stacks to measure")
	f.StringVar(&callers, "callers", "1,16,64", "numbers of callers")
	f.StringVar(&sizes, "sizes", "128,16384", "payloads in bytes")
	f.IntVar(&o.rounds, "rounds", 3, "rounds; each measures every stack once, and the median counts")
	f.IntVar(&o.pairs, "pairs", 0, "measure what policy, limits, resilience and contracts cost instead: this many pairs of on and off in one process, such as 10")
	f.StringVar(&only, "features", strings.Join(featureNames(), ","), "with -pairs: the features to measure")
	f.DurationVar(&o.cell, "for", 5*time.Second, "how long one cell is measured")
	f.DurationVar(&o.warmup, "warmup", time.Second, "how long one cell warms up")
	f.StringVar(&o.json, "json", "", "write the comparisons to this `file`")
	f.StringVar(&o.profile, "profile", "", "write CPU profiles of every process to this `directory`; one round")
	f.DurationVar(&o.quiet, "quiet", 20*time.Second, "longest wait, in all, for other programs to be quiet")
	if err := f.Parse(args); errors.Is(err, flag.ErrHelp) {
		return o, err
	} else if err != nil {
		return o, fmt.Errorf("%w: %w", errUsage, err)
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("%w: unexpected argument %q", errUsage, f.Arg(0))
	}
	set := map[string]bool{}
	f.Visit(func(g *flag.Flag) { set[g.Name] = true })
	if o.pairs > 0 {
		pair(&o, &callers, &sizes, set, short)
	}
	if short {
		shorten(&o, &callers, &sizes, set)
	}
	if o.profile != "" {
		o.rounds = 1
		if err := os.MkdirAll(o.profile, 0o755); err != nil { //nolint:gosec // profiles are for everybody to read
			return o, err
		}
	}
	var errs []error
	o.callers, errs = numbers("-callers", callers, 1, 4096, errs)
	o.sizes, errs = numbers("-sizes", sizes, 1, 1<<20, errs)
	for name := range strings.SplitSeq(names, ",") {
		if !slices.Contains(stackNames(), name) {
			errs = append(errs, fmt.Errorf("-stacks: there is no %q; there are %s", name, strings.Join(stackNames(), ", ")))
		}
		o.stacks = append(o.stacks, name)
	}
	for name := range strings.SplitSeq(only, ",") {
		if !slices.Contains(featureNames(), name) {
			errs = append(errs, fmt.Errorf("-features: there is no %q; there are %s", name, strings.Join(featureNames(), ", ")))
		}
		o.only = append(o.only, name)
	}
	if set["features"] && o.pairs == 0 {
		errs = append(errs, errors.New("-features is for -pairs"))
	}
	if set["pairs"] && (o.pairs < 2 || o.pairs > 1000) {
		errs = append(errs, fmt.Errorf("-pairs: %d is not from 2 to 1000", o.pairs))
	}
	if o.pairs > 0 && (set["stacks"] || set["rounds"] || set["profile"]) {
		errs = append(errs, errors.New("-stacks, -rounds and -profile are for the measurement of stacks, and -pairs is another"))
	}
	if o.rounds < 1 || o.cell <= 0 || o.warmup < 0 {
		errs = append(errs, errors.New("-rounds, -for and -warmup have to be positive"))
	}
	if len(errs) > 0 {
		return o, fmt.Errorf("%w: %w", errUsage, errors.Join(errs...))
	}
	return o, nil
}

// pair sets what -pairs means where nothing else was asked for: many short cells.
func pair(o *options, callers, sizes *string, set map[string]bool, short bool) {
	if !set["callers"] {
		*callers = "64"
	}
	if !set["sizes"] {
		*sizes = "128"
	}
	if !set["for"] {
		if o.cell = time.Second; short {
			o.cell /= 2
		}
		set["for"] = true
	}
	if !set["warmup"] {
		o.warmup = 200 * time.Millisecond
		set["warmup"] = true
	}
	set["callers"], set["sizes"] = true, true
}

// shorten sets what -short means where nothing else was asked for.
func shorten(o *options, callers, sizes *string, set map[string]bool) {
	if !set["callers"] {
		*callers = "1,64"
	}
	if !set["sizes"] {
		*sizes = "128"
	}
	if !set["for"] {
		o.cell = 2500 * time.Millisecond
	}
	if !set["warmup"] {
		o.warmup = 500 * time.Millisecond
	}
}

func numbers(name, list string, least, most int, errs []error) ([]int, []error) {
	var out []int
	for field := range strings.SplitSeq(list, ",") {
		n, err := strconv.Atoi(strings.TrimSpace(field))
		if err != nil || n < least || n > most {
			errs = append(errs, fmt.Errorf("%s: %q is not a number from %d to %d", name, field, least, most))
			continue
		}
		out = append(out, n)
	}
	return out, errs
}
