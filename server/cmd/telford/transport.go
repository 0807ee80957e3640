package main

import (
	"context"
	"fmt"
	"net/url"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
)

func (a *app) transportCommand() *cobra.Command {
	c := &cobra.Command{Use: "transport", Short: "Show and lay down which way calls go that do not say so themselves"}
	c.AddCommand(a.transportShow(), a.transportSet(), a.transportRemove())
	return c
}

func (a *app) transportShow() *cobra.Command {
	var page pageFlags
	c := &cobra.Command{
		Use:   "show [SERVICE]",
		Short: "Show the rules of a namespace, or of one service",
		Args:  args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			t := newTable("ID", "TARGET", "MODE", "FALLBACK", "TIMEOUT", "UPDATED", "AUTHOR")
			err := a.eachTransport(c.Context(), given, page, func(r *adminv1.TransportRule) {
				t.row(r.GetId(), transportTarget(r), r.GetMode(), r.GetFallback(), r.GetTimeout(), when(r.GetUpdatedAt()), r.GetAuthor())
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

func (a *app) eachTransport(ctx context.Context, service []string, page pageFlags, f func(*adminv1.TransportRule)) error {
	query := a.inNamespace()
	if len(service) > 0 {
		set(query, "service", service[0])
	}
	return a.pages(ctx, "/api/v1/transports", query, page, func(body []byte) (string, error) {
		list := &adminv1.ListTransportsResponse{}
		if err := decode(body, list); err != nil {
			return "", err
		}
		for _, r := range list.GetItems() {
			f(r)
		}
		return list.GetNextPageToken(), nil
	})
}

// transportTarget is what a rule is about.
func transportTarget(r *adminv1.TransportRule) string {
	switch {
	case r.GetService() == "":
		return "namespace " + r.GetNamespace()
	case r.GetMethod() == "":
		return r.GetService()
	}
	return r.GetService() + "/" + r.GetMethod()
}

func (a *app) transportSet() *cobra.Command {
	var mode, fallback, timeout string
	c := &cobra.Command{
		Use:   "set [SERVICE[/METHOD]]",
		Short: "Say which way calls go, what is tried when it fails, and how long a call may take",
		Long: "Lay down how calls go that do not say so themselves: those of a method, of a service or,\n" +
			"without either, of the namespace. Of several rules the most specific wins, field by\n" +
			"field: method, then service, then namespace. The rule takes the place of an earlier one\n" +
			"of the same target, and holds within two seconds.",
		Example: "  telford transport set payments --mode direct --fallback proxy\n" +
			"  telford transport set payments/charge --timeout 2s\n" +
			"  telford transport set --mode proxy",
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			if mode == "" && fallback == "" && timeout == "" {
				return usagef("the rule says nothing: give --mode, --fallback or --timeout")
			}
			if err := checkDuration("--timeout", timeout); err != nil {
				return err
			}
			req := map[string]string{"namespace": a.global.namespace, "mode": mode, "fallback": fallback, "timeout": timeout}
			if len(given) == 1 {
				var err error
				if req["service"], req["method"], err = splitTarget(given[0]); err != nil {
					return err
				}
			}
			body, err := a.client().post(c.Context(), "/api/v1/transports", req)
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			return a.printTransport(body, "set")
		},
	}
	c.Flags().StringVar(&mode, "mode", "", "auto (direct where an instance can be reached, else proxy), direct, or proxy (through the runtime)")
	c.Flags().StringVar(&fallback, "fallback", "", "what is tried when the way of the mode fails before anything was begun: none, direct, proxy")
	c.Flags().StringVar(&timeout, "timeout", "", "time of a call that has none of its own, such as 2s")
	return c
}

func (a *app) printTransport(body []byte, done string) error {
	r := &adminv1.TransportRule{}
	if err := decode(body, r); err != nil {
		return err
	}
	var parts []string
	for _, p := range []struct{ name, value string }{{"mode", r.GetMode()}, {"fallback", r.GetFallback()}, {"timeout", r.GetTimeout()}} {
		if p.value != "" {
			parts = append(parts, p.name+" "+p.value)
		}
	}
	_, err := fmt.Fprintf(a.stdout, "%s %s: calls of %s: %s\n", r.GetId(), done, transportTarget(r), strings.Join(parts, ", "))
	return err
}

func (a *app) transportRemove() *cobra.Command {
	return &cobra.Command{
		Use:     "rm ID|SERVICE|SERVICE/METHOD",
		Short:   "Remove a rule",
		Example: "  telford transport rm payments/charge\n  telford transport rm trn_01k8z2m4q8a7w0r6s3t5v9x1y2",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			id, err := a.transportID(c.Context(), given[0])
			if err != nil {
				return err
			}
			body, err := a.client().remove(c.Context(), "/api/v1/transports/"+url.PathEscape(id), a.inNamespace())
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			return a.printTransport(body, "removed")
		},
	}
}

// transportID returns the id of the rule that text names by its id or by its target.
func (a *app) transportID(ctx context.Context, text string) (string, error) {
	if strings.HasPrefix(text, "trn_") {
		return text, nil
	}
	service, method, err := splitTarget(text)
	if err != nil {
		return "", err
	}
	var id string
	raw := a.global.json // the list is not what is to be printed
	a.global.json = false
	err = a.eachTransport(ctx, []string{service}, pageFlags{}, func(r *adminv1.TransportRule) {
		if r.GetMethod() == method {
			id = r.GetId()
		}
	})
	a.global.json = raw
	if err == nil && id == "" {
		err = fmt.Errorf("no transport rule is about %q; see: telford transport show", text)
	}
	return id, err
}
