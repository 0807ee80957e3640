package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/bench/internal/measure"
)

// The children of a benchmark are this program again, here the test binary.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == roleFlag {
		if err := play(context.Background(), os.Args[2:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// Every stack answers, and the report holds what was compared.
func TestEveryStackAnswers(t *testing.T) {
	t.Parallel()
	report := filepath.Join(t.TempDir(), "report.json")
	var out bytes.Buffer
	err := run(t.Context(), []string{
		"-callers", "3", "-sizes", "16384", "-rounds", "1", "-warmup", "20ms", "-for", "100ms", "-quiet", "0s", "-json", report,
	}, &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	for _, name := range stackNames() {
		if !strings.Contains(out.String(), "\n"+name+"-3-16384 ") {
			t.Errorf("no line for %s in:\n%s", name, out.String())
		}
	}
	body, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	var rows []measure.Comparison
	if err := json.Unmarshal(body, &rows); err != nil {
		t.Fatal(err)
	}
	for _, r := range rows {
		if r.Telford <= 0 || r.Peer <= 0 || r.Ratio <= 0 {
			// The CPU time of a process comes in steps of 10 ms: a short cell may see none.
			if r.Metric != "cpu" {
				t.Errorf("nothing was measured: %+v", r)
			}
		}
	}
}

// Every feature is measured on both paths, and the report bounds what it costs.
func TestEveryFeatureIsPaired(t *testing.T) {
	t.Parallel()
	report := filepath.Join(t.TempDir(), "report.json")
	var out bytes.Buffer
	err := run(t.Context(), []string{"-pairs", "2", "-callers", "3", "-warmup", "10ms", "-for", "40ms", "-quiet", "0s", "-json", report}, &out)
	if err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	body, err := os.ReadFile(report)
	if err != nil {
		t.Fatal(err)
	}
	var rows []measure.Comparison
	if err := json.Unmarshal(body, &rows); err != nil {
		t.Fatal(err)
	}
	if want := 2 * len(paths()) * len(features()); len(rows) != want {
		t.Errorf("%d rows, want %d", len(rows), want)
	}
	for _, r := range rows {
		if r.Telford <= 0 || r.Peer <= 0 || r.PeerName != "off" || r.Pairs != 2 || !(r.Low <= r.Ratio && r.Ratio <= r.High) {
			t.Errorf("%+v", r)
		}
	}
}

func TestProfilesAreWritten(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "profiles")
	err := run(t.Context(), []string{
		"-stacks", "nats", "-callers", "2", "-sizes", "8", "-warmup", "10ms", "-for", "50ms", "-quiet", "0s", "-profile", dir,
	}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{"client", "server", "broker"} {
		info, err := os.Stat(filepath.Join(dir, "nats-2-8-"+role+".pprof"))
		if err != nil || info.Size() == 0 {
			t.Errorf("profile of the %s: %v", role, err)
		}
	}
}

func TestShortIsWhatWasPromised(t *testing.T) {
	t.Parallel()
	o, err := parse([]string{"-short", "-json", "f"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([][]int{{1, 64}, {128}}, [][]int{o.callers, o.sizes}); diff != "" {
		t.Errorf("callers and sizes, -want +got:\n%s", diff)
	}
	cells := len(o.stacks) * len(o.callers) * len(o.sizes) * o.rounds
	const start = 400 * time.Millisecond // of a child
	if total := o.quiet + time.Duration(cells)*(o.warmup+o.cell+start); total > 240*time.Second {
		t.Errorf("%d cells take %s, more than 240 s", cells, total)
	}
	o, err = parse([]string{"-short", "-callers", "7", "-for", "1s"}, io.Discard)
	if err != nil || o.callers[0] != 7 || o.cell != time.Second {
		t.Errorf("-short overrode what was asked for: %+v, %v", o, err)
	}
}

func TestWrongFlags(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ args, want string }{
		{"-stacks grpc,ice", `there is no "ice"`},
		{"-callers 0", `"0" is not a number from 1`},
		{"-sizes many", `"many" is not a number`},
		{"-rounds 0", "have to be positive"},
		{"-pairs 1", "-pairs: 1 is not from 2"},
		{"-pairs 0", "-pairs: 0 is not from 2"},
		{"-pairs 4 -features speed", `there is no "speed"`},
		{"-features policy", "is for -pairs"},
		{"-pairs 4 -stacks grpc", "-pairs is another"},
		{"-nonsense", "not defined"},
		{"extra", `unexpected argument "extra"`},
	} {
		_, err := parse(strings.Fields(c.args), io.Discard)
		if !errors.Is(err, errUsage) || !strings.Contains(err.Error(), c.want) || exitStatus(err) != 2 {
			t.Errorf("%s: got %v, want wrong usage: %s", c.args, err, c.want)
		}
	}
	if _, err := parse([]string{"-help"}, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-help: %v", err)
	}
	if got := exitStatus(errors.New("x")); got != 1 {
		t.Errorf("exit status of a failure: %d", got)
	}
}

func TestEveryStackOfOursHasARival(t *testing.T) {
	t.Parallel()
	compared := map[string]bool{}
	for _, r := range rivals() {
		for _, name := range append(r.telford, r.peers...) {
			if _, ok := stacks()[name]; !ok {
				t.Errorf("%q is compared but is no stack", name)
			}
			compared[name] = true
		}
	}
	for _, name := range stackNames() {
		if !compared[name] {
			t.Errorf("%q is measured but compared to nothing", name)
		}
	}
}
