package main

import (
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
)

func (a *app) namespacesCommand() *cobra.Command {
	c := &cobra.Command{Use: "namespaces", Short: "Make, list and remove tenants"}
	c.AddCommand(a.namespacesCreate(), a.namespacesList(), a.namespacesRemove(), a.namespacesAlias())
	return c
}

func (a *app) namespacesCreate() *cobra.Command {
	var account string
	c := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a namespace",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			body, err := a.client().post(c.Context(), "/api/v1/namespaces", map[string]string{"name": given[0], "account": account})
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			_, err = fmt.Fprintf(a.stdout, "namespace %s created\n", given[0])
			return err
		},
	}
	c.Flags().StringVar(&account, "account", "", "numeric alias for the REST door")
	return c
}

func (a *app) namespacesList() *cobra.Command {
	var page pageFlags
	c := &cobra.Command{
		Use:   "list",
		Short: "List namespaces",
		Args:  args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			t := newTable("NAME", "ACCOUNT", "CREATED")
			err := a.pages(c.Context(), "/api/v1/namespaces", url.Values{}, page, func(body []byte) (string, error) {
				list := &adminv1.ListNamespacesResponse{}
				if err := decode(body, list); err != nil {
					return "", err
				}
				for _, n := range list.GetItems() {
					t.row(n.GetName(), n.GetAccount(), when(n.GetCreatedAt()))
				}
				return list.GetNextPageToken(), nil
			})
			if err != nil || a.global.json {
				return err
			}
			return a.print(t)
		},
	}
	page.add(c)
	return c
}

func (a *app) namespacesRemove() *cobra.Command {
	return &cobra.Command{
		Use:   "rm NAME",
		Short: "Remove a namespace with its rules and configuration",
		Long: "Remove a namespace, by name or account, with the rules that were laid down for it, its\n" +
			"configuration with all history, and its feed. It must have no key that is in force and no\n" +
			"instance. The default namespace stays.",
		Args: args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			body, err := a.client().remove(c.Context(), "/api/v1/namespaces/"+url.PathEscape(given[0]), nil)
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			n := &adminv1.Namespace{}
			if err := decode(body, n); err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.stdout, "namespace %s removed\n", n.GetName())
			return err
		},
	}
}

func (a *app) namespacesAlias() *cobra.Command {
	var remove bool
	c := &cobra.Command{
		Use:     "alias NAME ACCOUNT | alias NAME --remove",
		Short:   "Give a namespace its numeric alias for the REST door, or take it away",
		Example: "  telford namespaces alias blue 2000\n  telford namespaces alias blue --remove",
		Args:    args(cobra.RangeArgs(1, 2)),
		RunE: func(c *cobra.Command, given []string) error {
			account := ""
			switch {
			case remove && len(given) == 2:
				return usagef("an account and --remove: give one of them\nUsage: %s", c.UseLine())
			case !remove && len(given) == 1:
				return usagef("which account? Give its number, or --remove\nUsage: %s", c.UseLine())
			case !remove:
				account = given[1]
				if account == "" {
					return usagef("the account is empty; --remove takes the alias away")
				}
			}
			body, err := a.client().post(c.Context(), "/api/v1/namespaces/"+url.PathEscape(given[0])+":setAccount", map[string]string{"account": account})
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			n := &adminv1.Namespace{}
			if err := decode(body, n); err != nil {
				return err
			}
			if n.GetAccount() == "" {
				_, err = fmt.Fprintf(a.stdout, "namespace %s has no account\n", n.GetName())
				return err
			}
			_, err = fmt.Fprintf(a.stdout, "namespace %s has account %s\n", n.GetName(), n.GetAccount())
			return err
		},
	}
	c.Flags().BoolVar(&remove, "remove", false, "take the alias away")
	return c
}
