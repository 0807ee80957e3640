package alarm

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"telford.dev/telford/internal/clock"
)

var noon = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func TestBoard(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	now := clock.NewManual(noon)
	b := New(now, slog.New(slog.NewTextHandler(&log, nil)))
	if got := b.List(); len(got) != 0 {
		t.Fatalf("a new board shows %v", got)
	}
	b.Raise("disk", Warning, "the disk is nearly full")
	now.Advance(time.Minute)
	b.Raise("disk", Warning, "the disk is nearly full") // says nothing new
	b.Raise("clock", Critical, "the clock is wrong")
	b.Raise("odd", "loud", "unknown severities are the worst")
	now.Advance(time.Minute)
	b.Raise("disk", Critical, "the disk is full")
	want := []Alarm{
		{Code: "disk", Severity: Critical, Message: "the disk is full", Since: noon},
		{Code: "clock", Severity: Critical, Message: "the clock is wrong", Since: noon.Add(time.Minute)},
		{Code: "odd", Severity: Critical, Message: "unknown severities are the worst", Since: noon.Add(time.Minute)},
	}
	if d := cmp.Diff(want, b.List()); d != "" {
		t.Fatal(d)
	}
	b.Raise("disk", Warning, "the disk is nearly full")
	if got := b.List(); got[2].Code != "disk" || !got[2].Since.Equal(noon) {
		t.Fatalf("the lesser alarm does not come last, or is new: %v", got)
	}
	b.Clear("disk")
	b.Clear("disk")
	b.Clear("never")
	if got := b.List(); len(got) != 2 {
		t.Fatalf("after clearing: %v", got)
	}
	b.Raise("disk", Warning, "the disk is nearly full")
	if got := b.List(); !got[2].Since.Equal(noon.Add(2 * time.Minute)) {
		t.Fatalf("an alarm that is raised again after its end is an old one: %v", got)
	}
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	levels := []string{"WARN", "ERROR", "ERROR", "ERROR", "WARN", "WARN", "WARN"}
	if len(lines) != len(levels) {
		t.Fatalf("%d lines, want %d:\n%s", len(lines), len(levels), log.String())
	}
	for i, level := range levels {
		if !strings.Contains(lines[i], "level="+level) {
			t.Errorf("line %d is not a %s: %s", i, level, lines[i])
		}
	}
	if !strings.Contains(lines[5], "alarm=disk") || !strings.Contains(lines[5], "lasted=2m0s") {
		t.Errorf("the end is told as %s", lines[5])
	}
}

func TestNoBoard(t *testing.T) {
	t.Parallel()
	var b *Board
	b.Raise("disk", Critical, "the disk is full")
	b.Clear("disk")
	if got := b.List(); got != nil {
		t.Fatalf("no board shows %v", got)
	}
	New(nil, nil).Raise("disk", Critical, "to nobody")
}

func TestBoardFromManySides(t *testing.T) {
	t.Parallel()
	b := New(nil, nil)
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for j := range 100 {
				b.Raise(fmt.Sprint("code", j%5), Warning, fmt.Sprint(i, j))
				b.List()
				b.Clear(fmt.Sprint("code", (i+j)%5))
			}
		})
	}
	all.Wait()
	for i := range 5 {
		b.Clear(fmt.Sprint("code", i))
	}
	if got := b.List(); len(got) != 0 {
		t.Fatalf("left over: %v", got)
	}
}
