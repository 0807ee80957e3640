package examples_test

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// The commands of the guide to getting started, run one after another in one shell, in
// a copy of nothing but their directory. What the guide runs in another terminal runs
// in the background here, and the next command waits until it has said that it serves.
func TestGettingStarted(t *testing.T) {
	t.Parallel()
	body, err := os.ReadFile(filepath.Join(root, "docs/guides/getting-started.md"))
	if err != nil {
		t.Fatal(err)
	}
	top, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	script := prelude
	ran := 0
	for _, b := range fenced("getting-started.md", string(body)) {
		text := free(b.text)
		switch b.mark {
		case "run":
			script += "echo '+ ran'\n" + text
		case "run in background":
			script += "background " + strings.TrimSpace(text) + "\n"
		default:
			continue
		}
		ran++
	}
	if ran < 6 {
		t.Fatalf("only %d blocks of the guide are marked to be run", ran)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, "bash", "-eu", "-o", "pipefail", "-c", script)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "REPOSITORY="+top)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 20 * time.Second
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("the guide does not work: %v\n%s", err, out)
	}
	for _, want := range []string{"Hello, Ada", `"text":"Hello, Grace"`, `"text":"Hello, curl"`, "greeter"} {
		if !bytes.Contains(bytes.ReplaceAll(out, []byte(`": "`), []byte(`":"`)), []byte(want)) {
			t.Errorf("the guide did not print %s:\n%s", want, out)
		}
	}
}

// prelude makes the guide's directory: the parts of the repository that it names, so
// that what it writes does not end up there.
const prelude = `
for name in examples server internal api Makefile go.mod go.sum go.work; do ln -s "$REPOSITORY/$name" .; done
for file in "$REPOSITORY"/*.go "$REPOSITORY"/go.work.sum; do [ -e "$file" ] && ln -s "$file" .; done
children=()
finish() {
	for pid in "${children[@]}"; do kill -TERM "$pid" 2>/dev/null || true; done
	wait
}
trap finish EXIT
make() { [ "$1" = build ]; mkdir -p bin; CGO_ENABLED=0 go build -C "$REPOSITORY/server" -o "$PWD/bin/telford" ./cmd/telford; }
go() { # go run leaves its child behind when it is killed
	if [ "$1" = run ]; then
		command go build -C "$REPOSITORY" -o "$PWD/bin/${2##*/}" "$2"
		set -- "${@:2}"
		"$PWD/bin/${1##*/}" "${@:2}"
	else
		command go "$@"
	fi
}
background() {
	local log=background-${#children[@]}.log
	if [ "$1" = go ]; then
		command go build -C "$REPOSITORY" -o "$PWD/bin/${3##*/}" "$3"
		set -- "$PWD/bin/${3##*/}" "${@:4}"
	fi
	"$@" >"$log" 2>"$log.err" &
	local pid=$!
	children+=("$pid")
	for _ in $(seq 300); do
		if [ -s "$log" ]; then
			# The addresses of the guide are those of a machine where nothing else runs.
			if grep -q '^ready' "$log"; then
				grpc=$(sed -n 's/.* grpc=\([^ ]*\).*/\1/p' "$log")
				http=$(sed -n 's/.* http=\([^ ]*\).*/\1/p' "$log")
			fi
			return
		fi
		kill -0 "$pid" || { cat "$log.err" >&2; return 1; }
		sleep 0.1
	done
	cat "$log.err" >&2
	return 1
}
`

// free puts the ports that were found in the place of the guide's, which may be taken.
func free(text string) string {
	text = strings.ReplaceAll(text, "telford serve --dev --data .telford", "telford serve --dev --data .telford --grpc 127.0.0.1:0 --http 127.0.0.1:0")
	text = strings.ReplaceAll(text, "127.0.0.1:14445", "$grpc")
	return strings.ReplaceAll(text, "127.0.0.1:14444", "$http")
}
