package main

import (
	"context"
	"fmt"
	"math"
	"net/url"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
)

func (a *app) limitsCommand() *cobra.Command {
	c := &cobra.Command{Use: "limits", Short: "Show and lay down how much may run"}
	c.AddCommand(a.limitsShow(), a.limitsSet(), a.limitsRemove())
	return c
}

func (a *app) limitsShow() *cobra.Command {
	var page pageFlags
	c := &cobra.Command{
		Use:   "show [SERVICE]",
		Short: "Show what services declare, what was set over it, and quotas",
		Args:  args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			t := newTable("ID", "TARGET", "SOURCE", "CONCURRENCY", "QUEUE", "RATE", "BURST", "KEY", "SCOPE", "INSTANCES")
			err := a.eachLimit(c.Context(), given, page, func(l *adminv1.Limit, replaced bool) {
				source := l.GetSource()
				if replaced {
					source += " (replaced)"
				}
				t.row(l.GetId(), limitTarget(l), source, number(l.GetConcurrency()), number(l.GetQueue()), rate(l.GetRate()),
					number(l.GetBurst()), l.GetKey(), l.GetScope(), number(l.GetInstances()))
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

// eachLimit reads the list; replaced says that another one was set over a declared limit.
func (a *app) eachLimit(ctx context.Context, service []string, page pageFlags, f func(l *adminv1.Limit, replaced bool)) error {
	query := url.Values{}
	set(query, "namespace", a.global.namespace)
	if len(service) > 0 {
		set(query, "service", service[0])
	}
	ruled := make(map[string]bool)
	return a.pages(ctx, "/api/v1/limits", query, page, func(body []byte) (string, error) {
		list := &adminv1.ListLimitsResponse{}
		if err := decode(body, list); err != nil {
			return "", err
		}
		for _, l := range list.GetItems() {
			declared := l.GetSource() == "declared"
			f(l, declared && ruled[limitTarget(l)])
			ruled[limitTarget(l)] = ruled[limitTarget(l)] || !declared
		}
		return list.GetNextPageToken(), nil
	})
}

// limitTarget names what a limit is about.
func limitTarget(l *adminv1.Limit) string {
	switch {
	case l.GetService() == "":
		return "namespace " + l.GetNamespace()
	case l.GetMethod() == "":
		return l.GetService()
	}
	return l.GetService() + "/" + l.GetMethod()
}

func number(n uint32) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(uint64(n), 10)
}

func rate(r float64) string {
	if r == 0 {
		return ""
	}
	return strconv.FormatFloat(r, 'f', -1, 64) + "/s"
}

// limitFlags are the numbers of a limit.
type limitFlags struct {
	concurrency, queue, burst, instances int
	rate                                 float64
	key, scope                           string
}

func (a *app) limitsSet() *cobra.Command {
	var l limitFlags
	c := &cobra.Command{
		Use:   "set [SERVICE[/METHOD]]",
		Short: "Set the limit of a method in place of those it declares, of the instances of a service, or the quota of a namespace",
		Long: "Sets a limit, which holds within two seconds and takes the place of an earlier one of the same target.\n" +
			"SERVICE/METHOD: in place of what the method declares. SERVICE: in place of the bounds of each instance,\n" +
			"counted for calls and for streams apart. Neither: the quota of the namespace.",
		Example: "  telford limits set payments/charge --concurrency 20 --queue 100 --key caller\n" +
			"  telford limits set payments/charge --rate 50 --burst 10 --scope service\n" +
			"  telford limits set payments --concurrency 512 --queue 256\n" +
			"  telford limits set --namespace blue --concurrency 1000 --instances 200",
		Args: args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			req, err := l.request()
			if err != nil {
				return err
			}
			req["namespace"] = a.global.namespace
			if len(given) == 1 {
				req["service"], req["method"], err = splitTarget(given[0])
				if err != nil {
					return err
				}
			}
			body, err := a.client().post(c.Context(), "/api/v1/limits", req)
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			return a.printLimit(body, "set")
		},
	}
	f := c.Flags()
	f.IntVar(&l.concurrency, "concurrency", 0, "how many run at once")
	f.IntVar(&l.queue, "queue", 0, "how many more wait in line")
	f.Float64Var(&l.rate, "rate", 0, "how many begin in a second")
	f.IntVar(&l.burst, "burst", 0, "how many at once after a pause (default: those of one second)")
	f.StringVar(&l.key, "key", "", "what is counted apart: caller, header:NAME, field:NAME or func")
	f.StringVar(&l.scope, "scope", "", "instance, or service: divided among its live instances (default: instance)")
	f.IntVar(&l.instances, "instances", 0, "of a namespace: the most instances that are registered")
	return c
}

// request returns the body of a request, without its target.
func (l *limitFlags) request() (map[string]any, error) {
	for _, n := range []struct {
		flag  string
		value int
	}{{"--concurrency", l.concurrency}, {"--queue", l.queue}, {"--burst", l.burst}, {"--instances", l.instances}} {
		if n.value < 0 || n.value > math.MaxUint32 {
			return nil, usagef("%s: %d is not a count", n.flag, n.value)
		}
	}
	if l.rate < 0 || math.IsNaN(l.rate) || math.IsInf(l.rate, 0) {
		return nil, usagef("--rate: %v is not a number of calls in a second", l.rate)
	}
	if l.concurrency == 0 && l.rate == 0 && l.instances == 0 {
		return nil, usagef("the limit bounds nothing: give --concurrency, --rate or, for a namespace, --instances")
	}
	return map[string]any{
		"concurrency": l.concurrency, "queue": l.queue, "rate": l.rate, "burst": l.burst,
		"key": l.key, "scope": l.scope, "instances": l.instances,
	}, nil
}

// splitTarget takes SERVICE or SERVICE/METHOD apart.
func splitTarget(text string) (service, method string, err error) {
	service, method, both := strings.Cut(text, "/")
	if service == "" || both && method == "" {
		return "", "", usagef("%q is neither SERVICE nor SERVICE/METHOD", text)
	}
	return service, method, nil
}

func (a *app) printLimit(body []byte, done string) error {
	l := &adminv1.Limit{}
	if err := decode(body, l); err != nil {
		return err
	}
	var parts []string
	for _, p := range []struct{ name, value string }{
		{"concurrency", number(l.GetConcurrency())},
		{"queue", number(l.GetQueue())},
		{"rate", rate(l.GetRate())},
		{"burst", number(l.GetBurst())},
		{"key", l.GetKey()},
		{"instances", number(l.GetInstances())},
	} {
		if p.value != "" {
			parts = append(parts, p.name+" "+p.value)
		}
	}
	if l.GetScope() == "service" {
		parts = append(parts, "divided among the instances")
	}
	_, err := fmt.Fprintf(a.stdout, "%s %s: limit of %s: %s\n", l.GetId(), done, limitTarget(l), strings.Join(parts, ", "))
	return err
}

func (a *app) limitsRemove() *cobra.Command {
	return &cobra.Command{
		Use:     "rm ID|SERVICE|SERVICE/METHOD",
		Short:   "Remove a limit that was set, so that what is declared holds again",
		Example: "  telford limits rm payments/charge\n  telford limits rm lim_01k8z2m4q8a7w0r6s3t5v9x1y2",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			id, err := a.limitID(c.Context(), given[0])
			if err != nil {
				return err
			}
			query := url.Values{}
			set(query, "namespace", a.global.namespace)
			body, err := a.client().remove(c.Context(), "/api/v1/limits/"+url.PathEscape(id), query)
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			return a.printLimit(body, "removed")
		},
	}
}

// limitID returns the id of the limit that text names by its id or by its target.
func (a *app) limitID(ctx context.Context, text string) (string, error) {
	if strings.HasPrefix(text, "lim_") {
		return text, nil
	}
	service, method, err := splitTarget(text)
	if err != nil {
		return "", err
	}
	var ids, names []string
	raw := a.global.json // the list is not what is to be printed
	a.global.json = false
	err = a.eachLimit(ctx, []string{service}, pageFlags{}, func(l *adminv1.Limit, _ bool) {
		if l.GetSource() == "set" && (l.GetMethod() == method || method != "" && strings.HasSuffix(l.GetMethod(), "/"+method)) {
			ids, names = append(ids, l.GetId()), append(names, limitTarget(l))
		}
	})
	a.global.json = raw
	switch {
	case err != nil:
		return "", err
	case len(ids) == 1:
		return ids[0], nil
	case len(ids) > 1:
		return "", usagef("%q stands for %d limits: %s; name one in full", text, len(ids), strings.Join(names, ", "))
	}
	return "", fmt.Errorf("no limit was set for %q; telford limits show %s lists what holds, and what is declared is changed by setting another over it", text, service)
}
