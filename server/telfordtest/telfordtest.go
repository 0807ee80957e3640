// Package telfordtest runs a whole runtime inside a Go test: the real doors on free
// loopback ports, the real store in a directory of the test, in one line and well under
// 100 ms. Nothing of it is a fake, so that what passes here passes against
// `telford serve`.
//
//	srv := telfordtest.Start(t)
//	svc, err := telford.New("payments", telford.WithServer(srv.Addr()), telford.WithKey(srv.Key(t, "payments")))
//
// A Server owns its runtime, which ends with the test; the package starts no other
// goroutines.
package telfordtest

import (
	"context"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"telford.dev/telford/server/internal/identity"
	"telford.dev/telford/server/runtime"
)

// stopTime bounds an orderly stop.
const stopTime = 10 * time.Second

// Server is a runtime under test. Its methods are for the goroutine of the test.
type Server struct {
	cfg     runtime.Config
	current *runtime.Runtime
}

// Start starts a runtime and stops it at the end of the test. A failure to start ends
// the test.
func Start(t testing.TB, opts ...Option) *Server {
	t.Helper()
	s := &Server{cfg: runtime.Config{
		GRPC: "127.0.0.1:0", HTTP: "127.0.0.1:0", HTTPPlain: "on", Fast: true,
		DrainTimeout: stopTime, Log: slog.New(slog.DiscardHandler),
	}}
	for _, o := range opts {
		o(&s.cfg)
	}
	if s.cfg.Data == "" {
		s.cfg.Data = t.TempDir()
		if s.cfg.Fast && s.cfg.Database == "" && s.cfg.Vault == nil {
			s.cfg.Vault = &identity.MemoryVault{} // nobody else opens this directory
		}
	}
	s.start(t)
	t.Cleanup(func() { s.Stop(t) })
	return s
}

// start starts a new runtime with the settings of the server.
func (s *Server) start(t testing.TB) {
	t.Helper()
	rt, err := runtime.New(s.cfg)
	if err != nil {
		t.Fatalf("telfordtest: %v", err)
	}
	if err := rt.Start(context.Background()); err != nil {
		t.Fatalf("telfordtest: start: %v", err)
	}
	s.current = rt
	// The next one has the same addresses.
	s.cfg.GRPC, s.cfg.HTTP = orOff(rt.GRPCAddr()), orOff(rt.HTTPAddr())
}

func orOff(addr string) string {
	if addr == "" {
		return runtime.Off
	}
	return addr
}

// Addr is the address of the door for links and gRPC: what TELFORD_SERVER holds.
func (s *Server) Addr() string { return s.current.GRPCAddr() }

// HTTP is the URL of the HTTP door, without a slash at its end: what TELFORD_HTTP
// holds. It is plain HTTP unless the server was started with TLS.
func (s *Server) HTTP() string { return s.current.HTTPURL() }

// Data is the data directory; it stays the same over Restart.
func (s *Server) Data() string { return s.cfg.Data }

// CA is the path of a PEM file with the root that signs every certificate here.
func (s *Server) CA() string { return filepath.Join(s.cfg.Data, "ca.crt") }

// AdminToken is the operator's token.
func (s *Server) AdminToken() string { return s.current.Authority().OperatorToken() }

// Key makes a service key in namespace "default" and returns its text: what TELFORD_KEY
// holds.
func (s *Server) Key(t testing.TB, service string) string {
	t.Helper()
	return s.KeyIn(t, identity.DefaultNamespace, service)
}

// KeyIn is Key in another namespace, which is made if there is none.
func (s *Server) KeyIn(t testing.TB, namespace, service string) string {
	t.Helper()
	ctx := context.Background()
	if _, err := s.current.Authority().EnsureNamespace(ctx, namespace, 0); err != nil {
		t.Fatalf("telfordtest: namespace %q: %v", namespace, err)
	}
	_, text, err := s.current.Authority().CreateKey(ctx, identity.CreateKey{
		Namespace: namespace, Service: service, Kind: identity.KindService, Name: t.Name(), Author: author,
	})
	if err != nil {
		t.Fatalf("telfordtest: key for %q: %v", service, err)
	}
	return text
}

// Env is the environment in which a process of a service finds the runtime, for
// exec.Cmd.Env: TELFORD_SERVER, TELFORD_HTTP, TELFORD_KEY.
func (s *Server) Env(t testing.TB, service string) []string {
	t.Helper()
	return []string{"TELFORD_SERVER=" + s.Addr(), "TELFORD_HTTP=" + s.HTTP(), "TELFORD_KEY=" + s.Key(t, service)}
}

// Runtime is the runtime that runs now; Restart replaces it.
func (s *Server) Runtime() *runtime.Runtime { return s.current }

// Stop stops the runtime as SIGTERM does: calls finish, instances are told. It is safe
// more than once.
func (s *Server) Stop(t testing.TB) {
	t.Helper()
	if err := s.current.Stop(context.Background()); err != nil {
		t.Errorf("telfordtest: stop: %v", err)
	}
}

// Kill ends the runtime as a crash would: connections break off and nobody is told.
// What was answered before is in the store.
func (s *Server) Kill(t testing.TB) {
	t.Helper()
	s.current.Abort()
}

// Restart starts the runtime again with the same data on the same addresses, stopping
// it first unless Stop or Kill has.
func (s *Server) Restart(t testing.TB) {
	t.Helper()
	s.Stop(t)
	s.start(t)
}
