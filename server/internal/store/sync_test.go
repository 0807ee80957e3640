package store_test

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"telford.dev/telford/server/internal/store"
)

// strace returns the words that trace a command into a file, or skips the test.
func strace(t *testing.T, file string, args ...string) []string {
	t.Helper()
	path, err := exec.LookPath("strace")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal("strace is missing: apt-get install strace")
		}
		t.Skip("strace is missing: apt-get install strace")
	}
	return append([]string{path, "-f", "-qq", "-y", "-s", "64", "-e", "signal=none", "-o", file}, args...)
}

var (
	// 123  pwrite64(7</data/telford.db-wal>, "…", 24, 0) = 24
	callLine = regexp.MustCompile(`^(\d+) +(\w+)\((\d+)<([^>]*)>(.*)$`)
	// 123  <... fsync resumed>) = 0
	resumedLine = regexp.MustCompile(`^(\d+) +<\.\.\. (\w+) resumed>.*= (-?\d+)`)
	returned    = regexp.MustCompile(`= (-?\d+)[^=]*$`)
	said        = regexp.MustCompile(`^, "(commit|ack) (in_\w+)`)
)

// TestAnAcknowledgementFollowsItsSync looks at the system calls of a process that
// writes: between the last write to the log and the first word about a batch there is
// a sync of the log that has returned without an error. kill -9 alone would prove
// nothing, since what was written but not synced survives it.
func TestAnAcknowledgementFollowsItsSync(t *testing.T) {
	t.Parallel()
	data, file := t.TempDir(), filepath.Join(t.TempDir(), "trace")
	trace := strace(t, file, "-e", "trace=write,writev,pwrite64,pwritev,fsync,fdatasync,sync_file_range")
	cmd := command(t, "write", trace, dataVariable+"="+data, writersVariable+"=8", eachVariable+"=10")
	if out, err := cmd.Output(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(data, "telford.db-wal")
	dirty := true // the log has writes that are not synced
	pending := map[string]string{}
	committed := map[string]bool{}
	batches, acks, inBatch := 0, 0, false
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		var call, path, rest string
		var done bool
		if m := callLine.FindStringSubmatch(line); m != nil {
			call, path, rest = m[2], m[4], m[5]
			if strings.HasSuffix(rest, "<unfinished ...>") {
				pending[m[1]] = path
			} else {
				done = returned.FindStringSubmatch(rest) != nil && returned.FindStringSubmatch(rest)[1] == "0"
			}
		} else if m := resumedLine.FindStringSubmatch(line); m != nil {
			call, path, done = m[2], pending[m[1]], m[3] == "0"
		}
		switch {
		case path == log && strings.Contains(call, "write"):
			dirty, inBatch = true, false
		case path == log && (call == "fsync" || call == "fdatasync") && done:
			dirty = false
		case call == "write" && rest != "":
			m := said.FindStringSubmatch(rest)
			if m == nil {
				continue
			}
			if m[1] == "ack" {
				if acks++; !committed[m[2]] {
					t.Fatalf("acknowledged before its commit: %s", line)
				}
				continue
			}
			if dirty {
				t.Fatalf("said to be committed, and the log is not synced: %s", line)
			}
			if !inBatch {
				batches, inBatch = batches+1, true
			}
			committed[m[2]] = true
		}
	}
	if acks != 80 || len(committed) != 80 || batches < 2 {
		t.Errorf("the trace has %d acknowledgements of %d commits in %d batches, want 80 of 80", acks, len(committed), batches)
	}
}

// TestADiskThatFailsToSync lets the kernel answer EIO to some syncs of the log: what
// was acknowledged before, between and after them is there.
func TestADiskThatFailsToSync(t *testing.T) {
	t.Parallel()
	data, file := t.TempDir(), filepath.Join(t.TempDir(), "trace")
	if err := openConfig(t, store.Config{Data: data}).Close(); err != nil {
		t.Fatal(err)
	}
	log := filepath.Join(data, "telford.db-wal")
	trace := strace(t, file, "-P", log, "-e", "trace=fsync,fdatasync", "-e", "inject=fsync,fdatasync:error=EIO:when=5+7")
	cmd := command(t, "write", trace, dataVariable+"="+data, writersVariable+"=4", eachVariable+"=40")
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s", err, out.String())
	}
	words := map[string]int{}
	for lines := bufio.NewScanner(bytes.NewReader(out.Bytes())); lines.Scan(); {
		word, _, _ := strings.Cut(lines.Text(), " ")
		words[word]++
	}
	if words["unknown"] == 0 || words["ack"] == 0 {
		t.Errorf("the child said %v, want some outcomes unknown and some acknowledged", words)
	}
	holds(t, openConfig(t, store.Config{Data: data}), acks(t, &out, 0))
}
