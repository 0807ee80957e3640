package main

import (
	"fmt"
	"os"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"
)

// TestMain puts this very program into the PATH of the tests as `telford`.
func TestMain(m *testing.M) {
	testscript.Main(leakFree{m}, map[string]func(){"telford": func() { os.Exit(run()) }})
}

// leakFree fails a run of tests that leaves goroutines behind.
type leakFree struct{ *testing.M }

func (m leakFree) Run() int {
	code := m.M.Run()
	if err := goleak.Find(); err != nil && code == 0 {
		fmt.Fprintln(os.Stderr, "goroutines were left behind:", err)
		return 1
	}
	return code
}
