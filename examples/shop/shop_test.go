package main

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// The services of the shop are processes of this program, here of the test binary, so
// that they run under the race detector too.
func TestMain(m *testing.M) {
	if len(os.Args) > 1 && slices.Contains([]string{"orders", "payments", "inventory", "notifications"}, os.Args[1]) {
		main()
		return
	}
	goleak.VerifyTestMain(m)
}

// runtimeProgram builds the telford program.
func runtimeProgram(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "telford")
	cmd := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./cmd/telford")
	cmd.Dir = "../../server"
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("building telford: %v\n%s", err, out)
	}
	return path
}

// orderFileOf takes every order file's first n orders and spoils some lines.
func orderFileOf(t *testing.T, n int) string {
	t.Helper()
	lines := strings.SplitAfterN(string(orderFile), "\n", n+3)[:n+2]
	lines = slices.Insert(lines, 5, "this is no order\n", "A-9,Ann,TEA-EARL-250,many,7.80\n")
	path := filepath.Join(t.TempDir(), "morning.csv")
	if err := os.WriteFile(path, []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

var count = regexp.MustCompile(`(?m)^([a-z ]{14}) (\d+)`)

// The demo, as make runs it: no order is lost although an instance of payments is
// killed, and lines that are no orders are named.
func TestDemo(t *testing.T) {
	t.Parallel()
	var out, stderr bytes.Buffer
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	err := run(ctx, []string{
		"demo", "-telford", runtimeProgram(t), "-orders", orderFileOf(t, 90), "-bank", "20ms", "-payments", "2",
	}, &out, &stderr)
	text := out.String()
	if err != nil {
		t.Fatalf("%v\n%s%s", err, text, stderr.String())
	}
	for _, want := range []string{
		"morning.csv:6: 1 fields, want 5",
		`morning.csv:7: quantity "many"`,
		"payments-2 with kill -9",
		"90/90",
		"left out       2 lines",
		"lost           0 of 90 orders",
		"$ telford services list",
		`"id":"A-10001"`,
		"make demo ARGS=--stay",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("%q is missing in:\n%s", want, text)
		}
	}
	sum := 0
	for _, m := range count.FindAllStringSubmatch(text, -1) {
		if name := strings.TrimSpace(m[1]); name == "confirmed" || name == "refused" {
			var n int
			fmt.Sscan(m[2], &n)
			sum += n
		}
	}
	if sum != 90 {
		t.Errorf("confirmed and refused add up to %d, want 90:\n%s", sum, text)
	}
}

// lineWriter closes found when a line with the text has been written.
type lineWriter struct {
	mu    sync.Mutex
	buf   bytes.Buffer
	text  string
	once  sync.Once
	found chan struct{}
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.buf.Write(p)
	if strings.Contains(w.buf.String(), w.text) {
		w.once.Do(func() { close(w.found) })
	}
	return len(p), nil
}

func TestDemoStaysUntilInterrupted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithTimeout(t.Context(), 90*time.Second)
	defer cancel()
	w := &lineWriter{text: "export TELFORD_SERVER=", found: make(chan struct{})}
	ended := make(chan error, 1)
	args := []string{"demo", "-stay", "-telford", runtimeProgram(t), "-orders", orderFileOf(t, 10), "-bank", "1ms"}
	go func() { ended <- run(ctx, args, w, io.Discard) }()
	select {
	case <-w.found:
		cancel()
	case err := <-ended:
		t.Fatalf("it ended by itself: %v\n%s", err, w.buf.String())
	}
	if err := <-ended; err != nil {
		t.Errorf("after an interrupt: %v", err)
	}
}

func TestWrongCommandLines(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		args string
		want string
	}{
		{"", "shop is a shop"},
		{"sell", `there is no "sell"`},
		{"payments", "-ledger DIR is required"},
		{"orders now", `unexpected argument "now"`},
		{"demo -payments 1", "has to be 2 at least"},
		{"demo -nonsense", "not defined"},
	} {
		var stderr bytes.Buffer
		err := run(t.Context(), strings.Fields(c.args), io.Discard, &stderr)
		if !errors.Is(err, errUsage) || !strings.Contains(stderr.String(), c.want) {
			t.Errorf("shop %s: %v, %q; want wrong usage and %q", c.args, err, stderr.String(), c.want)
		}
	}
	if err := run(t.Context(), []string{"demo", "-help"}, io.Discard, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-help: %v", err)
	}
}

func TestFilesThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty.csv")
	if err := os.WriteFile(empty, []byte("# nothing\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"demo", "-orders", "/nowhere/orders.csv"}, "no such file"},
		{[]string{"demo", "-orders", empty}, "holds no order"},
		{[]string{"demo", "-stock", "orders.csv"}, "orders.csv:3: 5 fields, want 3"},
		{[]string{"demo", "-telford", "/nowhere/telford"}, "no such file"},
		{[]string{"inventory", "-stock", "/nowhere/stock.csv"}, "no such file"},
	} {
		err := run(t.Context(), c.args, io.Discard, io.Discard)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("shop %s: got %v, want %q", strings.Join(c.args, " "), err, c.want)
		}
	}
}
