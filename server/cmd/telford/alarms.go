package main

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/spf13/cobra"

	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
)

const (
	alarmsPath = "/api/v1/alarms"
	// bannerWait bounds the question for alarms beside a command.
	bannerWait = 2 * time.Second
	// maxBanners bounds the lines of a banner.
	maxBanners = 5
)

// showAlarms shows the alarms of the runtime on stderr, once in a command. It needs the
// operator's token; whatever keeps it from asking is not what the command is about, and
// is not told.
func (a *app) showAlarms(ctx context.Context) {
	if a.alarmed || a.global.noBanner {
		return
	}
	a.alarmed = true
	ctx, cancel := context.WithTimeout(ctx, bannerWait)
	defer cancel()
	resp, err := a.client().exchange(ctx, http.MethodGet, alarmsPath, nil, nil)
	if err != nil {
		return
	}
	body, err := read(resp)
	if err != nil {
		return
	}
	list := &adminv1.ListAlarmsResponse{}
	if decode(body, list) != nil {
		return
	}
	for i, m := range list.GetItems() {
		if i == maxBanners {
			fmt.Fprintf(a.stderr, "ALARM %d more; see telford alarms\n", len(list.GetItems())-i)
			return
		}
		fmt.Fprintf(a.stderr, "ALARM %s (%s since %s): %s\n", m.GetCode(), m.GetSeverity(), when(m.GetSince()), m.GetMessage())
	}
}

func (a *app) alarmsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "alarms",
		Short: "Show what somebody has to see to",
		Long: "Show the states of the runtime that do not mend themselves, the worst first, with\n" +
			"what to do about each. Every other command that talks to a runtime shows them on\n" +
			"stderr, unless --no-banner is given.",
		Args: args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			a.alarmed = true // they are what is asked for
			body, err := a.client().get(c.Context(), alarmsPath, nil)
			if err != nil || a.global.json {
				return a.rawOr(body, err)
			}
			list := &adminv1.ListAlarmsResponse{}
			if err := decode(body, list); err != nil {
				return err
			}
			t := newTable("CODE", "SEVERITY", "SINCE", "MESSAGE")
			for _, m := range list.GetItems() {
				t.row(m.GetCode(), m.GetSeverity(), when(m.GetSince()), m.GetMessage())
			}
			return a.print(t)
		},
	}
}
