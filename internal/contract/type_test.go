package contract

import (
	"strings"
	"testing"

	"telford.dev/telford/internal/errs"
)

func TestType(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{"": "", "pb:1": "pb", "js:a:b": "js", "none": "none"} {
		if got := Type(text); got != want {
			t.Errorf("%q is of type %q, want %q", text, got, want)
		}
	}
}

func TestCheck(t *testing.T) {
	t.Parallel()
	for _, good := range []string{"", "pb:1", "js:" + strings.Repeat("0a", 32), "later:x"} {
		if err := Check(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"latest", ":1", "pb:", ":", "pb: 1", "pb:\n", "pb:ü", "pb:" + strings.Repeat("x", 300)} {
		err := Check(bad)
		if err == nil || err.Code != errs.InvalidArgument || !err.NotStarted || !strings.Contains(err.Message, "pb:3f2a") || len(err.Message) > 400 {
			t.Errorf("%q: %v", bad, err)
		}
	}
}
