package ipc

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// startGateway starts a gateway on a socket of its own.
func startGateway(t testing.TB, cfg GatewayConfig) *Gateway {
	t.Helper()
	if cfg.SocketPath == "" {
		cfg.SocketPath = filepath.Join(t.TempDir(), "g.sock")
	}
	g := NewGateway(cfg)
	if err := g.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := g.Stop(); err != nil {
			t.Error(err)
		}
	})
	return g
}

// connect connects a client with the given methods.
func connect(t testing.TB, g *Gateway, cfg ClientConfig, methods map[string]Handler) *Client {
	t.Helper()
	cfg.GatewayPath = g.cfg.SocketPath
	c, err := NewClient(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for name, h := range methods {
		c.RegisterMethod(name, h)
	}
	if err := c.Connect(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Disconnect(); err != nil {
			t.Error(err)
		}
		eventually(t, func() bool { return c.handling.Load() == 0 })
	})
	return c
}

// eventually waits until ok.
func eventually(t testing.TB, ok func() bool) {
	t.Helper()
	limit := time.Now().Add(10 * time.Second)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		if time.Now().After(limit) {
			t.Fatal("it did not come to that within 10 s")
		}
		<-tick.C
	}
}

func echo(_ context.Context, p Params) (any, error) {
	var v any
	err := p.Decode(&v)
	return v, err
}
