package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
)

// app is one run of the command line with everything it takes from its process.
type app struct {
	stdin   io.Reader
	stdout  io.Writer
	stderr  io.Writer
	getenv  func(string) string
	environ func() []string
	signals <-chan os.Signal

	global  globalFlags
	alarmed bool // the alarms of the runtime were asked for
	started bool // a command has begun: its arguments were right
}

// globalFlags are the flags of every command that talks to a runtime.
type globalFlags struct {
	server    string
	token     string
	data      string
	ca        string
	namespace string
	json      bool
	noBanner  bool
}

// usageError is a command line that cannot be run.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// The exit statuses.
const (
	exitDone   = 0
	exitFailed = 1
	exitUsage  = 2
)

// run runs one command line and returns the exit status.
func (a *app) run(ctx context.Context, args []string) int {
	root := a.root() //nolint:contextcheck // commands get theirs from ExecuteContext
	root.SetArgs(args)
	root.SetIn(a.stdin)
	root.SetOut(a.stdout)
	root.SetErr(a.stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return exitDone
	}
	own, hasOwn := errors.AsType[*exitStatus](err)
	if hasOwn && own.err == nil {
		return own.code
	}
	fmt.Fprintln(a.stderr, "telford:", err)
	if hasOwn {
		return own.code
	}
	var usage usageError
	if errors.As(err, &usage) || !a.started {
		return exitUsage
	}
	return exitFailed
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:           "telford",
		Short:         "The backbone of a set of services",
		Long:          "telford runs the backbone of a set of services (telford serve) and administers it.",
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.NoArgs,
		PersistentPreRun: func(*cobra.Command, []string) {
			a.started = true
		},
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
	}
	f := root.PersistentFlags()
	f.StringVar(&a.global.namespace, "namespace", a.getenv("TELFORD_NAMESPACE"), "namespace (TELFORD_NAMESPACE)")
	f.BoolVar(&a.global.json, "json", false, "print what the API answered")
	root.AddCommand(
		a.serveCommand(), a.keysCommand(), a.namespacesCommand(), a.servicesCommand(),
		a.callCommand(), a.streamCommand(), a.configCommand(), a.feedCommand(), a.idempotencyCommand(), a.limitsCommand(), a.policyCommand(), a.transportCommand(), a.pkiCommand(), a.alarmsCommand(), a.wrapCommand(), a.versionCommand(), a.completionCommand(root),
	)
	for _, c := range root.Commands() {
		if c.Name() != "serve" && c.Name() != "completion" && c.Name() != "wrap" {
			a.clientFlags(c)
		}
	}
	strict(root)
	return root
}

// clientFlags adds what a command needs to find and enter a runtime.
func (a *app) clientFlags(c *cobra.Command) {
	f := c.PersistentFlags()
	f.StringVar(&a.global.server, "server", a.getenv("TELFORD_HTTP"), "HTTP address of the runtime (TELFORD_HTTP)")
	f.StringVar(&a.global.token, "token", "", "credential: the operator's token, or a service key for calls (TELFORD_TOKEN; default: admin.token of --data)")
	f.StringVar(&a.global.data, "data", a.dataDefault(), "data directory of a runtime on this host (TELFORD_DATA)")
	f.StringVar(&a.global.ca, "ca", "", "PEM file with the root that signs the runtime's certificate (default: ca.crt of --data)")
	f.BoolVar(&a.global.noBanner, "no-banner", a.getenv("TELFORD_NO_BANNER") != "", "do not show the alarms of the runtime on stderr (TELFORD_NO_BANNER)")
}

func (a *app) dataDefault() string {
	if dir := a.getenv("TELFORD_DATA"); dir != "" {
		return dir
	}
	return ".telford"
}

// strict makes every group of commands refuse what it does not know, and every wrong
// flag name the way out.
func strict(c *cobra.Command) {
	c.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		return usagef("%w\nRun '%s --help' for the flags.", err, c.CommandPath())
	})
	if c.HasSubCommands() && c.RunE == nil {
		c.Args = cobra.ArbitraryArgs
		c.RunE = func(c *cobra.Command, args []string) error {
			if len(args) == 0 {
				_ = c.Help()
				return usagef("%s: say which command", c.CommandPath())
			}
			return usagef("unknown command %q for %q\nRun '%s --help' for the commands.", args[0], c.CommandPath(), c.CommandPath())
		}
	}
	for _, sub := range c.Commands() {
		strict(sub)
	}
}

// args wraps a check of cobra so that its error shows how the command is used.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(c *cobra.Command, given []string) error {
		if err := check(c, given); err != nil {
			return usagef("%w\nUsage: %s", err, c.UseLine())
		}
		return nil
	}
}

func (a *app) completionCommand(root *cobra.Command) *cobra.Command {
	return alone(&cobra.Command{
		Use:       "completion bash|zsh|fish|powershell",
		Short:     "Print the completion script of a shell",
		Example:   "  source <(telford completion bash)",
		ValidArgs: []string{"bash", "zsh", "fish", "powershell"},
		Args:      args(cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs)),
		RunE: func(_ *cobra.Command, given []string) error {
			switch given[0] {
			case "bash":
				return root.GenBashCompletionV2(a.stdout, true)
			case "zsh":
				return root.GenZshCompletion(a.stdout)
			case "fish":
				return root.GenFishCompletion(a.stdout, true)
			default:
				return root.GenPowerShellCompletionWithDesc(a.stdout)
			}
		},
	})
}
