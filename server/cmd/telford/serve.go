package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"telford.dev/telford/server/runtime"
)

func (a *app) serveCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "serve",
		Short: "Run the runtime",
		Long: "Run the runtime until SIGTERM or SIGINT: the first drains, a second ends at once.\n" +
			"One line on stdout says that it is ready and where it listens; logs go to stderr.\n" +
			"Each flag can also be given in the environment or in a YAML file (--config); an\n" +
			"address of off closes its door, port 0 takes a free one.\n\n" +
			"TELFORD_CLUSTER_SECRET, in the environment only, is the secret that wraps the keys\n" +
			"of the cluster: at least 16 characters, required with PostgreSQL.",
		Example: "  telford serve --dev\n  telford serve --data /var/lib/telford --http-plain=proxy",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := a.loadConfig(c.Flags())
			if err != nil {
				return err
			}
			if show, _ := c.Flags().GetBool("print-config"); show {
				_, err := fmt.Fprint(a.stdout, cfg)
				return err
			}
			return a.serve(c.Context(), cfg)
		},
	}
	settingFlags(c.Flags())
	return alone(c)
}

// serve runs a runtime until a signal or until a part of it ends.
func (a *app) serve(ctx context.Context, cfg runtime.Config) error {
	log := cfg.NewLogger(a.stderr)
	cfg.Log = log
	rt, err := runtime.New(cfg)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	started := make(chan error, 1)
	go func() { started <- rt.Start(ctx) }()
	select {
	case err := <-started:
		if err != nil {
			return err
		}
	case s := <-a.signals:
		log.Info("stopping before the start was done", "signal", s.String())
		cancel()
		if err := <-started; err == nil {
			return a.drain(ctx, rt, s)
		}
		return nil
	}
	if cfg.Dev {
		a.banner(rt)
	}
	if _, err := fmt.Fprintln(a.stdout, readyLine(rt)); err != nil {
		return errors.Join(fmt.Errorf("write the ready line: %w", err), rt.Stop(context.WithoutCancel(ctx)))
	}
	select {
	case <-rt.Done():
		return rt.Err()
	case s := <-a.signals:
		return a.drain(ctx, rt, s)
	case <-ctx.Done():
		return rt.Stop(context.WithoutCancel(ctx))
	}
}

// drain stops the runtime; a further signal ends the wait.
func (a *app) drain(ctx context.Context, rt *runtime.Runtime, first os.Signal) error {
	rt.Log().Info("draining; a second signal ends at once", "signal", first.String())
	stopped := make(chan error, 1)
	ctx = context.WithoutCancel(ctx)
	go func() { stopped <- rt.Stop(ctx) }()
	select {
	case err := <-stopped:
		return err
	case s := <-a.signals:
		return fmt.Errorf("ended at once by a second signal (%s): calls in flight were cut", s)
	}
}

// readyLine names the doors that are open.
func readyLine(rt *runtime.Runtime) string {
	line := []string{"ready"}
	for _, d := range rt.Doors() {
		line = append(line, d.Name+"="+d.Addr)
	}
	return strings.Join(line, " ")
}

func (a *app) banner(rt *runtime.Runtime) {
	fmt.Fprintf(a.stderr, "\n  telford --dev: for one developer's machine. Whoever can reach 127.0.0.1 and read\n"+
		"  %s may be any service; HTTP is not encrypted.\n"+
		"  Services:  export TELFORD_SERVER=%s TELFORD_KEY=$(cat %s)\n"+
		"  Commands:  export TELFORD_DATA=%s\n\n",
		rt.Path("dev.key"), rt.GRPCAddr(), rt.Path("dev.key"), filepath.Dir(rt.Path("dev.key")))
}
