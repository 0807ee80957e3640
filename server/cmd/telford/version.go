package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"

	"telford.dev/telford/server/runtime"
)

func (a *app) versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program, or with --server that of the runtime there",
		Args:  args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			build := runtime.BuildInfo()
			if !c.Flags().Changed("server") {
				if !a.global.json {
					_, err := fmt.Fprintln(a.stdout, "telford", build)
					return err
				}
				out, err := json.Marshal(build)
				return a.rawOr(out, err)
			}
			body, err := a.client().get(c.Context(), "/api/v1/version", nil)
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			var remote runtime.Build
			if err := json.Unmarshal(body, &remote); err != nil {
				return fmt.Errorf("read the version of the runtime: %w", err)
			}
			_, err = fmt.Fprintf(a.stdout, "telford %s\nruntime %s\n", build, remote)
			return err
		},
	}
}
