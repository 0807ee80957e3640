package main

import (
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"telford.dev/telford/internal/match"
	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
)

func (a *app) servicesCommand() *cobra.Command {
	c := &cobra.Command{Use: "services", Short: "Show what runs, and take instances out of service"}
	c.AddCommand(a.servicesList(), a.servicesGet(), a.servicesWatch(), a.servicesDrain(), a.servicesDeregister(), a.servicesExpire())
	return c
}

func (a *app) servicesList() *cobra.Command {
	var name, tag, status string
	var page pageFlags
	c := &cobra.Command{
		Use:   "list [SERVICE]",
		Short: "List instances",
		Args:  args(cobra.MaximumNArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			if len(given) == 1 {
				name = given[0]
			}
			query := url.Values{}
			set(query, "namespace", a.global.namespace)
			set(query, "name", name)
			set(query, "tag", tag)
			set(query, "status", strings.ToUpper(status))
			t := newTable("NAME", "ID", "NAMESPACE", "VERSION", "STATUS", "REACHABLE", "METHODS", "ENDPOINT", "REGISTERED")
			err := a.pages(c.Context(), "/api/v1/services", query, page, func(body []byte) (string, error) {
				list := &adminv1.ListServicesResponse{}
				if err := decode(body, list); err != nil {
					return "", err
				}
				for _, in := range list.GetItems() {
					t.row(instanceRow(in)...)
				}
				return list.GetNextPageToken(), nil
			})
			if err != nil || a.global.json {
				return err
			}
			return a.print(t)
		},
	}
	c.Flags().StringVar(&tag, "tag", "", "only instances with this tag")
	c.Flags().StringVar(&status, "status", "", "only instances of this status: OK, WARNING, ERROR, SUSPENDED, OFFLINE")
	page.add(c)
	return c
}

func instanceRow(in *adminv1.Instance) []string {
	return []string{
		in.GetName(), in.GetId(), in.GetNamespace(), in.GetVersion(), condition(in), yes(in.GetReachable()),
		strconv.Itoa(len(in.GetMethods())), endpoint(in), when(in.GetRegisteredAt()),
	}
}

// condition is the status of an instance with what qualifies it.
func condition(in *adminv1.Instance) string {
	s := in.GetStatus()
	if in.GetDraining() {
		s += " (draining)"
	}
	if f := in.GetFailingUntil(); f != nil {
		s += " (failing until " + when(f) + ")"
	}
	if m := in.GetStatusMessage(); m != "" {
		s += ": " + m
	}
	return s
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func endpoint(in *adminv1.Instance) string {
	for _, e := range in.GetEndpoints() {
		return net.JoinHostPort(e.GetHost(), strconv.Itoa(int(e.GetPort())))
	}
	return ""
}

func (a *app) servicesGet() *cobra.Command {
	return &cobra.Command{
		Use:   "get SERVICE|ID",
		Short: "Show a service, or one instance, with its methods and who went lately",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			query := url.Values{}
			set(query, "namespace", a.global.namespace)
			body, err := a.client().get(c.Context(), "/api/v1/services/"+url.PathEscape(given[0]), query)
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			s := &adminv1.Service{}
			if err := decode(body, s); err != nil {
				return err
			}
			return a.printService(s)
		},
	}
}

