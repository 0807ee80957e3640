package main

import (
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
)

func (a *app) configHistory() *cobra.Command {
	var page pageFlags
	c := &cobra.Command{
		Use:   "history ID",
		Short: "List the revisions of a value, newest first",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			query := url.Values{"id": given}
			set(query, "namespace", a.global.namespace)
			t := newTable("REVISION", "CHANGED", "AUTHOR", "WHAT", "VALUE")
			err := a.pages(c.Context(), configPath+"/history", query, page, func(body []byte) (string, error) {
				list := &adminv1.ListConfigHistoryResponse{}
				if err := decode(body, list); err != nil {
					return "", err
				}
				for _, r := range list.GetItems() {
					v := r.GetValue()
					what, text := "set", oneLine(v)
					if r.GetRemoved() {
						what, text = "removed", ""
					}
					if r.GetRestored() > 0 {
						what += ", back to " + digits(r.GetRestored())
					}
					t.row(digits(v.GetRevision()), when(v.GetUpdatedAt()), v.GetAuthor(), what, text)
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

func (a *app) configDiff() *cobra.Command {
	var from, to int64
	c := &cobra.Command{
		Use:     "diff ID",
		Short:   "Show what a change of a value changed",
		Long:    "Show what lies between two revisions of a value: by default the last one, and the one before it.",
		Example: "  telford config diff /production/cassandra/seeds --from 3 --to 9",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			query := url.Values{"id": given}
			set(query, "namespace", a.global.namespace)
			for name, n := range map[string]int64{"from": from, "to": to} {
				if n != 0 {
					query.Set(name, digits(n))
				}
			}
			body, err := a.client().get(c.Context(), configPath+"/diff", query)
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			d := &adminv1.ConfigDiff{}
			if err := decode(body, d); err != nil {
				return err
			}
			text := d.GetText()
			if text == "" {
				text = "no difference\n"
			}
			_, err = fmt.Fprintf(a.stdout, "--- %s\n+++ %s\n%s", side(d.GetFrom()), side(d.GetTo()), text)
			return err
		},
	}
	c.Flags().Int64Var(&from, "from", 0, "the older revision (default: the one before --to)")
	c.Flags().Int64Var(&to, "to", 0, "the newer revision (default: the last)")
	return c
}

// side names one of two revisions that are compared.
func side(r *adminv1.ConfigRevision) string {
	v := r.GetValue()
	switch {
	case v.GetRevision() == 0:
		return "nothing"
	case r.GetRemoved():
		return fmt.Sprintf("revision %d, removed by %s, %s", v.GetRevision(), v.GetAuthor(), when(v.GetUpdatedAt()))
	default:
		return fmt.Sprintf("revision %d, %s, by %s, %s", v.GetRevision(), kindOf(v), v.GetAuthor(), when(v.GetUpdatedAt()))
	}
}

func (a *app) configRollback() *cobra.Command {
	var cond ifRevision
	c := &cobra.Command{
		Use:     "rollback ID REVISION",
		Short:   "Make a value what it was at a revision",
		Long:    "Make a value what it was at a revision of it, in a new revision: history grows, and is never rewritten.",
		Example: "  telford config history limits\n  telford config rollback limits 12",
		Args:    args(cobra.ExactArgs(2)),
		RunE: func(c *cobra.Command, given []string) error {
			to, err := strconv.ParseInt(given[1], 10, 64)
			if err != nil || to <= 0 {
				return usagef("%q is no revision; telford config history %s shows them", given[1], given[0])
			}
			in := cond.body(c, map[string]any{"namespace": a.global.namespace, "id": given[0], "to": digits(to)})
			body, err := a.client().post(c.Context(), configPath+"/value:rollback", in)
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			r := &adminv1.RollbackConfigResponse{}
			if err := decode(body, r); err != nil {
				return err
			}
			switch {
			case !r.GetChanged():
				_, err = fmt.Fprintf(a.stdout, "%s is what it was at revision %d already\n", given[0], to)
			case r.GetRevision().GetRemoved():
				_, err = fmt.Fprintf(a.stdout, "%s removed, as at revision %d; revision %d\n", given[0], to, r.GetRevision().GetValue().GetRevision())
			default:
				_, err = fmt.Fprintf(a.stdout, "%s set as at revision %d, revision %d\n", given[0], to, r.GetRevision().GetValue().GetRevision())
			}
			return err
		},
	}
	cond.add(c, "the revision that the value must have; 0: there must be none")
	return c
}

func (a *app) configWatch() *cobra.Command {
	var after int64
	c := &cobra.Command{
		Use:   "watch [PREFIX]",
		Short: "Print what there is, then every change until interrupted",
		Args:  args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			query := url.Values{}
			set(query, "namespace", a.global.namespace)
			set(query, "prefix", strings.Join(given, ""))
			if after != 0 {
				query.Set("after", digits(after))
			}
			return a.follow(c.Context(), "/api/v1/config:watch", query, func(body []byte) error {
				u := &adminv1.ConfigUpdate{}
				if err := decode(body, u); err != nil {
					return err
				}
				return a.printConfigUpdate(u)
			})
		},
	}
	c.Flags().Int64Var(&after, "after", 0, "go on behind this revision (default: begin with what there is)")
	return c
}

func (a *app) printConfigUpdate(u *adminv1.ConfigUpdate) error {
	var b strings.Builder
	if u.GetSnapshot() {
		b.WriteString("= what there is\n")
	}
	for _, v := range u.GetValues() {
		fmt.Fprintf(&b, "= %d %s %s\n", v.GetRevision(), v.GetId(), oneLine(v))
	}
	for _, r := range u.GetChanges() {
		if v := r.GetValue(); r.GetRemoved() {
			fmt.Fprintf(&b, "- %d %s (%s)\n", v.GetRevision(), v.GetId(), v.GetAuthor())
		} else {
			fmt.Fprintf(&b, "+ %d %s %s (%s)\n", v.GetRevision(), v.GetId(), oneLine(v), v.GetAuthor())
		}
	}
	_, err := io.WriteString(a.stdout, b.String())
	return err
}
