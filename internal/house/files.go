package house

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// MaxLines is the most lines that a file of code or tests may have.
const MaxLines = 800

// LongLines is the number of lines from which a file is reported.
const LongLines = 400

// File is one parsed Go file.
type File struct {
	Path      string // relative to the root of the walk, with slashes
	Lines     int
	Generated bool
	Test      bool
	AST       *ast.File
	set       *token.FileSet
}

// at is where a node stands, for messages.
func (f *File) at(n ast.Node) string {
	return fmt.Sprintf("%s:%d", f.Path, f.set.Position(n.Pos()).Line)
}

func (f *File) line(p token.Pos) int { return f.set.Position(p).Line }

// Skip reports whether a directory holds nothing of ours: what was built, fetched or
// kept as test data.
func Skip(name string) bool {
	return name == "testdata" || name == "node_modules" || name == "bin" || name == "out" ||
		(strings.HasPrefix(name, ".") && name != "." && name != "..")
}

// Files parses all Go files below root, those of nested modules too.
func Files(t testing.TB, root string) []*File {
	t.Helper()
	var files []*File
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if path != root && Skip(d.Name()) {
				return fs.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") {
			return nil
		}
		rel, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		body, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		f := &File{
			Path: filepath.ToSlash(rel), Lines: bytes.Count(body, []byte("\n")),
			Test: strings.HasSuffix(path, "_test.go"), set: token.NewFileSet(),
		}
		f.AST, err = parser.ParseFile(f.set, f.Path, body, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		f.Generated = ast.IsGenerated(f.AST)
		files = append(files, f)
		return nil
	})
	if err != nil {
		t.Fatalf("reading the Go files below %s: %v", root, err)
	}
	return files
}

// PackageComments fails the test for each package without a package comment, or with
// more than one.
func PackageComments(t testing.TB, files []*File) {
	t.Helper()
	type pkg struct {
		commented []string
		generated bool
	}
	pkgs := map[string]*pkg{}
	for _, f := range files {
		if f.Test {
			if f.AST.Doc != nil {
				t.Errorf("%s: a package comment in a test; say it on the test, or in the package's own file", f.Path)
			}
			continue
		}
		dir := filepath.Dir(f.Path)
		if pkgs[dir] == nil {
			pkgs[dir] = &pkg{generated: true}
		}
		p := pkgs[dir]
		p.generated = p.generated && f.Generated
		if f.AST.Doc != nil && !f.Generated {
			p.commented = append(p.commented, f.Path)
		}
	}
	for dir, p := range pkgs {
		switch {
		case p.generated:
		case len(p.commented) == 0:
			t.Errorf("%s: no package comment; one has to say what the package owns, what it never does, and who owns its goroutines", dir)
		case len(p.commented) > 1:
			t.Errorf("%s: %d package comments, keep one: %s", dir, len(p.commented), strings.Join(p.commented, ", "))
		}
	}
}

// NoInit fails the test for each init function.
func NoInit(t testing.TB, files []*File) {
	t.Helper()
	for _, f := range files {
		if f.Generated {
			continue
		}
		for _, d := range f.AST.Decls {
			if fn, ok := d.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: an init function; parts are built by constructors, so that two can live in one process", f.at(fn))
			}
		}
	}
}

// Lengths fails the test for each file over MaxLines and logs those over LongLines,
// with the median.
func Lengths(t testing.TB, files []*File) {
	t.Helper()
	var lengths []int
	for _, f := range files {
		if f.Generated {
			continue
		}
		if !f.Test {
			lengths = append(lengths, f.Lines)
		}
		switch {
		case f.Lines > MaxLines:
			t.Errorf("%s has %d lines, %d is the most: split it by noun", f.Path, f.Lines, MaxLines)
		case f.Lines > LongLines:
			t.Logf("%s has %d lines", f.Path, f.Lines)
		}
	}
	if len(lengths) > 0 {
		slices.Sort(lengths)
		t.Logf("%d files of code: median %d lines, p90 %d, longest %d", len(lengths),
			lengths[len(lengths)/2], lengths[len(lengths)*9/10], lengths[len(lengths)-1])
	}
}

// Sleeps fails the test for each time.Sleep in a test that is not explained by a
// comment on its line or the one before. In a bubble of testing/synctest sleeping moves
// the clock and needs no excuse.
func Sleeps(t testing.TB, files []*File) {
	t.Helper()
	for _, f := range files {
		if !f.Test {
			continue
		}
		explained := map[int]bool{}
		for _, group := range f.AST.Comments {
			for l := f.line(group.Pos()); l <= f.line(group.End())+1; l++ {
				explained[l] = true
			}
		}
		ast.Inspect(f.AST, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok {
				return true
			}
			switch selector(call) {
			case "synctest.Test":
				return false
			case "time.Sleep":
				if !explained[f.line(call.Pos())] {
					t.Errorf("%s: time.Sleep in a test; wait for a signal, or say in a comment why there is none", f.at(call))
				}
			}
			return true
		})
	}
}

// selector is the pkg.Name that a call names, or "".
func selector(call *ast.CallExpr) string {
	s, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return ""
	}
	x, ok := s.X.(*ast.Ident)
	if !ok {
		return ""
	}
	return x.Name + "." + s.Sel.Name
}
