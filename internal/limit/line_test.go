package limit

import (
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// A line does what a slice would do.
func TestLineIsALine(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		var l line
		var model []*waiter
		for range rapid.IntRange(1, 500).Draw(t, "n") {
			switch op := rapid.IntRange(0, 9).Draw(t, "op"); {
			case op < 5:
				model = append(model, l.push())
			case op < 7:
				w := l.pop()
				if len(model) == 0 {
					if w != nil {
						t.Fatal("somebody in an empty line")
					}
					continue
				}
				if w != model[0] || w.at != nil {
					t.Fatal("not the first")
				}
				model = model[1:]
			case len(model) > 0:
				i := rapid.IntRange(0, len(model)-1).Draw(t, "who")
				if got := l.place(model[i]); got != i+1 {
					t.Fatalf("place %d, want %d", got, i+1)
				}
				l.take(model[i])
				model = slices.Delete(model, i, i+1)
			}
		}
		for i, w := range model {
			if got := l.place(w); got != i+1 {
				t.Fatalf("place %d, want %d", got, i+1)
			}
		}
		for _, w := range model {
			if l.pop() != w {
				t.Fatal("not the first")
			}
		}
		if l.pop() != nil {
			t.Fatal("somebody is left")
		}
	})
}
