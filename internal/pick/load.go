package pick

import (
	"math"
	"sync/atomic"
	"time"
)

// Load is the live state of one instance as this process sees it. It is safe for
// concurrent use; the zero value is an idle instance without a limit that has long been
// warm.
type Load struct {
	outstanding atomic.Int64
	limit       atomic.Int64
	started     atomic.Int64
	away        atomic.Bool
	_           [36]byte // counters of two instances never share a cache line
}

// Begin counts a call as outstanding.
func (l *Load) Begin() { l.outstanding.Add(1) }

// End is the reverse of Begin; each Begin has exactly one.
func (l *Load) End() { l.outstanding.Add(-1) }

// Outstanding returns the number of calls begun and not ended.
func (l *Load) Outstanding() int64 { return max(l.outstanding.Load(), 0) }

// SetLimit says how many outstanding calls the instance takes before others are
// preferred; 0 means any number.
func (l *Load) SetLimit(n int) { l.limit.Store(int64(n)) }

// Full reports whether the limit is reached.
func (l *Load) Full() bool {
	n := l.limit.Load()
	return n > 0 && l.outstanding.Load() >= n
}

// SetAway says whether the instance cannot be reached now; it is not picked then.
func (l *Load) SetAway(away bool) { l.away.Store(away) }

// Away reports what SetAway said last.
func (l *Load) Away() bool { return l.away.Load() }

// Start begins the slow start of a fresh instance. now is on any scale that moves
// forward only, the same as that given to Pick.
func (l *Load) Start(now time.Duration) { l.started.Store(int64(now) + 1) }

// Started returns the time given to Start; long ago when there was none.
func (l *Load) Started() time.Duration {
	if v := l.started.Load(); v != 0 {
		return time.Duration(v - 1)
	}
	return math.MinInt64 / 2
}
