package admin

import (
	"encoding/base64"
	"sort"

	"telford.dev/telford/internal/errs"
)

// The sizes of a page.
const (
	defaultPage = 100
	maxPage     = 1000
)

// paginate returns the page behind token of a list that is sorted by key, whose values
// are unique and not empty, and the token of the next page. A token names the last item
// of its page, so that what comes and goes meanwhile neither repeats nor hides other
// items.
func paginate[T any](all []T, size int32, token string, key func(T) string) ([]T, string, error) {
	if size < 0 || size > maxPage {
		return nil, "", errs.New(errs.InvalidArgument, "page_size: %d is outside 0 to %d", size, maxPage)
	}
	if size == 0 {
		size = defaultPage
	}
	if token != "" {
		last, err := base64.RawURLEncoding.DecodeString(token)
		if err != nil {
			return nil, "", errs.New(errs.InvalidArgument, "page_token: %q was not made by this API; pass next_page_token of the page before, or nothing", token)
		}
		all = all[sort.Search(len(all), func(i int) bool { return key(all[i]) > string(last) }):]
	}
	if len(all) <= int(size) {
		return all, "", nil
	}
	return all[:size], base64.RawURLEncoding.EncodeToString([]byte(key(all[size-1]))), nil
}
