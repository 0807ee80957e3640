package rest

import (
	"context"
	"iter"
	"net/http"
	"net/url"

	"telford.dev/telford/internal/errs"
)

// list asks for one page.
func list[T any](ctx context.Context, c *Client, op, path string, query func() (url.Values, error)) (Page[T], error) {
	var page Page[T]
	q, err := query()
	if err != nil {
		return page, errs.New(errs.InvalidArgument, "%s: %w", op, err)
	}
	err = c.do(ctx, request{op: op, method: http.MethodGet, path: path, query: q}, &page)
	return page, err
}

// each iterates over a list from marker on. The marker of a page is inclusive, so that
// nothing is skipped when the item it names goes in between; a server whose next marker
// is the last item of the page before has that item passed over.
func each[T any](marker string, id func(T) string, fetch func(marker string) (Page[T], error)) iter.Seq2[T, error] {
	return func(yield func(T, error) bool) {
		last, begun := "", false
		for at := marker; ; {
			page, err := fetch(at)
			if err != nil {
				var none T
				yield(none, err)
				return
			}
			for _, v := range page.Values {
				if begun && id(v) == last {
					continue
				}
				last, begun = id(v), true
				if !yield(v, nil) {
					return
				}
			}
			next := page.Metadata.next()
			if next == "" {
				return
			}
			if next == at {
				var none T
				yield(none, errs.New(errs.Internal, "the list does not advance: the page at marker %q names itself as the next", at))
				return
			}
			at = next
		}
	}
}
