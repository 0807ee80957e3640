package house_test

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/house"
)

const (
	root   = "../.."
	module = "telford.dev/telford"
)

var update = flag.Bool("update", false, "rewrite the SDK's list of dependencies")

func TestFiles(t *testing.T) {
	t.Parallel()
	files := house.Files(t, root)
	if len(files) < 20 {
		t.Fatalf("only %d Go files found below %s", len(files), root)
	}
	house.PackageComments(t, files)
	house.NoInit(t, files)
	house.Lengths(t, files)
	house.Sleeps(t, files)
}

func TestMachinePaths(t *testing.T) {
	t.Parallel()
	house.MachinePaths(t, root)
}

// The SDK is what users link. The program may use the SDK, never the other way round.
func TestSDKKeepsApartFromTheProgram(t *testing.T) {
	t.Parallel()
	house.ImportedOnlyBy(t, house.List(t, root, false, "./..."), module+"/server", true,
		"the SDK does not know the program, not in tests either; behaviour against a real runtime is tested in server/sdktest")
}

func TestSDKStaysLight(t *testing.T) {
	t.Parallel()
	pkgs := house.List(t, root, true, "./...")
	own := slices.DeleteFunc(slices.Clone(pkgs), func(p *house.Package) bool {
		return p.Module == nil || p.Module.Path != module || within(p.ImportPath, module+"/internal/house")
	})
	if len(own) == 0 {
		t.Fatal("no package of the SDK found")
	}
	house.Forbid(t, own,
		house.Ban{Path: "database/sql", Why: "stores are the program's; a durable queue is the outbox module's"},
		house.Ban{Path: "modernc.org/sqlite", Why: "stores are the program's; a durable queue is the outbox module's"},
		house.Ban{Path: "github.com/jackc/pgx", Why: "stores are the program's; a durable queue is the outbox module's"},
		house.Ban{Path: "github.com/prometheus", Why: "the SDK speaks the OpenTelemetry API; exporters are the user's choice"},
		house.Ban{Path: "go.opentelemetry.io/otel/sdk", Why: "the SDK speaks the OpenTelemetry API; exporters are the user's choice"},
		house.Ban{Path: "go.opentelemetry.io/otel/exporters", Why: "the SDK speaks the OpenTelemetry API; exporters are the user's choice"},
		house.Ban{Path: "github.com/spf13", Why: "commands are the program's"},
		house.Ban{Path: "testing", Why: "the testing package registers flags in whatever links it"},
		house.Ban{Path: "github.com/google/go-cmp", Why: "it is for tests: it panics by design"},
		house.Ban{Path: "go.uber.org/goleak", Why: "it is for tests"},
		house.Ban{Path: "pgregory.net/rapid", Why: "it is for tests"},
	)
}

// What both ends decide by is compiled into every user's program, and knows neither
// the wire nor the door.
func TestSharedLogicIsPure(t *testing.T) {
	t.Parallel()
	var pure []string
	for _, name := range []string{"errs", "message", "catalog", "clock", "id", "pick", "chain", "policy", "resilience"} {
		if _, err := os.Stat(filepath.Join(root, "internal", name)); err == nil {
			pure = append(pure, "./internal/"+name)
		}
	}
	pkgs := house.List(t, root, true, pure...)
	own := slices.DeleteFunc(slices.Clone(pkgs), func(p *house.Package) bool {
		return !slices.Contains(pure, "./"+strings.TrimPrefix(p.ImportPath, module+"/"))
	})
	if len(own) != len(pure) {
		t.Fatalf("found %d of the packages %v", len(own), pure)
	}
	house.Forbid(t, own,
		house.Ban{Path: "google.golang.org/grpc", Except: house.GRPCCodes(), Why: "what is shared by all doors belongs to none of them"},
		house.Ban{Path: "net/http", Why: "what is shared by all doors belongs to none of them"},
		house.Ban{Path: module + "/api", Why: "generated types drag gRPC in; convert at the edge"},
	)
}

// The list is what a user's program links by importing the SDK. A line more is a
// decision: run the test with -update and look at the difference.
func TestSDKDependencies(t *testing.T) {
	t.Parallel()
	const file = "testdata/sdk-dependencies.txt"
	var lines []string
	for _, p := range house.List(t, root, true, ".") {
		if !p.Standard && p.Module != nil && p.Module.Path != module {
			lines = append(lines, p.ImportPath)
		}
	}
	slices.Sort(lines)
	if *update {
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatalf("reading the list (go test ./internal/house -run SDKDependencies -update writes it): %v", err)
	}
	if diff := cmp.Diff(strings.Fields(string(want)), lines); diff != "" {
		t.Errorf("the SDK links other packages than %s says (-want +got):\n%s"+
			"if that is meant: go test ./internal/house -run SDKDependencies -update", file, diff)
	}
}

func within(path, root string) bool { return path == root || strings.HasPrefix(path, root+"/") }
