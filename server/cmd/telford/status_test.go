package main

import (
	"bytes"
	"context"
	"net"
	"strings"
	"testing"

	"telford.dev/telford/server/telfordtest"
)

// command runs one command line in this process.
func command(ctx context.Context, env map[string]string, args ...string) (status int, stdout, stderr string) {
	var out, err bytes.Buffer
	a := &app{
		stdin: strings.NewReader(""), stdout: &out, stderr: &err,
		getenv:  func(name string) string { return env[name] },
		environ: func() []string { return nil },
	}
	status = a.run(ctx, args)
	return status, out.String(), err.String()
}

func TestExitStatus(t *testing.T) {
	t.Parallel()
	srv := telfordtest.Start(t)
	env := map[string]string{"TELFORD_DATA": srv.Data(), "TELFORD_HTTP": srv.HTTP()}
	used, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer used.Close()
	for _, c := range []struct {
		args   string
		status int
	}{
		{"version", 0},
		{"--help", 0},
		{"keys list", 0},
		{"keys create --service payments", 0},
		{"services list --json", 0},
		{"", 2},
		{"fly", 2},
		{"keys", 2},
		{"keys fly", 2},
		{"keys list extra", 2},
		{"keys list --colour red", 2},
		{"keys create", 2},
		{"keys create --service x --ttl soon", 2},
		{"keys list --page-size 5000", 2},
		{"call payments", 2},
		{"call payments charge {", 2},
		{"keys list --server not-an-address", 2},
		{"serve --bus :9900", 2},
		{"serve --ipc /run/x.sock", 2},
		{"serve --dev --grpc 0.0.0.0:1", 2},
		{"serve --config /nothing.yaml", 2},
		{"serve --log-level loud", 2},
		{"keys revoke key_unknown", 1},
		{"services get nobody", 1},
		{"call nobody charge", 1},
		{"keys list --server http://127.0.0.1:1", 1},
		{"keys list --token wrong", 1},
		{"serve --dev --http 127.0.0.1:0 --data " + t.TempDir() + " --grpc " + used.Addr().String(), 1},
	} {
		status, _, stderr := command(t.Context(), env, strings.Fields(c.args)...)
		if status != c.status {
			t.Errorf("telford %s: status %d, want %d\n%s", c.args, status, c.status, stderr)
		}
		if (status != 0) != strings.HasPrefix(stderr[strings.LastIndex(stderr, "telford: ")+1:], "elford: ") {
			t.Errorf("telford %s: status %d and stderr %q", c.args, status, stderr)
		}
	}
}
