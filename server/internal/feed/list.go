package feed

import (
	"context"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
)

// The limits of a page.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

const maxTypes = 32 // in one request

// Query says which events of a namespace are wanted.
type Query struct {
	Namespace string
	// Marker, unless zero, is where the page begins: with the event of this id, or the
	// first one behind it.
	Marker ID
	// Since, unless zero, is where the page begins when there is no Marker.
	Since time.Time
	// Until, unless zero, leaves out events of this time and later ones.
	Until time.Time
	// Types are those that are wanted; none: all.
	Types []string
	// Limit is the most events of a page, 1 to MaxLimit; 0: DefaultLimit.
	Limit int
}

// Page is some of the events of a namespace, ordered by id.
type Page struct {
	Events []Event
	// Next is the Marker of the next page; zero: there is none yet. A page may have fewer
	// events than its limit and yet a next one, when they are large.
	Next ID
}

// List returns a page of events. invalid_argument: a limit or a type.
func (f *Feed) List(ctx context.Context, q *Query) (Page, error) {
	const operation = "list events"
	r, err := f.readRange(q.Namespace, q.Types, q.Limit)
	if err != nil {
		return Page{}, storageError(operation, err)
	}
	from, until := q.Marker, ID{Ticks: maxTicks}
	if from == (ID{}) && !q.Since.IsZero() {
		from.Ticks = ticks(q.Since)
	}
	if !q.Until.IsZero() {
		until.Ticks = ticks(q.Until)
	}
	var rows []*Row
	err = f.cfg.DB.Read(ctx, func(t tx.Tx) (err error) {
		rows, err = f.cfg.Storage.Events(t, r, from, until)
		return err
	})
	if err != nil {
		return Page{}, storageError(operation, err)
	}
	var p Page
	for i, row := range rows {
		if row.Payload == nil || i == r.Limit {
			p.Next = row.ID
			break
		}
		p.Events = append(p.Events, row.event())
	}
	return p, nil
}

func (f *Feed) readRange(namespace string, types []string, limit int) (*Range, error) {
	switch {
	case limit < 0 || limit > MaxLimit:
		return nil, errs.New(errs.InvalidArgument, "limit: %d is not between 1 and %d", limit, MaxLimit)
	case limit == 0:
		limit = DefaultLimit
	}
	if len(types) > maxTypes {
		return nil, errs.New(errs.InvalidArgument, "types: %d are named, and the most is %d", len(types), maxTypes)
	}
	for _, typ := range types {
		if err := CheckType(typ); err != nil {
			return nil, err
		}
	}
	return &Range{Namespace: namespace, Types: types, Limit: limit, MaxBytes: f.cfg.MaxPage}, nil
}
