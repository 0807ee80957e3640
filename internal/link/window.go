package link

import "time"

// window is the receiving half of one credit: how much the other end may still send,
// and how much of what arrived was not given back yet.
type window struct {
	size    int // credit at the most
	left    int // what the other end may send now
	owed    int // arrived and consumed, to be given back
	updated time.Time
}

func newWindow(size int) window { return window{size: size, left: size} }

// arrive counts n bytes that arrived; false when they were more than allowed.
func (w *window) arrive(n int) bool {
	w.left -= n
	return w.left >= 0
}

// consume counts n bytes as used and returns the credit to give back now, 0 for not
// yet. A window that is used up within two round trips is what limits the sender, so
// it is doubled, up to MaxWindow.
func (w *window) consume(n int, now func() time.Time, rtt time.Duration) int {
	w.owed += n
	if w.owed < w.size/2 {
		return 0
	}
	give := w.owed
	w.owed = 0
	t := now()
	if rtt > 0 && !w.updated.IsZero() && t.Sub(w.updated) < 2*rtt && w.size < MaxWindow {
		grown := min(2*w.size, MaxWindow)
		give += grown - w.size
		w.size = grown
	}
	w.updated = t
	w.left += give
	return give
}
