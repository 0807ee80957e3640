// Command rpc measures what a call costs by Telford and by its peers: raw grpc-go, NATS
// request/reply, and bare frames over TLS as the limit. Client, server and whatever is
// between them are processes of their own, on loopback. It owns these processes, and
// they end with it.
package main

import (
	"context"
	"fmt"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var err error
	if len(os.Args) > 1 && os.Args[1] == roleFlag {
		err = play(ctx, os.Args[2:])
	} else {
		err = run(ctx, os.Args[1:], os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "rpc:", err)
		os.Exit(exitStatus(err))
	}
}
