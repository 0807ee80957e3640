package main

import (
	"strconv"
	"strings"
	"testing"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/server/internal/registry"
	"telford.dev/telford/server/telfordtest"
)

// TestDrainGoesOnUntilItIsUndone is what the help of the command says.
func TestDrainGoesOnUntilItIsUndone(t *testing.T) {
	t.Parallel()
	srv := telfordtest.Start(t)
	version := 0
	register := func() {
		t.Helper()
		version++
		owner := registry.Owner{Namespace: "default", Instance: "in-1", Service: "payments", Door: "link"}
		d := &catalog.Declaration{Version: strconv.Itoa(version)} // another one each time
		if _, _, err := srv.Runtime().Registry().Register(t.Context(), owner, d); err != nil {
			t.Fatal(err)
		}
	}
	run := func(args ...string) {
		t.Helper()
		var out lockedBuffer
		a := &app{
			stdin: strings.NewReader(""), stdout: &out, stderr: &out,
			getenv: func(name string) string { return map[string]string{"TELFORD_DATA": srv.Data()}[name] }, environ: func() []string { return nil },
		}
		if status := a.run(t.Context(), args); status != exitDone {
			t.Fatalf("%v: status %d: %s", args, status, &out)
		}
	}
	want := func(draining bool) {
		t.Helper()
		if i, err := srv.Runtime().Registry().Get("default", "in-1"); err != nil || i.Draining != draining {
			t.Errorf("want draining %t: %+v, %v", draining, i, err)
		}
	}
	register()
	run("services", "drain", "in-1")
	want(true)
	register()
	want(true)
	srv.Restart(t)
	want(true)
	run("services", "drain", "in-1", "--undo")
	want(false)
}
