package main

import (
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
)

func (a *app) servicesExpire() *cobra.Command {
	var confirm bool
	c := &cobra.Command{
		Use:   "expire",
		Short: "Show the instances whose expiry is paused, or confirm that they are gone",
		Long: "When more than 15 instances, and more than a third of a namespace or of all, would\n" +
			"expire within the time of one lease, the runtime takes the network or itself for the\n" +
			"more likely fault: expiry is paused, an alarm is raised, and the instances stay\n" +
			"registered but are given no calls. The pause ends by itself when enough of them are\n" +
			"back, and after an hour, when they begin to expire one after another. --confirm says\n" +
			"that they are gone: they expire now, in the namespace of --namespace or in all, and\n" +
			"so do those that would follow within the time of one lease. To remove single\n" +
			"instances, use services deregister, which always works.",
		Example: "  telford services expire\n  telford services expire --confirm --namespace default",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			body, err := a.client().post(c.Context(), "/api/v1/services:expire", map[string]any{"namespace": a.global.namespace, "confirm": confirm})
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			r := &adminv1.ExpireServicesResponse{}
			if err := decode(body, r); err != nil {
				return err
			}
			return a.printHeld(r)
		},
	}
	c.Flags().BoolVar(&confirm, "confirm", false, "the instances are gone: expire them now")
	return c
}

func (a *app) printHeld(r *adminv1.ExpireServicesResponse) error {
	if len(r.GetItems()) == 0 {
		_, err := fmt.Fprintln(a.stdout, "no expiry is paused")
		return err
	}
	t := newTable("NAMESPACE", "SILENT", "REGISTERED", "SINCE", "RESUMES")
	for _, h := range r.GetItems() {
		resumes := when(h.GetResumesAt())
		if resumes == "" {
			resumes = "has begun"
		}
		t.row(h.GetNamespace(), strconv.Itoa(int(h.GetInstances())), strconv.Itoa(int(h.GetRegistered())), when(h.GetSince()), resumes)
	}
	if err := a.print(t); err != nil {
		return err
	}
	if !r.GetConfirmed() {
		return nil
	}
	_, err := fmt.Fprintln(a.stdout, "confirmed: the silent ones expire now")
	return err
}
