package main

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"telford.dev/telford"
	"telford.dev/telford/server/internal/store/storetest"
	"telford.dev/telford/server/runtime"
	"telford.dev/telford/server/telfordtest"
)

// TestRecover: a cluster whose every certificate ended years ago, on each engine with its
// own kind of vault, comes back by one command, and services come in by their old keys.
func TestRecover(t *testing.T) {
	t.Parallel()
	for name, database := range map[string]func(*testing.T) string{
		"sqlite": func(*testing.T) string { return "" }, "postgres": func(t *testing.T) string { return storetest.Postgres(t) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := database(t)
			data := t.TempDir()
			opts := func(more ...telfordtest.Option) []telfordtest.Option {
				return append([]telfordtest.Option{
					telfordtest.WithDatabase(url), telfordtest.With(func(cfg *runtime.Config) { cfg.Data = data }),
				}, more...)
			}
			// All of this happened nine years ago.
			past := telfordtest.NewClock(time.Now().Add(-9 * 365 * 24 * time.Hour))
			srv := telfordtest.Start(t, opts(telfordtest.WithCertificateClock(past), telfordtest.CertificateLives(72*time.Hour, 48*time.Hour, 24*time.Hour))...)
			key := srv.Key(t, "payments")
			args := []string{"pki", "recover", "--data", data, "--database", url, "--leaf-life", "24h"}
			env := map[string]string{"TELFORD_CLUSTER_SECRET": ""}
			if url != "" {
				env["TELFORD_CLUSTER_SECRET"] = "telfordtest telfordtest telfordtest"
			}
			if status, _, stderr := command(t.Context(), env, args...); status != exitFailed || !strings.Contains(stderr, "is in use by process") {
				t.Errorf("while the runtime runs: %d\n%s", status, stderr)
			}
			srv.Stop(t)

			rt, err := runtime.New(runtime.Config{Data: data, Database: url, ClusterSecret: env["TELFORD_CLUSTER_SECRET"], GRPC: "127.0.0.1:0", HTTP: "off"})
			if err != nil {
				t.Fatal(err)
			}
			if err := rt.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "telford pki recover") {
				t.Fatalf("started with everything expired: %v", err)
			}
			status, stdout, stderr := command(t.Context(), env, append(args, "--json")...)
			if status != exitDone {
				t.Fatalf("status %d\n%s", status, stderr)
			}
			var out recovery
			if err := json.Unmarshal([]byte(stdout), &out); err != nil || !out.KeysGood || len(out.Done) < 3 || len(out.Next) < 2 ||
				!out.RootNotAfter.After(time.Now().Add(9*365*24*time.Hour)) {
				t.Fatalf("%s\n%v", stdout, err)
			}
			text, err := os.ReadFile(filepath.Join(data, "ca.crt"))
			if err != nil {
				t.Fatal(err)
			}
			block, rest := pem.Decode(text)
			if cert, err := x509.ParseCertificate(block.Bytes); err != nil || len(rest) > 0 || !cert.NotAfter.Equal(out.RootNotAfter) {
				t.Errorf("ca.crt holds %v, %v, and %d bytes more", cert, err, len(rest))
			}
			if status, _, stderr := command(t.Context(), env, args...); status != exitFailed || !strings.Contains(stderr, "nothing to recover") {
				t.Errorf("a second time: %d\n%s", status, stderr)
			}

			again := telfordtest.Start(t, opts()...)
			s, err := telford.New("payments", telford.WithServer(again.Addr()), telford.WithKey(key))
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			if err := s.Start(ctx); err != nil {
				t.Errorf("a service with its old key: %v", err)
			}
			if err := s.Stop(ctx); err != nil {
				t.Error(err)
			}
		})
	}
}
