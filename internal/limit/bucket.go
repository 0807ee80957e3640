package limit

import (
	"math"
	"sync/atomic"
	"time"
)

// Bucket is a token bucket without a lock: it holds burst tokens at most, gets rate of
// them in a second, and a call takes one. Times are measured from any fixed moment. The
// zero value lets everything pass; Set gives it its pace. It is safe for concurrent use.
type Bucket struct {
	pace atomic.Pointer[pace]
	// full is when the bucket will be full again if nobody takes more, in ticks.
	full atomic.Int64
}

// ticks are the fractions of a nanosecond in which a bucket counts, so that a million
// calls a second are not rounded to another number. They last 18 years.
const ticks = 16

// pace is how fast tokens come.
type pace struct {
	step  int64 // ticks from one token to the next, rounded up
	depth int64 // ticks that fill the empty bucket
}

// newPace returns the pace of a rate above 0; burst 0 means the tokens of one second.
func newPace(rate float64, burst int) *pace {
	if burst <= 0 {
		burst = max(1, int(math.Ceil(rate)))
	}
	const most = math.MaxInt64 / 4
	step := int64(min(math.Ceil(float64(time.Second)*ticks/rate), most))
	depth := int64(most)
	if step <= most/int64(burst) {
		depth = step * int64(burst)
	}
	return &pace{step, depth}
}

// Set changes the pace from now on; rate 0 lets everything pass. What has been taken stays
// taken: a bucket with half of its tokens has as many missing afterwards.
func (b *Bucket) Set(rate float64, burst int, now time.Duration) {
	if rate <= 0 {
		b.pace.Store(nil)
		return
	}
	next := newPace(rate, burst)
	old := b.pace.Swap(next)
	if old == nil || *old == *next {
		return
	}
	at := int64(now) * ticks
	for {
		full := b.full.Load()
		if full <= at {
			return
		}
		taken := float64(full-at) / float64(old.step)
		missing := int64(min(taken*float64(next.step), float64(next.depth)))
		if b.full.CompareAndSwap(full, at+missing) {
			return
		}
	}
}

// Take takes a token, or says after how long there will be one.
func (b *Bucket) Take(now time.Duration) (wait time.Duration, ok bool) {
	p := b.pace.Load()
	if p == nil {
		return 0, true
	}
	at := int64(now) * ticks
	for {
		full := b.full.Load()
		next := max(full, at) + p.step
		if over := next - at - p.depth; over > 0 {
			return time.Duration((over + ticks - 1) / ticks), false
		}
		if b.full.CompareAndSwap(full, next) {
			return 0, true
		}
	}
}

// Return puts back a token whose call never began.
func (b *Bucket) Return() {
	if p := b.pace.Load(); p != nil {
		b.full.Add(-p.step)
	}
}

// Full reports whether nothing is missing, so that forgetting the bucket changes nothing.
func (b *Bucket) Full(now time.Duration) bool { return b.full.Load() <= int64(now)*ticks }
