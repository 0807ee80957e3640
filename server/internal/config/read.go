package config

import (
	"context"
	"errors"
	"math"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
)

// The limits of a page.
const (
	DefaultLimit = 100
	MaxLimit     = 1000
)

// Get returns a value as it is now. not_found: there is none.
func (v *Values) Get(ctx context.Context, namespace, id string) (Value, error) {
	const operation = "get a value"
	if err := CheckID(id); err != nil {
		return Value{}, storageError(operation, err)
	}
	var now *Value
	err := v.cfg.DB.Read(ctx, func(t tx.Tx) (err error) {
		now, err = v.cfg.Storage.ConfigValue(t, namespace, id)
		return err
	})
	if errors.Is(err, tx.ErrNotFound) {
		err = unknown(namespace, id)
	}
	if err != nil {
		return Value{}, storageError(operation, err)
	}
	return *now, nil
}

// At returns a value as it was at a revision of it. not_found: history has no such
// revision of the value.
func (v *Values) At(ctx context.Context, namespace, id string, revision int64) (Change, error) {
	const operation = "get a revision of a value"
	if err := CheckID(id); err != nil {
		return Change{}, storageError(operation, err)
	}
	var row *Row
	err := v.cfg.DB.Read(ctx, func(t tx.Tx) (err error) {
		row, err = v.cfg.Storage.ConfigRevision(t, namespace, id, revision)
		return err
	})
	if errors.Is(err, tx.ErrNotFound) {
		err = noRevision(namespace, id, revision)
	}
	if err != nil {
		return Change{}, storageError(operation, err)
	}
	return row.Change, nil
}

// Query says which values of a namespace are wanted.
type Query struct {
	Namespace string
	// Prefix is what their ids begin with; empty: all.
	Prefix string
	// Marker, unless empty, is where the page begins: with the value of this id, or the
	// first one behind it.
	Marker string
	// Limit is the most values of a page, 1 to MaxLimit; 0: DefaultLimit.
	Limit int
}

// Page is some of the values of a namespace, ordered by id as bytes compare.
type Page struct {
	Values []Value
	// Next is the Marker of the next page; empty: there is none. A page may have fewer
	// values than its limit and yet a next one, when they are large.
	Next string
	// Revision is that of the namespace when the page was read. A watch that begins behind
	// that of the first page tells all that the pages may not.
	Revision int64
	// Count and Bytes are those of all values of the namespace.
	Count, Bytes int64
}

// List returns a page of values. invalid_argument: the prefix, the marker or the limit.
func (v *Values) List(ctx context.Context, q Query) (Page, error) {
	const operation = "list values"
	r, err := v.readRange(q.Namespace, q.Limit)
	if err == nil {
		err = checkPrefix(q.Prefix)
	}
	if err == nil && len(q.Marker) > maxID {
		err = errs.New(errs.InvalidArgument, "marker %q has %d bytes, and the most is %d", clip(q.Marker), len(q.Marker), maxID)
	}
	if err != nil {
		return Page{}, storageError(operation, err)
	}
	var p Page
	err = v.cfg.DB.Read(ctx, func(t tx.Tx) error {
		h, err := v.cfg.Storage.ConfigHead(t, q.Namespace)
		if err != nil {
			return err
		}
		all, next, err := v.cfg.Storage.ConfigValues(t, r, max(q.Prefix, q.Marker), q.Prefix+lastOfID)
		p = Page{Next: next, Revision: h.Revision, Count: h.Count, Bytes: h.Bytes}
		for _, value := range all {
			p.Values = append(p.Values, *value)
		}
		return err
	})
	if err != nil {
		return Page{}, storageError(operation, err)
	}
	return p, nil
}

func (v *Values) readRange(namespace string, limit int) (*Range, error) {
	switch {
	case limit < 0 || limit > MaxLimit:
		return nil, errs.New(errs.InvalidArgument, "limit: %d is not between 1 and %d", limit, MaxLimit)
	case limit == 0:
		limit = DefaultLimit
	}
	return &Range{Namespace: namespace, Limit: limit, MaxBytes: v.cfg.MaxPage}, nil
}

// History is some of the revisions of a value, the newest first.
type History struct {
	Changes []Change
	// Next is where the next page begins; 0: there is none.
	Next int64
}

// History returns the revisions of a value that are kept: from marker, a revision, to
// older ones; 0: from the newest. A value that was removed has a history, too.
// not_found: history knows nothing of the value.
func (v *Values) History(ctx context.Context, namespace, id string, marker int64, limit int) (History, error) {
	const operation = "read the history of a value"
	r, err := v.readRange(namespace, limit)
	if err == nil {
		err = CheckID(id)
	}
	if err != nil {
		return History{}, storageError(operation, err)
	}
	before := int64(math.MaxInt64)
	if marker > 0 && marker < before {
		before = marker + 1
	}
	var rows []*Row
	var out History
	err = v.cfg.DB.Read(ctx, func(t tx.Tx) (err error) {
		rows, out.Next, err = v.cfg.Storage.ConfigHistory(t, r, id, before)
		return err
	})
	if err == nil && len(rows) == 0 && marker <= 0 {
		err = unknown(namespace, id)
	}
	if err != nil {
		return History{}, storageError(operation, err)
	}
	for _, row := range rows {
		out.Changes = append(out.Changes, row.Change)
	}
	return out, nil
}
