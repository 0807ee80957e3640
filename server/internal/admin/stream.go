package admin

import (
	"context"
	"encoding/base64"

	"telford.dev/telford/internal/errs"
)

// untilStop is ctx that also ends when the API stops. The goroutine for it ends with
// cancel.
func (a *API) untilStop(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		select {
		case <-a.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// running says why a stream must end, nil while it need not.
func (a *API) running() error {
	select {
	case <-a.stopping:
		return errs.New(errs.Unavailable, "the runtime is stopping; go on from the last place that was sent, after its restart")
	default:
		return nil
	}
}

// markerPage reads the page of a list whose domain cuts it itself: a token is the marker
// of the first item.
func markerPage(size int32, token string) (marker string, limit int, err error) {
	if size < 0 || size > maxPage {
		return "", 0, errs.New(errs.InvalidArgument, "page_size: %d is outside 0 to %d", size, maxPage)
	}
	if size == 0 {
		size = defaultPage
	}
	b, err := base64.RawURLEncoding.DecodeString(token)
	if err != nil {
		return "", 0, badToken(token)
	}
	return string(b), int(size), nil
}

// markerToken is the token of the page that begins with a marker, empty for none.
func markerToken(marker string) string { return base64.RawURLEncoding.EncodeToString([]byte(marker)) }

func badToken(token string) error {
	return errs.New(errs.InvalidArgument, "page_token: %q was not made by this API; pass next_page_token of the page before, or nothing", token)
}
