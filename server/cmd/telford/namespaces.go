package main

import (
	"fmt"
	"net/url"

	"github.com/spf13/cobra"

	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
)

func (a *app) namespacesCommand() *cobra.Command {
	c := &cobra.Command{Use: "namespaces", Short: "Make and list tenants"}
	c.AddCommand(a.namespacesCreate(), a.namespacesList())
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
