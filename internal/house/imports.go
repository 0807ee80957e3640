package house

import (
	"slices"
	"strings"
	"testing"
)

// Ban says that packages may not be reached, and why.
type Ban struct {
	// Path is an import path; what is below it is banned too.
	Path string
	// Except are import paths below Path that are allowed.
	Except []string
	Why    string
}

func (b Ban) covers(path string) bool {
	return within(path, b.Path) && !slices.Contains(b.Except, path)
}

// GRPCCodes is what comes with the package of gRPC's code numbers, which any package may
// use: its own leaves, without transport, HTTP or protobuf.
func GRPCCodes() []string {
	const grpc = "google.golang.org/grpc"
	return []string{
		grpc + "/codes", grpc + "/internal", grpc + "/connectivity", grpc + "/serviceconfig",
		grpc + "/grpclog", grpc + "/grpclog/internal",
	}
}

// Forbid fails the test for each of the packages that reaches something banned, naming
// the shortest chain of imports that leads there.
func Forbid(t testing.TB, pkgs []*Package, bans ...Ban) {
	t.Helper()
	byPath := make(map[string]*Package, len(pkgs))
	for _, p := range pkgs {
		byPath[p.ImportPath] = p
	}
	for _, p := range pkgs {
		for _, ban := range bans {
			for _, dep := range p.Deps {
				if ban.covers(dep) {
					t.Errorf("%s must not reach %s: %s\n\tit does by %s", p.ImportPath, dep, ban.Why, chain(byPath, p.ImportPath, dep))
					break
				}
			}
		}
	}
}

// chain is the shortest path of imports from one package to another, as far as the
// packages are known.
func chain(byPath map[string]*Package, from, to string) string {
	came := map[string]string{from: ""}
	queue := []string{from}
	for len(queue) > 0 {
		at := queue[0]
		queue = queue[1:]
		if at == to {
			break
		}
		p := byPath[at]
		if p == nil {
			continue
		}
		for _, next := range p.Imports {
			if _, seen := came[next]; !seen {
				came[next] = at
				queue = append(queue, next)
			}
		}
	}
	if _, ok := came[to]; !ok {
		return from + " -> ... -> " + to
	}
	var path []string
	for at := to; at != ""; at = came[at] {
		path = append(path, at)
	}
	slices.Reverse(path)
	return strings.Join(path, " -> ")
}

// ImportedOnlyBy fails the test for each package outside of the trees at importers that
// imports something in the tree at path. Packages may import their own tree's members:
// those that share the first element below path. Tests are held to it when tests is
// set.
func ImportedOnlyBy(t testing.TB, pkgs []*Package, path string, tests bool, why string, importers ...string) {
	t.Helper()
	for _, p := range pkgs {
		if slices.ContainsFunc(importers, func(i string) bool { return within(p.ImportPath, i) }) {
			continue
		}
		imports := p.Imports
		if tests {
			imports = slices.Concat(p.Imports, p.TestImports, p.XTestImports)
		}
		for _, i := range imports {
			if within(i, path) && i != p.ImportPath && !sameMember(path, p.ImportPath, i) {
				t.Errorf("%s imports %s: %s", p.ImportPath, i, why)
			}
		}
	}
}

// sameMember reports whether both are in the same first directory below path.
func sameMember(path, a, b string) bool {
	member := func(p string) string {
		rest, ok := strings.CutPrefix(p, path+"/")
		if !ok {
			return ""
		}
		first, _, _ := strings.Cut(rest, "/")
		return first
	}
	m := member(a)
	return m != "" && m == member(b)
}
