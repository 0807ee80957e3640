package limit

import "telford.dev/telford/internal/catalog"

// Share returns what one of n instances gets of a limit that all of them have together.
// Everyone gets the same and at least 1 of each number that is set, so that the sum may
// lie a little below the whole, and above it where there are more instances than the
// number has.
func Share(l catalog.Limit, n int) catalog.Limit {
	if l.Scope != catalog.LimitService || n <= 1 {
		return l
	}
	part := func(whole int) int {
		if whole == 0 {
			return 0
		}
		return max(1, whole/n)
	}
	l.Concurrency, l.Queue, l.Burst = part(l.Concurrency), part(l.Queue), part(l.Burst)
	if l.Rate > 0 {
		l.Rate = max(l.Rate/float64(n), catalog.MinRate)
	}
	return l
}
