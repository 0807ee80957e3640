package feed_test

import (
	"bytes"
	"cmp"
	"errors"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"telford.dev/telford/server/internal/feed"
)

func TestParseID(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		text string
		want error
	}{
		{"6ba7b810-9dad-11d1-80b4-00c04fd430c8", nil},
		{"6BA7B810-9DAD-11D1-80B4-00C04FD430C8", nil},
		{"", feed.ErrNotUUID},
		{"6ba7b810-9dad-11d1-80b4-00c04fd430c", feed.ErrNotUUID},
		{"6ba7b810-9dad-11d1-80b4-00c04fd430cg", feed.ErrNotUUID},
		{"6ba7b810x9dad-11d1-80b4-00c04fd430c8", feed.ErrNotUUID},
		{"6ba7b810-9dad-41d1-80b4-00c04fd430c8", feed.ErrVersion},
		{"6ba7b810-9dad-11d1-c0b4-00c04fd430c8", feed.ErrVariant},
	} {
		id, err := feed.ParseID(c.text)
		if !errors.Is(err, c.want) {
			t.Errorf("%q: got %v, want %v", c.text, err, c.want)
		}
		if err == nil && id.String() != strings.ToLower(c.text) {
			t.Errorf("%q comes back as %s", c.text, id)
		}
	}
	// An instant with a known id: 1998-02-04 22:13:53.151182.4 UTC.
	id, err := feed.ParseID("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
	if want := time.Date(1998, 2, 4, 22, 13, 53, 151182400, time.UTC); err != nil || !id.Time().Equal(want) {
		t.Errorf("the time is %s, want %s (%v)", id.Time(), want, err)
	}
}

func TestIDsAreOrderedByTimeThenBytes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		draw := func(name string) (feed.ID, time.Time, [8]byte) {
			at := time.Unix(rapid.Int64Range(0, 4e9).Draw(r, name), rapid.Int64Range(0, 9_999_999).Draw(r, name)*100).UTC()
			rest := [8]byte(rapid.SliceOfN(rapid.Byte(), 8, 8).Draw(r, name))
			return feed.NewID(at, rest), at, rest
		}
		a, at, _ := draw("a")
		b, bt, _ := draw("b")
		want := cmp.Or(at.Compare(bt), bytes.Compare(a.Rest[:], b.Rest[:]))
		if got := a.Compare(b); got != want {
			r.Errorf("%s against %s: %d, want %d", a, b, got, want)
		}
		if !a.Time().Equal(at) {
			r.Errorf("the time of %s is %s, want %s", a, a.Time(), at)
		}
		if back, err := feed.ParseID(a.String()); err != nil || back != a {
			r.Errorf("%s comes back as %s (%v)", a, back, err)
		}
	})
}

func FuzzParseID(f *testing.F) {
	f.Add("6ba7b810-9dad-11d1-80b4-00c04fd430c8")
	f.Add("00000000-0000-1000-8000-000000000000")
	f.Add("----")
	f.Fuzz(func(t *testing.T, s string) {
		id, err := feed.ParseID(s)
		if err == nil && id.String() != strings.ToLower(s) {
			t.Errorf("%q comes back as %s", s, id)
		}
	})
}
