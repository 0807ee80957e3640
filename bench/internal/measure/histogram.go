// Package measure owns what every benchmark shares: a histogram, the loop that calls
// as fast as the answers come, CPU time of processes, children that end with their
// parent, and the report. It knows no stack and judges nothing. A loop's goroutines
// have ended when it returns; a child's reader ends with the child.
package measure

import (
	"math/bits"
	"time"
)

// subBits sets the precision: 64 buckets an octave, so at most 1.6 % off.
const subBits = 6

// Histogram counts durations in buckets that grow with the value. The zero value is
// empty and ready. It is for one goroutine.
type Histogram struct {
	counts [(65 - subBits) << subBits]uint64
	total  uint64
}

func bucket(ns uint64) int {
	if ns < 1<<subBits {
		return int(ns)
	}
	shift := bits.Len64(ns) - 1 - subBits
	return (shift+1)<<subBits + int(ns>>shift)&(1<<subBits-1)
}

func lowest(bucket int) uint64 {
	if bucket < 1<<subBits {
		return uint64(bucket)
	}
	shift := bucket>>subBits - 1
	return (1<<subBits | uint64(bucket&(1<<subBits-1))) << shift
}

// Add counts one duration; negative ones count as none.
func (h *Histogram) Add(d time.Duration) {
	h.counts[bucket(uint64(max(d, 0)))]++
	h.total++
}

// Merge adds what another histogram counted.
func (h *Histogram) Merge(o *Histogram) {
	for i, n := range o.counts {
		h.counts[i] += n
	}
	h.total += o.total
}

// Count is the number of durations.
func (h *Histogram) Count() uint64 { return h.total }

// Quantile returns the duration below which the part q of all lie; 0 when empty.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.total == 0 {
		return 0
	}
	rank := min(uint64(q*float64(h.total)), h.total-1)
	var seen uint64
	for i, n := range h.counts {
		if seen += n; seen > rank {
			return time.Duration(lowest(i))
		}
	}
	return 0
}
