package match

import (
	"cmp"
	"strings"
)

// CompareVersions orders versions: dot-separated parts, numbers by value and others by
// text, a number before a text; of two with the same parts, one with a suffix behind "-"
// (a pre-release) is older than one without. A leading "v" and all behind "+" do not
// count. The empty version is the oldest.
func CompareVersions(a, b string) int {
	if a == b {
		return 0
	}
	a, preA := splitVersion(a)
	b, preB := splitVersion(b)
	if c := compareParts(a, b); c != 0 {
		return c
	}
	if (preA == "") != (preB == "") {
		if preA == "" {
			return 1
		}
		return -1
	}
	return compareParts(preA, preB)
}

func splitVersion(s string) (core, pre string) {
	s, _, _ = strings.Cut(strings.TrimPrefix(s, "v"), "+")
	core, pre, _ = strings.Cut(s, "-")
	return core, pre
}

func compareParts(a, b string) int {
	for a != "" || b != "" {
		var x, y string
		x, a, _ = strings.Cut(a, ".")
		y, b, _ = strings.Cut(b, ".")
		nx, ny := digits(x), digits(y)
		var c int
		switch {
		case nx && ny:
			x, y = strings.TrimLeft(x, "0"), strings.TrimLeft(y, "0")
			c = cmp.Or(cmp.Compare(len(x), len(y)), cmp.Compare(x, y))
		case nx != ny && x != "" && y != "":
			c = 1
			if nx {
				c = -1
			}
		default:
			c = cmp.Compare(x, y)
		}
		if c != 0 {
			return c
		}
	}
	return 0
}

func digits(s string) bool {
	for i := range len(s) {
		if s[i] < '0' || s[i] > '9' {
			return false
		}
	}
	return s != ""
}
