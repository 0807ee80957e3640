package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// target is one fuzz function.
type target struct{ module, pkg, name string }

// fuzzAll lists the fuzz targets of all modules and runs each for the time given. Their
// corpora have run with the tests already.
func fuzzAll(ctx context.Context, o options, t *tally) ([]target, error) {
	var targets []target
	for _, m := range o.modules {
		found, err := listTargets(ctx, o, m)
		if err != nil {
			return nil, fmt.Errorf("listing the fuzz targets of module %s: %w", m, err)
		}
		targets = append(targets, found...)
	}
	for _, f := range targets {
		out, err := fuzz(ctx, o, f)
		if err != nil && stoppedLate(out) {
			out, err = fuzz(ctx, o, f)
		}
		if ctx.Err() != nil {
			return targets, ctx.Err()
		}
		name := f.pkg + " " + f.name
		if err != nil {
			t.failed++
			t.failures = append(t.failures, name+" (fuzzing)")
			fmt.Printf("%sFAIL\t%s\n", out, name)
			continue
		}
		t.passed++
		fmt.Printf("ok  \t%s\tfuzz %s%s\n", name, o.fuzztime, executions(out))
	}
	return targets, nil
}

func fuzz(ctx context.Context, o options, f target) (string, error) {
	cmd := goCommand(ctx, o, f.module, "test", "-run", "^$", "-fuzz", "^"+f.name+"$", "-fuzztime", o.fuzztime.String(), f.pkg)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// stoppedLate says whether the fuzzing engine reported its own end of time as a failure,
// as it may on a loaded machine. That finds nothing, so it is asked once more.
func stoppedLate(out string) bool {
	return strings.Contains(out, "context deadline exceeded") && !strings.Contains(out, "Failing input written")
}

// executions is the count that the engine printed last.
func executions(out string) string {
	at := strings.LastIndex(out, "execs: ")
	if at < 0 {
		return ""
	}
	n, _, _ := strings.Cut(out[at+len("execs: "):], " ")
	return ", " + n + " inputs"
}

// listTargets asks go test for the fuzz functions of the packages whose test files
// mention one: asking every package would link every test binary once more.
func listTargets(ctx context.Context, o options, module string) ([]target, error) {
	dirs, err := fuzzDirs(filepath.Join(o.root, module))
	if err != nil {
		return nil, err
	}
	var targets []target
	for _, dir := range dirs {
		cmd := goCommand(ctx, o, module, "test", "-list", "^Fuzz", dir)
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			return nil, fmt.Errorf("%s: %w\n%s%s", dir, err, out, stderr.String())
		}
		for line := range strings.Lines(string(out)) {
			if line = strings.TrimSpace(line); strings.HasPrefix(line, "Fuzz") {
				targets = append(targets, target{module, dir, line})
			}
		}
	}
	return targets, nil
}

// fuzzDirs returns the packages of a module, as ./path, with a fuzz function in a test
// file. Modules below are not part of it.
func fuzzDirs(root string) ([]string, error) {
	var dirs []string
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path != root && (d.Name() == "testdata" || d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".") || isModule(path)) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, "_test.go") {
			return nil
		}
		body, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if !bytes.Contains(body, []byte("\nfunc Fuzz")) {
			return nil
		}
		rel, err := filepath.Rel(root, filepath.Dir(path))
		if err != nil {
			return err
		}
		dir := "./" + filepath.ToSlash(rel)
		if len(dirs) == 0 || dirs[len(dirs)-1] != dir {
			dirs = append(dirs, dir)
		}
		return nil
	})
	return dirs, err
}

func isModule(dir string) bool {
	_, err := os.Stat(filepath.Join(dir, "go.mod"))
	return err == nil
}
