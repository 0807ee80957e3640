package house

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// homes are directories that exist on one machine only.
var homes = regexp.MustCompile(`(/home/|/Users/|C:\\Users\\)[A-Za-z]|/root/(go|\.)`)

// MachinePaths fails the test for each text file below root that names a directory of
// the machine it was written on.
func MachinePaths(t testing.TB, root string) {
	t.Helper()
	top, err := filepath.Abs(root)
	if err != nil {
		t.Fatalf("finding the root: %v", err)
	}
	// A checkout right below / has a name that texts may use for other reasons.
	checkTop := strings.Count(filepath.ToSlash(top), "/") > 1
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path != root && Skip(d.Name()) && d.Name() != "testdata" && d.Name() != ".ci" {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || filepath.Base(path) == "go.work.sum" {
			return nil
		}
		body, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if bytes.IndexByte(body, 0) >= 0 {
			return nil
		}
		for i, line := range bytes.Split(body, []byte("\n")) {
			if homes.Match(line) || (checkTop && bytes.Contains(line, []byte(top+"/"))) {
				rel, _ := filepath.Rel(root, path)
				t.Errorf("%s:%d names a directory of one machine: %s", rel, i+1, bytes.TrimSpace(line))
			}
		}
		return nil
	})
	if err != nil {
		t.Fatalf("reading the files below %s: %v", root, err)
	}
}
