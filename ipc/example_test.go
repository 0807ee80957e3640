package ipc_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"telford.dev/telford/ipc"
)

// A gateway and two services on it. As a rule each is a process of its own.
func Example() {
	dir, err := os.MkdirTemp("", "ipc")
	if err != nil {
		slog.Error("example", "error", err)
		return
	}
	defer os.RemoveAll(dir)
	path, ctx := filepath.Join(dir, "gateway.sock"), context.Background()

	gateway := ipc.NewGateway(ipc.GatewayConfig{SocketPath: path})
	users, err := ipc.NewClient(ipc.ClientConfig{ServiceName: "users", GatewayPath: path})
	if err != nil {
		slog.Error("example", "error", err)
		return
	}
	orders, err := ipc.NewClient(ipc.ClientConfig{ServiceName: "orders", GatewayPath: path, Serializer: ipc.Msgpack})
	if err != nil {
		slog.Error("example", "error", err)
		return
	}
	ipc.Handle(users, "name", func(_ context.Context, id int) (string, error) {
		if id != 7 {
			return "", ipc.Errorf("NO_SUCH_USER", "there is no user %d", id)
		}
		return "Ada", nil
	})
	for _, start := range []func(context.Context) error{gateway.Start, users.Connect, orders.Connect} {
		if err := start(ctx); err != nil {
			slog.Error("example", "error", err)
			return
		}
	}
	var name string
	fmt.Println(orders.Call(ctx, "users", "name", 7, &name), name)
	fmt.Println(orders.Call(ctx, "users", "name", 8, &name))
	for _, stop := range []func() error{orders.Disconnect, users.Disconnect, gateway.Stop} {
		if err := stop(); err != nil {
			slog.Error("example", "error", err)
		}
	}
	// Output:
	// <nil> Ada
	// call users.name: there is no user 8 (NO_SUCH_USER)
}
