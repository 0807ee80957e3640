package config

import (
	"fmt"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestDiffLines(t *testing.T) {
	t.Parallel()
	var long []string
	for n := range 20 {
		long = append(long, fmt.Sprint(n))
	}
	changed := append([]string(nil), long...)
	changed[10] = "x"
	for _, c := range []struct {
		a, b []string
		want string
	}{
		{nil, nil, ""},
		{[]string{"a"}, []string{"a"}, ""},
		{nil, []string{"a"}, "+a\n"},
		{[]string{"a"}, nil, "-a\n"},
		{[]string{"a", "b", "c"}, []string{"a", "c", "d"}, " a\n-b\n c\n+d\n"},
		{long, changed, "…\n 7\n 8\n 9\n-10\n+x\n 11\n 12\n 13\n…\n"},
	} {
		if got := diffLines(c.a, c.b); got != c.want {
			t.Errorf("%q against %q:\n%swant\n%s", c.a, c.b, got, c.want)
		}
	}
}

// TestDiffMakesOneOfTheOther takes the lines with "-" and " " for the one side, those with
// "+" and " " for the other.
func TestDiffMakesOneOfTheOther(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(r *rapid.T) {
		text := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "", "c"}), 0, 4)
		a, b := text.Draw(r, "a"), text.Draw(r, "b")
		var from, to []string
		got := diffLines(a, b)
		for _, line := range strings.Split(strings.TrimSuffix(got, "\n"), "\n") {
			if line == "" {
				break
			}
			if line == "…" {
				r.Skip("left out")
			}
			if line[0] != '+' {
				from = append(from, line[1:])
			}
			if line[0] != '-' {
				to = append(to, line[1:])
			}
		}
		if got == "" {
			from, to = a, b
			if fmt.Sprint(a) != fmt.Sprint(b) {
				r.Errorf("no difference of %q and %q", a, b)
			}
		}
		if fmt.Sprint(from) != fmt.Sprint(a) || fmt.Sprint(to) != fmt.Sprint(b) {
			r.Errorf("%q against %q:\n%s", a, b, got)
		}
	})
}
