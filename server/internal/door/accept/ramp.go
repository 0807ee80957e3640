package accept

import "time"

// The numbers of a ramp.
const (
	// rampStart is how many connections a second begin at first when many come together,
	// and also how many may begin at once after a pause.
	rampStart = 200
	// rampOpen is the rate from which on none is held up.
	rampOpen = 50_000
	// rampRest is how long nobody must have had to wait for the ramp to begin anew.
	rampRest = 10 * time.Second
	// maxPark is how long a connection waits here for its turn. Those that would have to
	// wait for longer are told when to come back.
	maxPark = time.Second
	// maxAway is the longest that one is told to stay away.
	maxAway = 30 * time.Second
	// maxHaste bounds by how much more than now is hoped to be taken in later, where those
	// that come back are spread.
	maxHaste = 4
)

// ramp says when connections that come together may begin their handshakes: at a rate
// that doubles every second while there is a queue and the handshakes keep up with it,
// and halves where they do not. It is a pure state; its owner guards it. The zero value
// begins.
type ramp struct {
	rate float64
	// turn is when the next connection may begin, promise when the next one that is sent
	// away may come back.
	turn, promise time.Time
	// waited is when somebody last had to wait, paced when the rate last changed.
	waited, paced time.Time
}

// admit says what becomes of a connection: it may begin after park, or is told to come
// back after away, when that is not 0. behind: the handshakes do not keep up.
func (r *ramp) admit(now time.Time, behind bool) (park, away time.Duration) {
	if idle := now.Sub(r.waited); idle >= rampRest || idle < 0 {
		r.rate, r.paced = rampStart, time.Time{}
		r.turn, r.promise = earlier(r.turn, now), earlier(r.promise, now)
	}
	r.pace(now, behind)
	if r.rate >= rampOpen && !behind {
		return 0, 0
	}
	if most := now.Add(-time.Second); r.turn.Before(most) {
		r.turn = most // what was saved up in a pause
	}
	turn := r.turn.Add(r.each(1))
	park = turn.Sub(now)
	if park <= 0 && !behind {
		r.turn = turn
		return 0, 0
	}
	if r.paced.IsZero() || now.Sub(r.waited) >= time.Second {
		r.paced = now // a queue begins
	}
	r.waited = now
	if park <= maxPark && !behind {
		r.turn = turn
		return park, 0
	}
	first := now.Add(maxPark)
	if r.promise.Before(first) {
		r.promise = first
	}
	haste := min(1+r.promise.Sub(now).Seconds(), maxHaste)
	r.promise = r.promise.Add(r.each(haste))
	return 0, min(r.promise.Sub(now), maxAway)
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// each is the time between two connections at haste times the rate.
func (r *ramp) each(haste float64) time.Duration {
	return time.Duration(float64(time.Second) / (r.rate * haste))
}

// pace changes the rate once a second while there is a queue.
func (r *ramp) pace(now time.Time, behind bool) {
	if r.paced.IsZero() || now.Sub(r.paced) < time.Second || now.Sub(r.waited) > time.Second {
		return
	}
	r.paced = now
	if behind {
		r.rate = max(r.rate/2, rampStart/2)
	} else {
		r.rate = min(2*r.rate, rampOpen)
	}
}
