package errs_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"telford.dev/telford/internal/errs"
)

func TestIs(t *testing.T) {
	t.Parallel()
	open := errs.New(errs.Unavailable, "cut off").With(errs.MetaReason, errs.ReasonBreakerOpen).With("service", "payments")
	sentinel := &errs.Error{Code: errs.Unavailable, Meta: map[string]string{errs.MetaReason: errs.ReasonBreakerOpen}}
	for name, c := range map[string]struct {
		err, target error
		want        bool
	}{
		"code":                    {open, &errs.Error{Code: errs.Unavailable}, true},
		"wrapped":                 {fmt.Errorf("asking: %w", open), sentinel, true},
		"another code":            {open, &errs.Error{Code: errs.Internal}, false},
		"reason":                  {open, sentinel, true},
		"another reason":          {open.With(errs.MetaReason, "away"), sentinel, false},
		"no reason":               {errs.New(errs.Unavailable, "away"), sentinel, false},
		"an empty value is there": {open, &errs.Error{Code: errs.Unavailable, Meta: map[string]string{"zone": ""}}, false},
		"reason of another code":  {errs.New(errs.Internal, "x").With(errs.MetaReason, errs.ReasonBreakerOpen), sentinel, false},
		"target with a message":   {open, &errs.Error{Code: errs.Unavailable, Message: "cut off"}, false},
		"deadline":                {errs.New(errs.DeadlineExceeded, "late"), context.DeadlineExceeded, true},
		"cancelled":               {errs.New(errs.Canceled, "gone"), context.Canceled, true},
		"not cancelled":           {errs.New(errs.Internal, "gone"), context.Canceled, false},
	} {
		if got := errors.Is(c.err, c.target); got != c.want {
			t.Errorf("%s: errors.Is(%v, %v) = %v", name, c.err, c.target, got)
		}
	}
}
