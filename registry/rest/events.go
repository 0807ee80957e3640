package rest

import (
	"context"
	"iter"
	"net/http"
	"net/url"
)

// EventQuery chooses events. Its zero value is the first page of the last hour.
type EventQuery struct {
	// Marker is the id of the event at which the page begins, itself included; any
	// version 1 UUID that is not in the future will do. Without it the feed begins an hour
	// ago.
	Marker string
	// Type keeps the events of one type. The server cuts the page before it looks at
	// types, so that a page may be short or empty and not be the last.
	Type EventType
	// Limit is the size of a page: 1 to 1000, 0 for the server's default of 100.
	Limit int
}

func (q EventQuery) values() (url.Values, error) {
	v, err := pageValues(q.Marker, q.Limit)
	if q.Type != "" {
		v.Set("type", string(q.Type))
	}
	return v, err
}

// ListEvents returns one page of the feed, oldest first.
func (c *Client) ListEvents(ctx context.Context, q EventQuery) (Page[Event], error) {
	return list[Event](ctx, c, "list events", "/events", q.values)
}

// EachEvent iterates over the feed from the query's marker to its present end. The first
// error ends the iteration. A Poller goes on from there.
func (c *Client) EachEvent(ctx context.Context, q EventQuery) iter.Seq2[Event, error] {
	return each(q.Marker, func(e Event) string { return e.ID }, func(marker string) (Page[Event], error) {
		q.Marker = marker
		return c.ListEvents(ctx, q)
	})
}

// Limits returns what the account may have and do.
func (c *Client) Limits(ctx context.Context) (Limits, error) {
	var l Limits
	err := c.do(ctx, request{op: "get limits", method: http.MethodGet, path: "/limits"}, &l)
	return l, err
}
