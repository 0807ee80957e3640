package resilience

import (
	"cmp"
	"slices"
	"time"
)

// The numbers of ejection.
const (
	// OutlierStreak is how many failures in a row make an outlier.
	OutlierStreak = 5
	// OutlierCalls is the least number of calls in WindowTime by which the success share
	// of an instance is compared.
	OutlierCalls = 20
	// OutlierGap is how far the success share of an outlier lies below the mean of the
	// others.
	OutlierGap = 0.2
	// EjectionBase is how long the first ejection lasts, EjectionMax the longest. What
	// was an outlier EjectionMemory ago begins anew.
	EjectionBase   = 10 * time.Second
	EjectionMax    = 5 * time.Minute
	EjectionMemory = 10 * time.Minute
)

// Stats is how the calls of one instance have ended in the last WindowTime.
type Stats struct {
	OK, Failed int
	// Streak is how many have failed in a row up to now.
	Streak int
	// Ejected: it is avoided as an outlier now.
	Ejected bool
}

func (s Stats) calls() int     { return s.OK + s.Failed }
func (s Stats) share() float64 { return float64(s.OK) / float64(s.calls()) }

// Outliers returns the indexes of the instances of one service that are to be ejected
// now, the worst first: those whose success share lies OutlierGap below the mean of the
// others, and those with OutlierStreak failures in a row. Together with those that are
// ejected already they are never more than half of all.
func Outliers(group []Stats) []int {
	room := len(group) / 2
	var sum float64
	var compared int
	for _, s := range group {
		if s.Ejected {
			room--
			continue
		}
		if s.calls() >= OutlierCalls {
			sum += s.share()
			compared++
		}
	}
	if room <= 0 {
		return nil
	}
	var found []int
	for i, s := range group {
		if s.Ejected {
			continue
		}
		apart := s.calls() >= OutlierCalls && compared > 1 &&
			s.share()+OutlierGap <= (sum-s.share())/float64(compared-1)
		if apart || s.Streak >= OutlierStreak {
			found = append(found, i)
		}
	}
	slices.SortStableFunc(found, func(a, b int) int {
		return cmp.Or(cmp.Compare(worth(group[a]), worth(group[b])), cmp.Compare(group[b].Streak, group[a].Streak))
	})
	return found[:min(room, len(found))]
}

// worth is the success share, 0 where nothing has ended well.
func worth(s Stats) float64 {
	if s.OK == 0 {
		return 0
	}
	return s.share()
}

// ejection is the part of a Health that is about being an outlier.
type ejection struct {
	until time.Duration
	times int
}

// again ejects once more.
func (e *ejection) again(now time.Duration, random float64) {
	if e.times > 0 && now-e.until >= EjectionMemory {
		e.times = 0
	}
	e.times++
	e.until = now + EjectionTime(e.times, random)
}

// EjectionTime is how long the ejection of that number lasts, from 1, give or take a
// tenth. random is in [0, 1).
func EjectionTime(times int, random float64) time.Duration {
	d := min(EjectionBase*time.Duration(min(max(times, 1), 1000)), EjectionMax)
	return time.Duration(float64(d) * (0.9 + 0.2*random))
}
