package main

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

func TestTally(t *testing.T) {
	t.Parallel()
	events := strings.Join([]string{
		`{"Action":"start","Package":"a"}`,
		`{"Action":"output","Package":"a","Test":"TestGood","Output":"quiet\n"}`,
		`{"Action":"pass","Package":"a","Test":"TestGood"}`,
		`{"Action":"pass","Package":"a","Test":"TestStore/postgres/append"}`,
		`{"Action":"pass","Package":"a","Test":"TestStore/sqlite/append"}`,
		`{"Action":"output","Package":"a","Test":"TestLater","Output":"    x_test.go:1: needs a disk\n"}`,
		`{"Action":"output","Package":"a","Test":"TestLater","Output":"--- SKIP: TestLater (0.00s)\n"}`,
		`{"Action":"skip","Package":"a","Test":"TestLater"}`,
		`{"Action":"pass","Package":"a","Elapsed":1.25}`,
		`{"Action":"output","Package":"b","Test":"TestBad","Output":"loud\n"}`,
		`{"Action":"fail","Package":"b","Test":"TestBad"}`,
		`{"Action":"fail","Package":"b","Elapsed":0.5}`,
		`{"Action":"build-output","ImportPath":"c","Output":"c.go:1: syntax error\n"}`,
		`{"Action":"fail","Package":"c","FailedBuild":"c"}`,
		`{"Action":"skip","Package":"d"}`,
		`warning: not an event`,
	}, "\n")
	var ta tally
	var w bytes.Buffer
	if err := ta.read(strings.NewReader(events), &w); err != nil {
		t.Fatal(err)
	}
	got := [...]int{ta.packages, ta.passed, ta.failed, ta.skipped, ta.postgres}
	if want := [...]int{3, 3, 2, 1, 1}; got != want {
		t.Errorf("packages, passed, failed, skipped, postgres = %v, want %v", got, want)
	}
	for _, want := range []string{"ok  \ta\t1.2s\n", "loud\n", "FAIL\tb\t0.5s\n", "c.go:1: syntax error\n", "warning: not an event\n"} {
		if !strings.Contains(w.String(), want) {
			t.Errorf("%q is missing in\n%s", want, w.String())
		}
	}
	if strings.Contains(w.String(), "quiet") {
		t.Errorf("the output of a test that passed was printed:\n%s", w.String())
	}
	if want := []string{"b TestBad", "c"}; !slices.Equal(ta.failures, want) {
		t.Errorf("failures %q, want %q", ta.failures, want)
	}
	if want := []string{"a TestLater: x_test.go:1: needs a disk"}; !slices.Equal(ta.skips, want) {
		t.Errorf("skips %q, want %q", ta.skips, want)
	}
}

func TestFuzzDirs(t *testing.T) {
	t.Parallel()
	root := t.TempDir()
	write := func(path, body string) {
		t.Helper()
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(body), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	target := "package x\n\nfunc FuzzX(f *testing.F) {}\n"
	write("go.mod", "module x\n")
	write("x_test.go", target)
	write("a/b/y_test.go", target)
	write("a/b/z_test.go", target)
	write("plain/plain_test.go", "package plain\n")
	write("testdata/t_test.go", target)
	write("nested/go.mod", "module nested\n")
	write("nested/n_test.go", target)
	got, err := fuzzDirs(root)
	if err != nil {
		t.Fatal(err)
	}
	slices.Sort(got)
	if want := []string{"./.", "./a/b"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestExecutions(t *testing.T) {
	t.Parallel()
	out := "fuzz: elapsed: 0s, execs: 12 (1/sec)\nfuzz: elapsed: 3s, execs: 3456 (9/sec), new interesting: 1\nPASS\n"
	if got := executions(out); got != ", 3456 inputs" {
		t.Errorf("got %q", got)
	}
	if got := executions("PASS"); got != "" {
		t.Errorf("got %q for no count", got)
	}
}
