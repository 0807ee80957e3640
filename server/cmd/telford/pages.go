package main

import (
	"context"
	"net/url"
)

// pages reads a list. With --json it prints one page as it came: a list that is longer
// names its next page in next_page_token. Otherwise each gets every page, or the one
// that was asked for, and returns the token of the next.
func (a *app) pages(ctx context.Context, path string, query url.Values, flags pageFlags, each func(body []byte) (string, error)) error {
	query, err := flags.query(query)
	if err != nil {
		return err
	}
	for {
		body, err := a.client().get(ctx, path, query)
		if err != nil {
			return err
		}
		if a.global.json {
			return a.raw(body)
		}
		next, err := each(body)
		if err != nil {
			return err
		}
		if next == "" || flags.size > 0 {
			return nil
		}
		query.Set("page_token", next)
	}
}
