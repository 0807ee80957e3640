package limit

import "time"

// pulse measures how often somebody leaves a gate that is full, which is how fast its line
// moves.
type pulse struct {
	last  time.Time     // zero: the gate was not full
	every time.Duration // 0: not known
}

// beat notes that somebody left.
func (p *pulse) beat(now time.Time) {
	if !p.last.IsZero() {
		if d := max(now.Sub(p.last), 1); p.every == 0 {
			p.every = d
		} else {
			p.every += (d - p.every) / 8
		}
	}
	p.last = now
}

// pause notes that the gate was not full.
func (p *pulse) pause() { p.last = time.Time{} }

// The bounds of an estimate, and what is said where nothing is known.
const (
	minEstimate     = 10 * time.Millisecond
	maxEstimate     = 30 * time.Second
	unknownEstimate = 100 * time.Millisecond
)

// estimate says about when n more will have left.
func (p *pulse) estimate(n int) time.Duration {
	if p.every == 0 {
		return unknownEstimate
	}
	return min(max(time.Duration(min(float64(p.every)*float64(max(n, 1)), float64(maxEstimate))), minEstimate), maxEstimate)
}
