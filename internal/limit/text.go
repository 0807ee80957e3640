package limit

import (
	"strconv"
	"strings"
)

func itoa(n int) string { return strconv.Itoa(n) }

// quote prints a value from outside, whatever it is, at a bearable length.
func quote(s string) string { return strconv.Quote(clip(s)) }

func clip(s string) string {
	const most = 128
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "…"
}
