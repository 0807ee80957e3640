package catalog

import (
	"fmt"
	"math"
	"strings"
	"time"
)

// The bounds of one Limit.
const (
	// MaxLimits is how many limits one method has at most.
	MaxLimits = 8
	// MaxConcurrency and MaxQueue bound Concurrency and Queue.
	MaxConcurrency = 1_000_000
	MaxQueue       = 1_000_000
	// MinRate and MaxRate bound Rate: from about nine in a day to a million in a second.
	MinRate = 0.0001
	MaxRate = 1_000_000
	// MaxBurst bounds Burst.
	MaxBurst = 1_000_000
	// MaxTimeout bounds the timeout of a method.
	MaxTimeout = 30 * 24 * time.Hour
)

// The keys of a Limit, and the beginnings of those that have a name.
const (
	KeyCaller = "caller"
	KeyFunc   = "func"
	KeyHeader = "header:"
	KeyField  = "field:"
)

// The scopes of a Limit.
const (
	LimitInstance = "instance"
	LimitService  = "service"
)

// Problems returns what is wrong with l, one sentence each, none if nothing is.
func (l *Limit) Problems() []string {
	var found []string
	bad := func(format string, args ...any) { found = append(found, fmt.Sprintf(format, args...)) }
	between := func(name string, n, most int) {
		if n < 0 || n > most {
			bad("%s %d is not between 0 and %d", name, n, most)
		}
	}
	between("concurrency", l.Concurrency, MaxConcurrency)
	between("queue", l.Queue, MaxQueue)
	between("burst", l.Burst, MaxBurst)
	if math.IsNaN(l.Rate) || l.Rate != 0 && (l.Rate < MinRate || l.Rate > MaxRate) {
		bad("rate %v is not between %v and %d in a second", l.Rate, MinRate, MaxRate)
	}
	switch {
	case l.Concurrency == 0 && l.Rate == 0:
		bad("it bounds nothing: give concurrency, rate or both")
	case l.Concurrency == 0 && l.Queue != 0:
		bad("queue %d means nothing without concurrency", l.Queue)
	case l.Rate == 0 && l.Burst != 0:
		bad("burst %d means nothing without rate", l.Burst)
	}
	if p := keyProblem(l.Key); p != "" {
		bad("%s", p)
	}
	if l.Scope != "" && l.Scope != LimitInstance && l.Scope != LimitService {
		bad("scope %s must be %q or %q", quote(l.Scope), LimitInstance, LimitService)
	}
	return found
}

// keyProblem says what is wrong with the key of a limit, "" if nothing is.
func keyProblem(key string) string {
	if key == "" || key == KeyCaller || key == KeyFunc {
		return ""
	}
	if name, ok := strings.CutPrefix(key, KeyHeader); ok {
		if !shaped(name, MaxName, func(c byte) bool { return lower(c) || digit(c) || mark(c) }) {
			return fmt.Sprintf("key %s must name a header in lower case: 1 to %d of a-z, 0-9, '.', '_', '-'", quote(key), MaxName)
		}
		return ""
	}
	if name, ok := strings.CutPrefix(key, KeyField); ok {
		if !shaped(name, MaxName, func(c byte) bool { return lower(c) || upper(c) || digit(c) || c == '_' || c == '-' }) {
			return fmt.Sprintf("key %s must name a field at the top of the request: 1 to %d letters, digits, '_', '-'", quote(key), MaxName)
		}
		return ""
	}
	return fmt.Sprintf("key %s is none of \"\", %q, %q, %q, %q", quote(key), KeyCaller, KeyHeader+"NAME", KeyField+"NAME", KeyFunc)
}
