// Package house owns the rules of the layout that a compiler does not check: who may
// import what, one package comment a package, files that can be held in the head,
// nothing registered by init. The layout tests of each module call it; no other code
// may. It runs the go command, waits for it, and starts no goroutines.
package house

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

// Package is what go list says of one package.
type Package struct {
	ImportPath   string
	Name         string
	Standard     bool
	Imports      []string // of the code
	TestImports  []string // of its tests, inside the package
	XTestImports []string // of its tests, outside
	Deps         []string // all that Imports leads to
	Module       *Module
}

// Module is where a package comes from.
type Module struct{ Path, Version string }

// List runs go list in dir for the patterns. With deps it also returns all packages
// that they are built from.
func List(t testing.TB, dir string, deps bool, patterns ...string) []*Package {
	t.Helper()
	args := []string{"list", "-json=ImportPath,Name,Standard,Imports,TestImports,XTestImports,Deps,Module"}
	if deps {
		args = append(args, "-deps")
	}
	cmd := exec.CommandContext(t.Context(), "go", append(args, patterns...)...)
	cmd.Dir = dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, stderr.String())
	}
	var pkgs []*Package
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		p := new(Package)
		if err := dec.Decode(p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("reading what go list printed: %v", err)
		}
		pkgs = append(pkgs, p)
	}
	if len(pkgs) == 0 {
		t.Fatalf("go list %s in %s found no package", strings.Join(patterns, " "), dir)
	}
	return pkgs
}

// within reports whether path is the tree at root, or in it.
func within(path, root string) bool {
	return path == root || strings.HasPrefix(path, root+"/")
}
