//go:build !race && linux

package main

import (
	"fmt"
	"os"
	"testing"
	"time"
)

// TestServeIsLight holds two promises of the program: ready within 0.3 s of its start
// and below 60 MiB of memory when idle. The best of several starts counts, because a
// busy machine says nothing about the program; the race detector, which multiplies
// both, leaves the test out.
func TestServeIsLight(t *testing.T) {
	const (
		start  = 300 * time.Millisecond
		memory = 60 << 10 // KiB
	)
	best, least := time.Hour, 1<<30
	for range 10 {
		began := time.Now()
		p := serve(t, nil, "--dev", "--data", t.TempDir())
		best = min(best, time.Since(began))
		least = min(least, resident(t, p.cmd.Process.Pid))
		p.terminate(t)
		if code := p.status(t); code != 0 {
			t.Fatalf("status %d", code)
		}
		if best < start && least < memory {
			return
		}
	}
	t.Errorf("the quickest of 10 starts took %s, the smallest idle process has %d KiB", best, least)
}

// resident is the memory of a process in KiB.
func resident(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	var size, pages int
	if _, err := fmt.Sscan(string(text), &size, &pages); err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize() / 1024
}
