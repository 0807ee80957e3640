package server_test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"telford.dev/telford/internal/house"
)

const (
	sdk    = "telford.dev/telford"
	module = sdk + "/server"
)

// domain are the directories below internal that hold the rules of Telford. What is not
// named here or in edge fails the test, so that nobody forgets to decide.
var domain = []string{
	"tx", "registry", "router", "transcode", "channel", "event", "job", "workflow", "config", "feed", "identity",
	"policy", "telemetry", "wheel", "rules", "idempotency", "alarm", "restreg", "wake",
}

// edge are the directories below internal that meet the outside.
var edge = []string{"admin", "door", "console", "store", "fabric", "cli", "metrics", "contracttest"}

func TestDomainKnowsNoWireAndNoStore(t *testing.T) {
	t.Parallel()
	entries, err := os.ReadDir("internal")
	if err != nil {
		t.Fatal(err)
	}
	var patterns []string
	for _, e := range entries {
		switch {
		case !e.IsDir():
		case slices.Contains(domain, e.Name()):
			patterns = append(patterns, "./internal/"+e.Name()+"/...")
		case !slices.Contains(edge, e.Name()):
			t.Errorf("internal/%s is neither among the domain packages nor among the edges of this test: decide, and add it", e.Name())
		}
	}
	all := house.List(t, ".", true, patterns...)
	pkgs := slices.DeleteFunc(slices.Clone(all), func(p *house.Package) bool {
		return !strings.HasPrefix(p.ImportPath, module+"/internal/")
	})
	const (
		store = "a domain declares the storage that it needs; only internal/store knows an engine"
		wire  = "a domain is called by every door and knows none of them"
	)
	house.Forbid(t, pkgs,
		house.Ban{Path: "database/sql", Why: store},
		house.Ban{Path: "github.com/jackc/pgx", Why: store},
		house.Ban{Path: "modernc.org/sqlite", Why: store},
		house.Ban{Path: "zombiezen.com/go/sqlite", Why: store},
		house.Ban{Path: module + "/internal/store", Why: store},
		house.Ban{Path: "google.golang.org/grpc", Except: house.GRPCCodes(), Why: wire},
		house.Ban{Path: "net/http", Why: wire},
		house.Ban{Path: sdk + "/api", Why: "generated types drag gRPC in; doors convert them"},
		house.Ban{Path: module + "/api", Why: "generated types drag gRPC in; doors convert them"},
		house.Ban{Path: module + "/internal/door", Why: wire},
		house.Ban{Path: "github.com/prometheus", Why: "it drags net/http in; a domain hands out numbers, the runtime publishes them"},
	)
}

func TestNobodyImportsADoor(t *testing.T) {
	t.Parallel()
	const root = module + "/internal/door"
	pkgs := house.List(t, ".", false, "./...")
	for _, door := range []string{"link", "grpc", "rest", "internalapi", "ipc", "bus", "http"} {
		house.ImportedOnlyBy(t, pkgs, root+"/"+door, false,
			"doors are leaves: what two of them need belongs below them, and only the runtime builds them",
			root+"/"+door, module+"/runtime")
	}
	house.ImportedOnlyBy(t, pkgs, root, false, "what doors share is theirs and the runtime's", root, module+"/runtime")
}

func TestNobodyButTheRuntimeOpensTheStore(t *testing.T) {
	t.Parallel()
	house.ImportedOnlyBy(t, house.List(t, ".", false, "./..."), module+"/internal/store", false,
		"storage is handed to who needs it as an interface of its own", module+"/runtime", module+"/internal/store")
}

func TestProgramLinksNoTestLibrary(t *testing.T) {
	t.Parallel()
	all := house.List(t, ".", true, "./cmd/...")
	commands := slices.DeleteFunc(slices.Clone(all), func(p *house.Package) bool {
		return !strings.HasPrefix(p.ImportPath, module+"/cmd/")
	})
	if len(commands) == 0 {
		t.Fatal("no command found")
	}
	house.Forbid(t, commands,
		house.Ban{Path: "testing", Why: "the testing package registers flags in whatever links it"},
		house.Ban{Path: "github.com/google/go-cmp", Why: "it panics by design"},
		house.Ban{Path: "go.uber.org/goleak", Why: "it is for tests"},
		house.Ban{Path: "pgregory.net/rapid", Why: "it is for tests"},
		house.Ban{Path: "github.com/rogpeppe/go-internal", Why: "it is for tests"},
		house.Ban{Path: module + "/telfordtest", Why: "it is for tests"},
	)
}

// The list must name what exists, or a renamed package would go unchecked.
func TestDomainListIsNotEmpty(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"tx", "registry", "router", "identity"} {
		if _, err := os.Stat(filepath.Join("internal", name)); err != nil {
			t.Errorf("internal/%s: %v", name, err)
		}
	}
}
