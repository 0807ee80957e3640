package admin

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// self is the key of a list of its own keys.
func self(s string) string { return s }

func TestPagesAreTheList(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		all := rapid.SliceOfNDistinct(rapid.StringN(1, 8, -1), 0, 60, rapid.ID[string]).Draw(t, "all")
		slices.Sort(all)
		size := rapid.Int32Range(1, 20).Draw(t, "size")
		var got []string
		for token, pages := "", 0; ; pages++ {
			page, next, err := paginate(all, size, token, self)
			if err != nil || len(page) > int(size) || pages > len(all) {
				t.Fatalf("page %d of %d items: %v", pages, len(page), err)
			}
			got = append(got, page...)
			if token = next; token == "" {
				break
			}
		}
		if !slices.Equal(got, all) {
			t.Fatalf("pages %q of %q", got, all)
		}
	})
}

func FuzzPageToken(f *testing.F) {
	all := []string{"a", "b", "c", "d"}
	for _, token := range []string{"", "Yg", "!!", "Yg==", "_w", "AAAA"} {
		f.Add(token, int32(2))
	}
	f.Fuzz(func(t *testing.T, token string, size int32) {
		page, next, err := paginate(all, size, token, self)
		if err != nil {
			if page != nil || next != "" {
				t.Fatalf("an error with a page: %q %q", page, next)
			}
			return
		}
		if !slices.IsSorted(page) || len(page) > len(all) {
			t.Fatalf("page %q", page)
		}
	})
}
