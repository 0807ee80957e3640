package restdoor

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"time"

	"telford.dev/telford/registry/rest"
	"telford.dev/telford/server/internal/feed"
)

// Feed is what happened in each namespace; *feed.Feed is one.
type Feed interface {
	List(ctx context.Context, q *feed.Query) (feed.Page, error)
}

// eventAnswer is an event as it is answered, its fields in the order of the wire.
type eventAnswer struct {
	ID        string          `json:"id"`
	Timestamp int64           `json:"timestamp"` // milliseconds
	Type      string          `json:"type"`
	Payload   json.RawMessage `json:"payload"`
}

// recent is how far back a page of events goes that has no marker.
const recent = time.Hour

func (d *Door) listEvents(q *request) *rest.Fault {
	limit, f := q.limit()
	if f != nil {
		return f
	}
	now := d.clock.Now()
	query := &feed.Query{Namespace: q.namespace, Limit: limit, Until: now.Add(time.Millisecond), Since: now.Add(-recent)}
	if q.created.After(query.Since) {
		query.Since = q.created
	}
	if query.Marker, f = q.eventMarker(now); f != nil {
		return f
	}
	if query.Types, f = q.eventTypes(); f != nil {
		return f
	}
	if err := d.cfg.Services.Settle(q.http.Context(), q.namespace); err != nil {
		return d.failed(q, err)
	}
	p, err := d.cfg.Feed.List(q.http.Context(), query)
	if err != nil {
		return d.failed(q, err)
	}
	values := make([]eventAnswer, len(p.Events))
	for i, e := range p.Events {
		values[i] = eventAnswer{ID: e.ID, Timestamp: e.At.UnixMilli(), Type: e.Type, Payload: e.Payload}
	}
	next := ""
	if p.Next != (feed.ID{}) {
		next = p.Next.String()
	}
	return q.answer(200, page(q, values, limit, nil, next))
}

// eventMarker reads the id with which the page begins; zero: none was given.
func (q *request) eventMarker(now time.Time) (id feed.ID, f *rest.Fault) {
	text, given, several := q.one("marker")
	if !given {
		return id, nil
	}
	if several {
		return id, badRequest("Invalid UUID")
	}
	id, err := feed.ParseID(text)
	switch {
	case errors.Is(err, feed.ErrVariant):
		return id, badRequest("Unsupported UUID variant")
	case errors.Is(err, feed.ErrVersion):
		return id, badRequest("UUID is not version 1")
	case err != nil:
		return id, badRequest("Invalid UUID")
	}
	switch at := id.Time().UnixMilli(); {
	case at > now.UnixMilli():
		return id, badRequest("from parameter must be smaller than the current time")
	case at < q.created.UnixMilli():
		return id, badRequest("from parameter must be greater than or equal to the account creation date")
	}
	return id, nil
}

// eventTypes reads which types are wanted: one, or all that this API knows.
func (q *request) eventTypes() ([]string, *rest.Fault) {
	var all []string
	for _, t := range rest.EventTypes() {
		all = append(all, string(t))
	}
	wanted, given, several := q.one("type")
	if !given {
		return all, nil
	}
	if !several {
		for _, t := range all {
			if t == wanted {
				return []string{t}, nil
			}
		}
	}
	return nil, badRequest("Invalid type: " + strings.Join(q.query["type"], ",") + ". Valid types are: " + strings.Join(all, ", "))
}
