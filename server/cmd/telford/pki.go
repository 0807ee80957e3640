package main

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
	"telford.dev/telford/server/runtime"
)

func (a *app) pkiCommand() *cobra.Command {
	c := &cobra.Command{Use: "pki", Short: "Show, replace and recover the certificates by which the cluster trusts"}
	c.AddCommand(a.pkiStatus(), a.pkiRotateRoot(), a.pkiRecover())
	return c
}

func (a *app) pkiStatus() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show roots, issuer and the runtime's certificate, and where a rotation stands",
		Long: "Show roots, issuer and the runtime's own certificate, and where the rotation of the\n" +
			"root stands. A former root is not trusted any more; keys that were printed under it\n" +
			"still provision.",
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			body, err := a.client().get(c.Context(), "/api/v1/pki", nil)
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			return a.printPKI(body)
		},
	}
}

func (a *app) pkiRotateRoot() *cobra.Command {
	var now bool
	c := &cobra.Command{
		Use:   "rotate-root",
		Short: "Begin to replace the root, which then goes on by itself",
		Long: "Begin to replace the root: the next one is distributed, then it signs, then the old\n" +
			"one is retired, each when every certificate has been renewed. Nothing fails\n" +
			"meanwhile, and service keys stay good.\n\n" +
			"With --now the next phase begins at once: a new root signs immediately; said again\n" +
			"while it signs, the old root is retired, and instances that have not renewed lose\n" +
			"their connections until they provision again.",
		Example: "  telford pki rotate-root\n  telford pki rotate-root --now",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			body, err := a.client().post(c.Context(), "/api/v1/pki:rotateRoot", map[string]bool{"now": now})
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			return a.printPKI(body)
		},
	}
	c.Flags().BoolVar(&now, "now", false, "go to the next phase at once")
	return c
}

func (a *app) printPKI(body []byte) error {
	s := &adminv1.PKIStatus{}
	if err := decode(body, s); err != nil {
		return err
	}
	t := newTable("ROLE", "STATE", "SUBJECT", "SERIAL", "SPKI", "NOT AFTER", "DAYS LEFT")
	for _, c := range s.GetCertificates() {
		end, days := when(c.GetNotAfter()), strconv.Itoa(int(c.GetDaysLeft()))
		if c.GetState() == "former" {
			end, days = "", ""
		}
		t.row(c.GetRole(), c.GetState(), c.GetSubject(), brief(c.GetSerial()), brief(c.GetSpki()), end, days)
	}
	if err := a.print(t); err != nil {
		return err
	}
	next := "the next rotation of the root begins at " + when(s.GetRotateAt())
	if s.GetNextAt() != nil {
		next = map[string]string{
			"distributing": "the next root signs from ", "signing": "the old root is retired at ", "retiring": "the old root's private key is destroyed at ",
		}[s.GetPhase()] + when(s.GetNextAt())
	}
	_, err := fmt.Fprintf(a.stdout, "\n%s since %s: %s\n", s.GetPhase(), when(s.GetPhaseSince()), next)
	return err
}

// brief is the beginning of a long hexadecimal number, enough to tell it from others.
func brief(text string) string {
	const enough = 16
	if len(text) > enough {
		return text[:enough]
	}
	return text
}

// recovery is what recover prints with --json.
type recovery struct {
	TrustDomain  string    `json:"trust_domain"`
	RootSPKI     string    `json:"root_spki"`
	RootNotAfter time.Time `json:"root_not_after"`
	KeysGood     bool      `json:"keys_good"`
	Done         []string  `json:"done"`
	Next         []string  `json:"next"`
}

func (a *app) pkiRecover() *cobra.Command {
	c := &cobra.Command{
		Use:   "recover",
		Short: "Make working certificates where all have expired, while the runtime is stopped",
		Long: "Make a new root and issuer where the old ones have expired or their private keys are\n" +
			"lost or damaged. Stop the runtime first, on PostgreSQL every node. It works on the\n" +
			"data directory or the database itself and takes the settings of serve, from flags,\n" +
			"environment and --config.\n\n" +
			"Where the old root's private key is at hand, however long ago its certificate ended,\n" +
			"the keys of services stay good. Else each needs a successor.",
		Example: "  telford pki recover --data /var/lib/telford\n" +
			"  TELFORD_CLUSTER_SECRET=... telford pki recover --database postgres://telford@db/telford",
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			cfg, err := a.loadConfig(c.Flags())
			if err != nil {
				return err
			}
			return a.recover(c.Context(), cfg)
		},
	}
	f := c.Flags()
	all := pflag.NewFlagSet("", pflag.ContinueOnError) // the flags of serve; only these mean something here
	settingFlags(all)
	for _, name := range []string{"data", "database", "trust-domain", "leaf-life", "issuer-life", "root-life", "config"} {
		f.AddFlag(all.Lookup(name))
	}
	for _, name := range []string{"namespace", "server", "token", "ca"} {
		f.Var(unfit{"pki recover", "string"}, name, "")
		f.Lookup(name).Hidden = true
	}
	return c
}

func (a *app) recover(ctx context.Context, cfg runtime.Config) error {
	cfg.LogLevel = "warn"
	cfg.Log = cfg.NewLogger(a.stderr)
	out, err := runtime.Recover(ctx, cfg)
	if err != nil {
		return err
	}
	if a.global.json {
		return json.NewEncoder(a.stdout).Encode(recovery{
			TrustDomain: out.TrustDomain, RootSPKI: hex.EncodeToString(out.Root.SPKI[:]), RootNotAfter: out.Root.NotAfter,
			KeysGood: out.KeysGood, Done: out.Done, Next: out.Next,
		})
	}
	fmt.Fprintf(a.stdout, "Recovered %s:\n", out.TrustDomain)
	for _, line := range out.Done {
		fmt.Fprintln(a.stdout, "  -", line)
	}
	fmt.Fprintln(a.stdout, "Next:")
	for i, line := range out.Next {
		fmt.Fprintf(a.stdout, "  %d. %s\n", i+1, line)
	}
	return nil
}
