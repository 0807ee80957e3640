package main

import (
	"fmt"
	"net/url"
	"strconv"

	"github.com/spf13/cobra"

	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
)

func (a *app) policyShadow() *cobra.Command {
	list := a.shadowList()
	c := &cobra.Command{
		Use:   "shadow",
		Short: "Show what rules that are only counted would have denied, and turn rules into such",
		Long: "Show what rules that are only counted would have denied, as `telford policy shadow list`\n" +
			"does. A rule that denies nobody who should be served can be enforced: shadow off ID.",
		Args: args(cobra.NoArgs),
		RunE: list.RunE,
	}
	c.Flags().AddFlagSet(list.Flags())
	c.AddCommand(list, a.shadowSet("on", "Only count what a rule would deny", "is only counted"),
		a.shadowSet("off", "Enforce a rule that was only counted", "is enforced"), a.shadowClear())
	return c
}

func (a *app) shadowList() *cobra.Command {
	var service string
	var page pageFlags
	c := &cobra.Command{
		Use:   "list",
		Short: "List the calls that were served and would have been denied",
		Args:  args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			query := a.inNamespace()
			set(query, "service", service)
			t := newTable("SERVICE", "ACTION", "CALLER", "CALLEE", "TARGET", "COUNT", "FIRST", "LAST")
			err := a.pages(c.Context(), "/api/v1/policy/shadow", query, page, func(body []byte) (string, error) {
				list := &adminv1.ListShadowResponse{}
				if err := decode(body, list); err != nil {
					return "", err
				}
				for _, d := range list.GetItems() {
					t.row(d.GetService(), d.GetAction(), d.GetCaller(), d.GetCallee(), d.GetTarget(),
						strconv.FormatInt(d.GetCount(), 10), when(d.GetFirstAt()), when(d.GetLastAt()))
				}
				return list.GetNextPageToken(), nil
			})
			if err != nil || a.global.json {
				return err
			}
			return a.print(t)
		},
	}
	c.Flags().StringVar(&service, "service", "", "only what rules of this service would have denied")
	page.add(c)
	return c
}

func (a *app) shadowSet(word, short, state string) *cobra.Command {
	return &cobra.Command{
		Use:   word + " ID",
		Short: short,
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			body, err := a.client().post(c.Context(), "/api/v1/policy/rules/"+url.PathEscape(given[0])+":setShadow",
				map[string]any{"namespace": a.global.namespace, "shadow": word == "on"})
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			rule := &adminv1.PolicyRule{}
			if err := decode(body, rule); err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.stdout, "%s %s: %s\n", rule.GetId(), state, ruleText(rule))
			return err
		},
	}
}

func (a *app) shadowClear() *cobra.Command {
	return &cobra.Command{
		Use:   "clear",
		Short: "Forget what was counted",
		Args:  args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			body, err := a.client().post(c.Context(), "/api/v1/policy/shadow:clear", map[string]string{"namespace": a.global.namespace})
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			out := &adminv1.ClearShadowResponse{}
			if err := decode(body, out); err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.stdout, "counts removed: %d\n", out.GetRemoved())
			return err
		},
	}
}
