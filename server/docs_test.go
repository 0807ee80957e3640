package server_test

import (
	"bufio"
	"bytes"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/alarm"
	httpdoor "telford.dev/telford/server/internal/door/http"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/runtime"
	"telford.dev/telford/server/telfordtest"
)

const docs = "../docs/reference/"

var update = flag.Bool("update", false, "rewrite the generated parts of the reference")

// generated compares what stands between the two marks of a document with what the
// program says, or, with -update, puts it there.
func generated(t *testing.T, file, want string) {
	t.Helper()
	const begin, end = "<!-- generated: go test ./server -run TestReference -update -->\n", "<!-- end of generated -->"
	body, err := os.ReadFile(docs + file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(body), begin)
	got, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s lacks the marks %q and %q", file, begin, end)
	}
	if *update {
		if err := os.WriteFile(docs+file, []byte(before+begin+want+end+after), 0o600); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(got, want); diff != "" {
		t.Errorf("docs/reference/%s is not what the program does (-document +program):\n%s"+
			"go test ./server -run TestReference -update rewrites it", file, diff)
	}
}

func TestReferenceConfiguration(t *testing.T) {
	t.Parallel()
	var b strings.Builder
	b.WriteString("| flag and key | environment | meaning |\n| --- | --- | --- |\n")
	for _, s := range runtime.Settings() {
		fmt.Fprintf(&b, "| `--%s` | `%s` | %s |\n", s.Name, s.Env(), strings.ReplaceAll(s.Usage, "|", "\\|"))
	}
	generated(t, "configuration.md", b.String())
}

// program is the built binary.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "telford")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./cmd/telford")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building the program: %v\n%s", err, out)
	}
	return path
}

var subcommand = regexp.MustCompile(`(?m)^  ([a-z][a-z-]*) +\S`)

func TestReferenceCommandLine(t *testing.T) {
	t.Parallel()
	bin := program(t)
	var b strings.Builder
	var walk func(path []string)
	walk = func(path []string) {
		out, err := exec.CommandContext(t.Context(), bin, append(slices.Clone(path), "--help")...).CombinedOutput()
		if err != nil {
			t.Errorf("telford %s --help: %v\n%s", strings.Join(path, " "), err, out)
			return
		}
		own, _, _ := strings.Cut(string(out), "\nGlobal Flags:")
		if len(path) > 0 {
			fmt.Fprintf(&b, "### telford %s\n\n", strings.Join(path, " "))
		}
		fmt.Fprintf(&b, "```text\n%s\n```\n\n", strings.TrimSpace(own))
		_, commands, ok := strings.Cut(own, "Available Commands:\n")
		if !ok {
			return
		}
		commands, _, _ = strings.Cut(commands, "\n\n")
		for _, m := range subcommand.FindAllStringSubmatch(commands, -1) {
			if m[1] != "help" && m[1] != "completion" {
				walk(append(slices.Clone(path), m[1]))
			}
		}
	}
	walk(nil)
	generated(t, "cli.md", b.String())
}

var metricLine = regexp.MustCompile(`^# (HELP|TYPE) (telford_[a-z_]+) (.*)$`)

func TestReferenceMetrics(t *testing.T) {
	t.Parallel()
	srv := telfordtest.Start(t)
	// Families with labels show once there is something to label.
	owner := registry.Owner{Namespace: "default", Instance: "in_docs", Service: "docs", Door: "link"}
	if _, _, err := srv.Runtime().Registry().Register(t.Context(), owner, &catalog.Declaration{Service: "docs", Realm: "global", Status: catalog.OK}); err != nil {
		t.Fatal(err)
	}
	srv.Runtime().Alarms().Raise("docs", alarm.Warning, "an example")
	for _, verb := range []string{"call", "stream"} {
		_ = get(t, srv, http.MethodPost, "/"+verb+"/docs/nothing")
	}
	type family struct{ kind, help string }
	families := map[string]*family{}
	for s := bufio.NewScanner(strings.NewReader(get(t, srv, http.MethodGet, "/metrics"))); s.Scan(); {
		m := metricLine.FindStringSubmatch(s.Text())
		if m == nil {
			continue
		}
		if families[m[2]] == nil {
			families[m[2]] = &family{}
		}
		if m[1] == "HELP" {
			families[m[2]].help = m[3]
		} else {
			families[m[2]].kind = m[3]
		}
	}
	if len(families) < 20 {
		t.Fatalf("only %d families", len(families))
	}
	var names []string
	for name := range families {
		names = append(names, name)
	}
	slices.Sort(names)
	var b strings.Builder
	b.WriteString("| metric | type | meaning |\n| --- | --- | --- |\n")
	for _, name := range names {
		fmt.Fprintf(&b, "| `%s` | %s | %s |\n", name, families[name].kind, families[name].help)
	}
	generated(t, "metrics.md", b.String())
}

func get(t *testing.T, srv *telfordtest.Server, method, path string) string {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, srv.HTTP()+path, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("Authorization", "Bearer "+srv.AdminToken())
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	var b bytes.Buffer
	if _, err := io.Copy(&b, resp.Body); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// Every code has its row, with what each door makes of it.
func TestReferenceErrors(t *testing.T) {
	t.Parallel()
	body, err := os.ReadFile(docs + "errors.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := map[string][]string{}
	for line := range strings.Lines(string(body)) {
		if cells := strings.Split(line, "|"); strings.HasPrefix(line, "| `") && len(cells) >= 7 {
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			rows[strings.Trim(cells[1], "`")] = cells[2:]
		}
	}
	for _, code := range errs.Codes() {
		e := errs.New(code, "x")
		want := []string{e.GRPCCode.String(), fmt.Sprint(httpdoor.Status(e)), map[bool]string{true: "yes", false: "no"}[e.Retryable]}
		if code == errs.Handler {
			want[0], want[1] = "the handler's", "by the handler's"
		}
		row := rows[string(code)]
		if len(row) < 4 || row[3] == "" {
			t.Errorf("errors.md has no row for %s; want | `%s` | %s | meaning |", code, code, strings.Join(want, " | "))
			continue
		}
		if diff := cmp.Diff(want, row[:3]); diff != "" {
			t.Errorf("errors.md, row %s (-want +document):\n%s", code, diff)
		}
		delete(rows, string(code))
	}
	for code := range rows {
		t.Errorf("errors.md has a row for %s, which is no code", code)
	}
}

var route = regexp.MustCompile(`(?m)^ +(get|post|put|patch|delete): (/\S+)$`)

// Every path of the admin API is in the reference.
func TestReferenceHTTP(t *testing.T) {
	t.Parallel()
	mapping, err := os.ReadFile("api/gateway.yaml")
	if err != nil {
		t.Fatal(err)
	}
	body, err := os.ReadFile(docs + "http.md")
	if err != nil {
		t.Fatal(err)
	}
	routes := route.FindAllStringSubmatch(string(mapping), -1)
	if len(routes) < 5 {
		t.Fatalf("only %d routes found in the mapping", len(routes))
	}
	for _, m := range routes {
		if want := "`" + strings.ToUpper(m[1]) + " " + m[2] + "`"; !strings.Contains(string(body), want) {
			t.Errorf("http.md does not mention %s", want)
		}
	}
}
