package rest

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"
)

const (
	minRetry = 100 * time.Millisecond
	maxRetry = 30 * time.Second
	// takenRetry is how often a new registration looks whether the service that has its
	// id is gone.
	takenRetry = 2 * time.Second
)

// run is the goroutine of a Heartbeater.
func (h *Heartbeater) run(ctx context.Context, token string) {
	defer close(h.done)
	defer h.stop()
	reclaim := false // the service that has our id is ours
	for ctx.Err() == nil {
		if token == "" {
			if token = h.register(ctx, reclaim); token == "" {
				return
			}
			reclaim = false
		}
		if !pause(ctx, h.client.clock, h.interval()) {
			return
		}
		next, unsure, err := h.beat(ctx, token)
		if ctx.Err() != nil {
			return
		}
		if token = next; err == nil {
			continue
		}
		h.setRegistered(false)
		h.client.log.WarnContext(ctx, "the registry does not know the service any more", "service", h.service.ID, "error", err)
		call(h.opt.OnLost, err)
		if h.opt.NoRecreate {
			h.mu.Lock()
			h.err = err
			h.mu.Unlock()
			return
		}
		// An answer that got lost took the next token with it, so that the registry refuses
		// the old one while the service is alive.
		reclaim = unsure && !lostService(err)
	}
}

// register creates the service, however long it takes; "" when ctx ends. A service that
// has the id is waited out, unless it is ours by an attempt whose answer was lost.
func (h *Heartbeater) register(ctx context.Context, reclaim bool) string {
	wait := minRetry
	for {
		token, err := h.client.CreateService(ctx, h.current())
		if err == nil {
			h.setRegistered(true)
			h.client.log.InfoContext(ctx, "registered", "service", h.service.ID)
			call0(h.opt.OnRegistered)
			return token
		}
		if ctx.Err() != nil {
			return ""
		}
		taken := errors.Is(err, ErrServiceExists)
		if taken && reclaim && h.remove(ctx) {
			reclaim = false
			continue
		}
		reclaim = reclaim || uncertain(err)
		h.client.log.WarnContext(ctx, "could not register", "service", h.service.ID, "error", err)
		call(h.opt.OnError, err)
		d := wait
		if taken {
			d = takenRetry
		} else {
			wait = min(2*wait, maxRetry)
		}
		if !pause(ctx, h.client.clock, jitter(d)) {
			return ""
		}
	}
}

// remove takes the service that has our id away if it is what we registered, and reports
// whether the id is free.
func (h *Heartbeater) remove(ctx context.Context) bool {
	want := h.current()
	has, err := h.client.GetService(ctx, want.ID)
	if err == nil {
		if has.HeartbeatTimeout != want.HeartbeatTimeout || !slices.Equal(has.Tags, want.Tags) || !maps.Equal(has.Metadata, want.Metadata) {
			return false
		}
		err = h.client.RemoveService(ctx, want.ID)
	}
	return err == nil || errors.Is(err, ErrNotFound)
}

// beat heartbeats, as often as it takes. Its error says that the service or its token is
// lost; unsure, that an attempt before may have been done.
func (h *Heartbeater) beat(ctx context.Context, token string) (next string, unsure bool, err error) {
	timeout := h.current().HeartbeatTimeout
	// An attempt that hangs leaves time for another one before the service lapses.
	bound := max(time.Second, timeout/10)
	for wait := minRetry; ; wait = min(2*wait, timeout/4) {
		attempt, cancel := context.WithTimeout(ctx, bound)
		next, err = h.client.Heartbeat(attempt, h.service.ID, token)
		cancel()
		switch {
		case err == nil:
			if h.opt.OnHeartbeat != nil {
				h.opt.OnHeartbeat(h.client.clock.Now())
			}
			return next, unsure, nil
		case ctx.Err() != nil:
			return "", unsure, err
		case errors.Is(err, ErrNotFound), errors.Is(err, ErrBadRequest):
			return "", unsure, err
		}
		unsure = unsure || uncertain(err)
		h.client.log.WarnContext(ctx, "a heartbeat failed and is repeated", "service", h.service.ID, "error", err)
		call(h.opt.OnError, err)
		if !pause(ctx, h.client.clock, jitter(wait)) {
			return "", unsure, err
		}
	}
}

// lostService reports whether a 404 names the service, not its token.
func lostService(err error) bool {
	var f *Fault
	return errors.As(err, &f) && strings.HasPrefix(f.Details, `Object "Service"`)
}

// jitter is a pause of half to all of d.
func jitter(d time.Duration) time.Duration {
	return d - rand.N(d/2+1) //nolint:gosec // spreads load, guards nothing
}

func call(f func(error), err error) {
	if f != nil {
		f(err)
	}
}

func call0(f func()) {
	if f != nil {
		f()
	}
}
