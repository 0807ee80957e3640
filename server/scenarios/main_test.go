package scenarios

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// program is the path of the telford binary under test.
var program string

// soak says that the scenarios run at their whole size.
var soak = os.Getenv("TELFORD_SOAK") == "1"

// TestMain builds the program, or, in a process that a test has started, is a worker.
func TestMain(m *testing.M) {
	if spec := os.Getenv(workerEnv); spec != "" {
		os.Exit(work(spec))
	}
	flag.Parse()
	os.Exit(run(m))
}

func run(m *testing.M) int {
	dir, err := os.MkdirTemp("", "telford-scenarios-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program = filepath.Join(dir, "telford")
	build := exec.Command("go", "build", "-o", program, "../cmd/telford")
	build.Stdout, build.Stderr = os.Stderr, os.Stderr
	if err := build.Run(); err != nil {
		fmt.Fprintln(os.Stderr, "build the program:", err)
		return 1
	}
	// Most scenarios wait for timers, not for a processor.
	if p := flag.Lookup("test.parallel"); p != nil && p.Value.String() == p.DefValue {
		_ = flag.Set("test.parallel", "4") // it is a number
	}
	code := m.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, "goroutines were left behind:", err)
		return 1
	}
	return code
}

// alone lets a scenario run beside others while it is small. Whole, it takes the machine to
// itself, and those that come after it wait.
func alone(t *testing.T) {
	t.Helper()
	if !soak {
		t.Parallel()
	}
}

// size is whole in a soak, else small.
func size[T any](small, whole T) T {
	if soak {
		return whole
	}
	return small
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// within polls until ok, for at most limit, and returns how long it took.
func within(t testing.TB, limit time.Duration, what string, ok func() bool) time.Duration {
	t.Helper()
	start := time.Now()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Since(start) > limit {
			t.Fatalf("%s: not within %v", what, limit)
		}
		<-tick.C
	}
	return time.Since(start).Round(time.Millisecond)
}

// during lets load go on for d, while watch, if not nil, is asked again and again.
func during(d time.Duration, watch func()) {
	end := time.NewTimer(d)
	defer end.Stop()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-end.C:
			return
		case <-tick.C:
			if watch != nil {
				watch()
			}
		}
	}
}
