package main

import (
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"

	"telford.dev/telford/internal/codec"
	adminv1 "telford.dev/telford/server/api/telford/admin/v1"
)

func (a *app) feedCommand() *cobra.Command {
	var page pageFlags
	var follow bool
	var since string
	var types []string
	c := &cobra.Command{
		Use:   "feed",
		Short: "Show what happened to services and configuration, newest last",
		Long: "Show what happened to services and configuration in a namespace, newest last: that of the last hour,\n" +
			"or from --since on. With --follow, print what happens from now on, or from --since on, until\n" +
			"interrupted.",
		Example: "  telford feed --since 24h --type configuration_value.update\n  telford feed --follow",
		Args:    args(cobra.NoArgs),
		RunE: func(c *cobra.Command, _ []string) error {
			if follow && (page.size != 0 || page.token != "") {
				return usagef("--follow prints no pages; leave out --page-size and --page-token")
			}
			query := url.Values{"types": types}
			set(query, "namespace", a.global.namespace)
			if since == "" && !follow {
				since = "1h"
			}
			if since != "" {
				from, err := ago(since, time.Now())
				if err != nil {
					return err
				}
				query.Set("since", from.UTC().Format(time.RFC3339Nano))
			}
			if follow {
				return a.follow(c.Context(), "/api/v1/feed:follow", query, func(body []byte) error {
					events := &adminv1.FeedEvents{}
					if err := decode(body, events); err != nil {
						return err
					}
					return a.printEvents(events.GetItems())
				})
			}
			return a.pages(c.Context(), "/api/v1/feed", query, page, func(body []byte) (string, error) {
				list := &adminv1.ListFeedResponse{}
				if err := decode(body, list); err != nil {
					return "", err
				}
				return list.GetNextPageToken(), a.printEvents(list.GetItems())
			})
		},
	}
	f := c.Flags()
	f.BoolVar(&follow, "follow", false, "go on printing what happens")
	f.StringVar(&since, "since", "", "how long ago to begin, such as 90m or 24h, or a time such as 2026-03-01T12:00:00Z")
	f.StringArrayVar(&types, "type", nil, "only events of this type; may be given several times")
	page.add(c)
	return c
}

// ago reads where to begin: a time, or how long before now.
func ago(text string, now time.Time) (time.Time, error) {
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	if t, err := time.Parse(time.RFC3339, text); err == nil {
		return t, nil
	}
	return time.Time{}, usagef("--since %q is neither how long ago, such as 90m or 24h, nor a time such as 2026-03-01T12:00:00Z", text)
}

func (a *app) printEvents(events []*adminv1.FeedEvent) error {
	for _, e := range events {
		payload, err := protojson.Marshal(e.GetPayload())
		if err != nil {
			return err
		}
		if _, err := fmt.Fprintf(a.stdout, "%s %s %s %s\n", when(e.GetAt()), e.GetId(), e.GetType(), codec.Compact(payload)); err != nil {
			return err
		}
	}
	return nil
}
