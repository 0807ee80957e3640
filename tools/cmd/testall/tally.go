package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"strings"
)

// event is one line of go test -json.
type event struct {
	Action      string
	Package     string
	ImportPath  string
	Test        string
	Output      string
	Elapsed     float64
	FailedBuild string
}

// tally counts what ran. It keeps the output of a test until it has passed, so that
// only failures are printed.
type tally struct {
	packages, passed, failed, skipped, postgres int

	failures, skips []string
	output          map[string][]string
	failedIn        map[string]bool
	build           map[string][]string
}

// read takes the events of one go test run, printing the line of each package and the
// output of what failed.
func (t *tally) read(r io.Reader, w io.Writer) error {
	if t.output == nil {
		t.output, t.failedIn, t.build = map[string][]string{}, map[string]bool{}, map[string][]string{}
	}
	s := bufio.NewScanner(r)
	s.Buffer(nil, 64<<20)
	for s.Scan() {
		var e event
		if err := json.Unmarshal(s.Bytes(), &e); err != nil {
			// A line of the go command itself.
			fmt.Fprintln(w, s.Text())
			continue
		}
		t.take(e, w)
	}
	return s.Err()
}

func (t *tally) take(e event, w io.Writer) {
	key := e.Package + " " + e.Test
	switch e.Action {
	case "build-output":
		t.build[e.ImportPath] = append(t.build[e.ImportPath], e.Output)
	case "output":
		t.output[key] = append(t.output[key], e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			t.endPackage(e, w)
			return
		}
		t.endTest(e)
		if e.Action != "fail" {
			delete(t.output, key)
		}
	}
}

func (t *tally) endTest(e event) {
	name := e.Package + " " + e.Test
	switch e.Action {
	case "pass":
		t.passed++
	case "fail":
		t.failed++
		t.failures = append(t.failures, name)
		t.failedIn[e.Package] = true
	case "skip":
		t.skipped++
		t.skips = append(t.skips, name+reason(t.output[name]))
	}
	if e.Action != "skip" && onPostgres(e.Test) {
		t.postgres++
	}
}

func (t *tally) endPackage(e event, w io.Writer) {
	switch e.Action {
	case "pass":
		t.packages++
		fmt.Fprintf(w, "ok  \t%s\t%.1fs\n", e.Package, e.Elapsed)
	case "skip":
		// No test files: nothing to say.
	case "fail":
		t.packages++
		if e.FailedBuild != "" {
			fmt.Fprint(w, strings.Join(t.build[e.FailedBuild], ""))
		}
		for key, lines := range t.output {
			if strings.HasPrefix(key, e.Package+" ") {
				fmt.Fprint(w, strings.Join(lines, ""))
			}
		}
		fmt.Fprintf(w, "FAIL\t%s\t%.1fs\n", e.Package, e.Elapsed)
		if !t.failedIn[e.Package] {
			// It did not build, ended early or left a goroutine behind.
			t.failed++
			t.failures = append(t.failures, e.Package)
		}
	}
	for key := range t.output {
		if strings.HasPrefix(key, e.Package+" ") {
			delete(t.output, key)
		}
	}
}

// onPostgres says whether a test ran on PostgreSQL: by the name of the subtest that
// the suites of the store give to the engine.
func onPostgres(test string) bool {
	for part := range strings.SplitSeq(strings.ToLower(test), "/") {
		if strings.HasPrefix(part, "postgres") || strings.HasPrefix(part, "testpostgres") {
			return true
		}
	}
	return false
}

// reason is what a skipped test said last, apart from the frame that go test prints.
func reason(lines []string) string {
	for i := len(lines) - 1; i >= 0; i-- {
		s := strings.TrimSpace(lines[i])
		if s == "" || strings.HasPrefix(s, "---") || strings.HasPrefix(s, "===") {
			continue
		}
		return ": " + s
	}
	return ""
}
