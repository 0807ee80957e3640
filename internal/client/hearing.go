package client

import (
	"sync"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
)

// hearing tells whether the instance gets anywhere with the runtime: it is deaf when for
// a while there was no session, or none on which anything moved. Signs of life alone are
// no progress: a connection may answer them and carry nothing.
type hearing struct {
	clock clock.Clock
	limit time.Duration // 0: it never turns deaf
	told  func(deaf bool, since time.Time, cause error)

	mu sync.Mutex
	// last is the latest progress, began when the connection in use began.
	last, began time.Time
	// suspect: the last connection was found to be deaf, so that the next is not believed
	// as soon as it is there.
	suspect bool
	deaf    bool
	over    bool
	cause   error // why there is no progress
	timer   clock.Timer
}

// begin starts to count; progress is due from now on.
func (h *hearing) begin() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.limit <= 0 || h.over || h.timer != nil {
		return
	}
	h.last = h.clock.Now()
	h.timer = h.clock.AfterFunc(h.limit, h.look)
}

// connected notes that a connection carries the session, which is no progress yet.
func (h *hearing) connected() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.began = h.clock.Now()
}

// progress notes that the session has moved on. After a connection that was found to be
// deaf, one has to last for trial to be believed.
func (h *hearing) progress(trial time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over || h.timer == nil || h.suspect && h.clock.Now().Sub(h.began) < trial {
		return
	}
	h.suspect = false
	h.last = h.clock.Now()
	if h.deaf {
		h.deaf, h.cause = false, nil
		h.told(false, h.last, nil)
	}
}

// lost notes why a connection has ended, or was not to be had.
func (h *hearing) lost(cause error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.cause = cause
	if e := errs.From(cause); e != nil && e.Meta[errs.MetaReason] == errs.ReasonDeaf {
		h.suspect = true
	}
}

// look turns deaf when progress is overdue, and looks again when it will be. It runs on
// the clock.
func (h *hearing) look() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.over {
		return
	}
	left := h.last.Add(h.limit).Sub(h.clock.Now())
	if left <= 0 && !h.deaf {
		h.deaf = true
		h.told(true, h.last, h.cause)
	}
	if left <= 0 {
		left = h.limit // progress ends it
	}
	h.timer.Reset(left)
}

// stop ends the counting; whether it is deaf is no longer asked.
func (h *hearing) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.over = true
	if h.timer != nil {
		h.timer.Stop()
	}
}

// state reports whether it is deaf, since when there was no progress, and why.
func (h *hearing) state() (deaf bool, since time.Time, cause error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.deaf, h.last, h.cause
}
