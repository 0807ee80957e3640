// Command telford is the program: the runtime by `telford serve`, and one command per
// noun that talks to a running one. The command line is here and nothing else: what it
// does is done by the runtime, reached through its public API. `serve` runs the
// runtime's goroutines; the other commands start none that outlive them.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(run()) }

// run is main without the exit.
func run() int {
	a := &app{
		stdin: os.Stdin, stdout: os.Stdout, stderr: os.Stderr,
		getenv: os.Getenv, environ: os.Environ,
	}
	// A limit on the size of files is to fail a write, as a full disk does and as the store
	// survives, and never to end the process, whatever the default for the signal is.
	signal.Ignore(syscall.SIGXFSZ)
	if len(os.Args) > 1 && os.Args[1] == "serve" {
		// serve has its own way with signals: the first drains, the second ends.
		signals := make(chan os.Signal, 2)
		signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
		defer signal.Stop(signals)
		a.signals = signals
		return a.run(context.Background(), os.Args[1:])
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	return a.run(ctx, os.Args[1:])
}