func (a *app) printService(s *adminv1.Service) error {
	fmt.Fprintf(a.stdout, "%s in namespace %s\n\n", s.GetName(), s.GetNamespace())
	t := newTable("ID", "VERSION", "REALM", "STATUS", "REACHABLE", "LOCALITY", "ENDPOINT", "TAGS", "REGISTERED")
	for _, in := range s.GetInstances() {
		t.row(in.GetId(), in.GetVersion(), in.GetRealm(), condition(in), yes(in.GetReachable()), in.GetLocality(), endpoint(in), strings.Join(in.GetTags(), ","), when(in.GetRegisteredAt()))
	}
	if err := a.print(t); err != nil {
		return err
	}
	if len(s.GetMethods()) > 0 {
		fmt.Fprintln(a.stdout)
		t = newTable("METHOD", "KIND", "ACCEPTS", "VERSION", "INSTANCES", "CONTRACT")
		for _, m := range shapes(s) {
			t.row(m.method.GetName(), m.method.GetKind(), strings.Join(m.method.GetContentTypes(), ","), strings.Join(m.versions, ","), strconv.Itoa(m.instances), m.method.GetContract())
		}
		if err := a.print(t); err != nil {
			return err
		}
	}
	if len(s.GetTombstones()) == 0 {
		return nil
	}
	fmt.Fprintln(a.stdout)
	t = newTable("GONE", "REASON", "AT")
	for _, g := range s.GetTombstones() {
		t.row(g.GetId(), g.GetReason(), when(g.GetAt()))
	}
	return a.print(t)
}

// methodShape is a method as those instances have it that agree about its contract.
type methodShape struct {
	method    *adminv1.Method
	versions  []string // newest first
	instances int
}

// shapes returns the methods of a service by name, each once for every contract that it
// has, that of the newest version first.
func shapes(s *adminv1.Service) []methodShape {
	type speaker struct {
		in *adminv1.Instance
		m  *adminv1.Method
	}
	speakers := make(map[string][]speaker)
	for _, in := range s.GetInstances() {
		for _, m := range in.GetMethods() {
			speakers[m.GetName()] = append(speakers[m.GetName()], speaker{in, m})
		}
	}
	var out []methodShape
	for _, name := range slices.Sorted(maps.Keys(speakers)) {
		for _, shape := range match.Shapes(speakers[name], func(x speaker) match.Speaker {
			return match.Speaker{ID: x.in.GetId(), Version: x.in.GetVersion(), Contract: x.m.GetContract()}
		}) {
			row := methodShape{method: shape.Newest.m, instances: len(shape.Members)}
			for _, x := range shape.Members {
				if v := x.in.GetVersion(); v != "" && !slices.Contains(row.versions, v) {
					row.versions = append(row.versions, v)
				}
			}
			slices.SortFunc(row.versions, func(a, b string) int { return match.CompareVersions(b, a) })
			out = append(out, row)
		}
	}
	return out
}

func (a *app) servicesDrain() *cobra.Command {
	var undo bool
	c := &cobra.Command{
		Use:   "drain ID",
		Short: "Let an instance finish what it has and give it nothing new, or undo that",
		Long: "Mark an instance as draining: no caller picks it any more, neither the runtime nor\n" +
			"the SDKs that call directly, and what runs on it finishes. It stays connected and\n" +
			"registered, is not told to end, and may still call others. The mark is stored: it\n" +
			"outlives restarts of the runtime and new registrations of the instance, until\n" +
			"--undo takes it away or the instance is gone.",
		Example: "  telford services drain in_01j8\n  telford services drain in_01j8 --undo",
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			body, err := a.client().post(c.Context(), "/api/v1/services/"+url.PathEscape(given[0])+":drain", map[string]any{"namespace": a.global.namespace, "undo": undo})
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			in := &adminv1.Instance{}
			if err := decode(body, in); err != nil {
				return err
			}
			word := "is given nothing new"
			if !in.GetDraining() {
				word = "is given calls again"
			}
			_, err = fmt.Fprintf(a.stdout, "%s of %s %s\n", in.GetId(), in.GetName(), word)
			return err
		},
	}
	c.Flags().BoolVar(&undo, "undo", false, "take the mark away: the instance is given calls again")
	return c
}

func (a *app) servicesDeregister() *cobra.Command {
	return &cobra.Command{
		Use:   "deregister ID",
		Short: "Remove an instance and end its session",
		Args:  args(cobra.ExactArgs(1)),
		RunE: func(c *cobra.Command, given []string) error {
			body, err := a.client().post(c.Context(), "/api/v1/services/"+url.PathEscape(given[0])+":deregister", map[string]string{"namespace": a.global.namespace})
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			_, err = fmt.Fprintf(a.stdout, "%s deregistered\n", given[0])
			return err
		},
	}
}
