package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/telfordtest"
)

// TestWatchOfManyInstances: a snapshot that comes in parts is printed as the one that it
// is.
func TestWatchOfManyInstances(t *testing.T) {
	t.Parallel()
	const instances, each = 120, 60 << 10 // three messages
	srv := telfordtest.Start(t)
	for i := range instances {
		owner := registry.Owner{Namespace: "default", Instance: fmt.Sprintf("in-%03d", i), Service: "payments", Door: "link"}
		d := &catalog.Declaration{Metadata: map[string]string{"text": strings.Repeat("m", each)}}
		if _, _, err := srv.Runtime().Registry().Register(t.Context(), owner, d); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var stdout, stderr lockedBuffer
	a := &app{
		stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr,
		getenv: func(name string) string { return map[string]string{"TELFORD_DATA": srv.Data()}[name] }, environ: func() []string { return nil },
	}
	done := make(chan int, 1)
	go func() { done <- a.run(ctx, []string{"services", "watch"}) }()
	waitFor(t, &stdout, fmt.Sprintf("+ payments in-%03d ", instances-1))
	cancel()
	if status, _ := receive(t, done); status != exitDone {
		t.Errorf("status %d: %s", status, &stderr)
	}
	first, rest, _ := strings.Cut(stdout.String(), "\n")
	if !strings.HasPrefix(first, fmt.Sprintf("= %d instances at revision ", instances)) || strings.Contains(first, "revision 0.") {
		t.Errorf("the first line is %q", first)
	}
	if n := strings.Count(rest, "\n+ ") + 1; n != instances || strings.Contains(rest, "= ") {
		t.Errorf("%d lines of instances, want %d", n, instances)
	}
}
