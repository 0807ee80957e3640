package policy

import "strings"

// MatchGlob matches a name against a pattern in which * stands for any run of
// characters, also none; the empty pattern matches everything. It takes no memory, and
// time of at most the product of both lengths.
func MatchGlob(pattern, name string) bool {
	if pattern == "" {
		return true
	}
	p, n := 0, 0
	star, mark := -1, 0 // where to go on after the last star, and what it has taken in
	for n < len(name) {
		switch {
		case p < len(pattern) && pattern[p] == '*':
			star, mark = p+1, n
			p++
		case p < len(pattern) && pattern[p] == name[n]:
			p++
			n++
		case star >= 0:
			mark++
			p, n = star, mark
		default:
			return false
		}
	}
	return strings.Trim(pattern[p:], "*") == ""
}

// matchMethod matches a method by its full name or by its last segment.
func matchMethod(pattern, method string) bool {
	if MatchGlob(pattern, method) {
		return true
	}
	at := strings.LastIndexByte(method, '/')
	return at >= 0 && MatchGlob(pattern, method[at+1:])
}

// globsMeet reports whether some name matches both patterns.
func globsMeet(a, b string) bool {
	if a == "" || b == "" {
		return true
	}
	// reach[j] is whether a[:i] and b[:j] can be filled in to be the same.
	reach := make([]bool, len(b)+1)
	for i := 0; i <= len(a); i++ {
		diagonal := false
		for j := 0; j <= len(b); j++ {
			above := i > 0 && reach[j]
			now := i == 0 && j == 0
			if i > 0 && a[i-1] == '*' {
				now = now || above || j > 0 && reach[j-1]
			}
			if j > 0 && b[j-1] == '*' {
				now = now || reach[j-1] || above
			}
			if i > 0 && j > 0 && a[i-1] == b[j-1] {
				now = now || diagonal
			}
			diagonal = above
			reach[j] = now
		}
	}
	return reach[len(b)]
}
