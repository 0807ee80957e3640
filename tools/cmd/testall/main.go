// Command testall runs every test of every module of the repository under the race
// detector, then each fuzz target for a moment, and says how much ran: in all, and on
// PostgreSQL. It owns the child processes that it starts, one at a time, and ends with
// them; the last line it prints is the count of what passed and failed.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
)

type options struct {
	root     string
	modules  []string
	timeout  time.Duration
	fuzztime time.Duration
	run      string
	parallel int
	fuzzOnly bool
}

func main() {
	var o options
	var modules string
	flag.StringVar(&o.root, "root", ".", "the repository")
	flag.StringVar(&modules, "modules", ".,server,examples,bench,tools", "modules to test, each a directory below root")
	flag.DurationVar(&o.timeout, "timeout", 12*time.Minute, "limit for one package's tests")
	flag.DurationVar(&o.fuzztime, "fuzztime", 3*time.Second, "how long each fuzz target runs; 0 leaves fuzzing out")
	flag.StringVar(&o.run, "run", "", "only tests that match, as for go test; leaves fuzzing out")
	flag.IntVar(&o.parallel, "p", 0, "packages at once; 0: one for each core")
	flag.BoolVar(&o.fuzzOnly, "fuzz-only", false, "only the fuzz targets")
	flag.Parse()
	if flag.NArg() > 0 {
		fmt.Fprintf(os.Stderr, "testall: unexpected argument %q; flags only, see -help\n", flag.Arg(0))
		os.Exit(2)
	}
	o.modules = strings.Split(modules, ",")
	if o.run != "" {
		o.fuzztime = 0
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	if err := testAll(ctx, o); err != nil {
		if !errors.Is(err, errFailed) {
			fmt.Fprintln(os.Stderr, "testall:", err)
		}
		os.Exit(1)
	}
}

var errFailed = errors.New("something failed")

func testAll(ctx context.Context, o options) error {
	started := time.Now()
	var t tally
	var broken []string
	if !o.fuzzOnly {
		for _, m := range o.modules {
			if err := runModule(ctx, o, m, &t); err != nil {
				broken = append(broken, fmt.Sprintf("module %s: %v", m, err))
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
		}
		if o.run == "" && t.postgres == 0 {
			broken = append(broken, "no test ran on PostgreSQL: the postgres binary was not found by the tests (make need)")
		}
	}
	var targets []target
	if o.fuzztime > 0 {
		var err error
		if targets, err = fuzzAll(ctx, o, &t); err != nil {
			broken = append(broken, err.Error())
		}
	}
	fmt.Printf("\n%d packages, %d tests and subtests, %d of them on PostgreSQL, %d skipped, %d fuzz targets for %s each, in %s\n",
		t.packages, t.passed+t.failed+t.skipped, t.postgres, t.skipped, len(targets), o.fuzztime, time.Since(started).Round(time.Second))
	for _, name := range t.skips {
		fmt.Println("skipped:", name)
	}
	for _, name := range t.failures {
		fmt.Println("failed:", name)
	}
	for _, b := range broken {
		fmt.Println("broken:", b)
	}
	failed := t.failed + len(broken)
	fmt.Printf("%d passed, %d failed\n", t.passed, failed)
	if failed > 0 {
		return errFailed
	}
	return nil
}
