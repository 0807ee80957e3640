package policy

import (
	"strings"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
)

// The bounds of a rule, in bytes.
const (
	MaxPeer   = catalog.MaxName
	MaxTarget = catalog.MaxMethodName
)

// Validate reports what is wrong with a rule, as invalid_argument. The id is the
// store's and not looked at.
func (r Rule) Validate() error {
	switch {
	case !catalog.ValidName(r.Service):
		return invalid("service %s must be the name of one service: 1 to %d of a-z, 0-9, '.', '_', '-'; only the peer may be a pattern",
			quote(r.Service), catalog.MaxName)
	case r.Action == HandleJob:
		return invalid("action %s takes no rules, as jobs are started by the runtime alone; switch the capability off instead: telford policy capability %s %s off",
			HandleJob, r.Service, HandleJob)
	case !r.Action.ruled():
		return invalid("action %s must be one of %s", quote(string(r.Action)), actionNames())
	case r.Effect != Allow && r.Effect != Deny:
		return invalid("effect %s must be %q or %q", quote(string(r.Effect)), Allow, Deny)
	}
	if r.Action.ofEvents() {
		if r.Peer != "" {
			return invalid("peer %s: a rule about events names none; it is about topics, whoever publishes or handles them", quote(r.Peer))
		}
		if r.Target != "" {
			return CheckPattern(r.Target)
		}
		return nil
	}
	if r.Peer != "" && !validGlob(r.Peer, MaxPeer, catalog.ValidName) {
		return invalid("peer %s must be the name of a service, or a pattern of 1 to %d of a-z, 0-9, '.', '_', '-' and '*' for any run of characters",
			quote(r.Peer), MaxPeer)
	}
	if r.Target != "" && !validGlob(r.Target, MaxTarget, catalog.ValidMethod) {
		return invalid("target %s must be the name of a method or workflow, or a pattern of 1 to %d letters, digits, '.', '_', '-', ':', '/' and '*' for any run of characters",
			quote(r.Target), MaxTarget)
	}
	return nil
}

// CheckPattern reports what is wrong with a pattern of topics, as invalid_argument.
func CheckPattern(pattern string) error { return checkTopic(pattern, true) }

// CheckTopic reports what is wrong with the name of a topic, as invalid_argument.
func CheckTopic(topic string) error { return checkTopic(topic, false) }

func checkTopic(s string, wild bool) error {
	what := "topic"
	if wild {
		what = "pattern"
	}
	if s == "" || len(s) > MaxTarget {
		return invalid("%s %s must have 1 to %d bytes", what, quote(s), MaxTarget)
	}
	for word := range strings.SplitSeq(s, ".") {
		if validWord(word) || wild && (word == one || word == many) {
			continue
		}
		if wild {
			return invalid("pattern %s: %s must be a word of a-z, 0-9, '_', '-', or '*' for exactly one word, or '#' for any number of words", quote(s), quote(word))
		}
		return invalid("topic %s: %s must be a word of a-z, 0-9, '_', '-'", quote(s), quote(word))
	}
	return nil
}

func validWord(s string) bool {
	if s == "" {
		return false
	}
	for i := range len(s) {
		c := s[i]
		if (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// validGlob reports whether s could match something that valid accepts: with its stars
// filled in it has to be valid itself.
func validGlob(s string, most int, valid func(string) bool) bool {
	return len(s) <= most && valid(strings.ReplaceAll(s, "*", "x"))
}

func actionNames() string {
	var names []string
	for _, a := range Actions() {
		if a.ruled() {
			names = append(names, string(a))
		}
	}
	return strings.Join(names, ", ")
}

func invalid(format string, args ...any) error {
	return errs.New(errs.InvalidArgument, format, args...)
}

// quote prints a value from outside, whatever it is, at a bearable length.
func quote(s string) string {
	const most = 160
	if len(s) > most {
		s = s[:most] + "…"
	}
	return `"` + strings.ToValidUTF8(strings.Map(printable, s), "\uFFFD") + `"`
}

func printable(r rune) rune {
	if r < ' ' || r == 0x7f {
		return '\uFFFD'
	}
	return r
}
