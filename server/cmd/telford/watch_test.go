package main

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/server/internal/config"
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

// TestFollowsConfigurationAndFeed: both print what there is, and what happens meanwhile.
func TestFollowsConfigurationAndFeed(t *testing.T) {
	t.Parallel()
	srv := telfordtest.Start(t)
	values := srv.Runtime().Config()
	set := func(id, text string) {
		t.Helper()
		if _, _, err := values.Set(t.Context(), "default", id, config.Input{Value: text}, config.Cond{}, "anna"); err != nil {
			t.Fatal(err)
		}
	}
	set("/prod/first", "1")
	set("elsewhere", "2")
	all, cancel := context.WithCancel(t.Context())
	defer cancel()
	var finish []func()
	for name, c := range map[string]struct{ args, before, after []string }{
		"config watch": {
			[]string{"config", "watch", "/prod/"},
			[]string{"= what there is", `= 1 /prod/first "1"`},
			[]string{`+ 3 /prod/second "3" (anna)`, `- 4 /prod/first (bob)`},
		},
		"config watch --after": {
			[]string{"config", "watch", "--after", "1"},
			[]string{`+ 2 elsewhere "2" (anna)`},
			[]string{`+ 3 /prod/second "3" (anna)`, `- 4 /prod/first (bob)`},
		},
		"feed --follow": {
			[]string{"feed", "--follow", "--since", "1h"},
			[]string{`"configuration_value_id":"elsewhere"`},
			[]string{`"configuration_value_id":"/prod/second"`, "configuration_value.remove "},
		},
	} {
		ctx, cancel := context.WithTimeout(all, patience)
		var stdout, stderr lockedBuffer
		a := &app{
			stdin: strings.NewReader(""), stdout: &stdout, stderr: &stderr,
			getenv: func(name string) string { return map[string]string{"TELFORD_DATA": srv.Data()}[name] }, environ: func() []string { return nil },
		}
		done := make(chan int, 1)
		go func() { done <- a.run(ctx, c.args) }()
		for _, want := range c.before {
			waitFor(t, &stdout, want)
		}
		finish = append(finish, func() {
			for _, want := range c.after {
				waitFor(t, &stdout, want)
			}
			cancel()
			if status, _ := receive(t, done); status != exitDone {
				t.Errorf("%s: status %d: %s", name, status, &stderr)
			}
			if strings.HasSuffix(name, "watch") && strings.Contains(stdout.String(), "elsewhere") {
				t.Errorf("%s shows what has another prefix:\n%s", name, &stdout)
			}
		})
	}
	set("/prod/second", "3")
	if _, err := values.Remove(t.Context(), "default", "/prod/first", config.Cond{}, "bob"); err != nil {
		t.Fatal(err)
	}
	for _, f := range finish {
		f()
	}
}
