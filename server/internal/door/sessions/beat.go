package sessions

import (
	"context"
	"math"
	"time"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/errs"
)

// deafIntervals is how many heartbeat intervals a command may stay unacknowledged while
// pings are answered.
const deafIntervals = 2

// due is when to look at the connection again.
func (p *Port) due() time.Duration {
	now := p.server.cfg.Clock.Now()
	unreceived, waiting := p.held.Load().peer.OldestUnreceived()
	at := p.lastSign().Add(p.silence(now, unreceived, waiting))
	if p.pinging != nil {
		at = p.pinged.Add(p.beat.PongTimeout())
	}
	left := min(at.Sub(now), p.server.cfg.Interval/2)
	if deaf := unreceived.Add(deafIntervals * p.server.cfg.Interval); waiting && deaf.After(now) {
		left = min(left, deaf.Sub(now))
	}
	return max(left, time.Millisecond)
}

// silence is how long the connection may be silent before it is asked for a sign of
// life. Once commands lie unacknowledged for an interval, the answers must come often
// enough to tell a deaf instance from a dead one.
func (p *Port) silence(now, unreceived time.Time, waiting bool) time.Duration {
	next := p.beat.Next()
	if interval := p.server.cfg.Interval; waiting && now.Sub(unreceived) >= interval {
		next = min(next, interval/3)
	}
	return next
}

// lastSign is the later of the last sign of life and the last time it was asked for.
func (p *Port) lastSign() time.Time {
	if p.pinged.After(p.heard) {
		return p.pinged
	}
	return p.heard
}

// listen takes in that something was received, if it was.
func (p *Port) listen() {
	last := p.t.LastReceived()
	if !last.After(p.heard) {
		return
	}
	p.heard = last
	p.beat.OnReceived()
	h := p.held.Load()
	h.revive(p)
	h.touch()
}

// tick keeps the heartbeat. Everything that was received counts as life.
func (p *Port) tick() {
	cfg := &p.server.cfg
	now := cfg.Clock.Now()
	h := p.held.Load()
	p.listen()
	if p.pinging != nil && now.Sub(p.pinged) >= p.beat.PongTimeout() {
		p.pinging = nil // its answer, should it come, is one more thing received
		if !p.heard.After(p.pinged) && p.beat.OnMiss() {
			h.suspend(p)
		}
	}
	if silence := now.Sub(p.heard); silence >= cfg.Timeout {
		p.t.Close(errs.New(errs.Unavailable, "nothing was heard of the instance for %s", silence.Round(time.Millisecond)))
		return
	}
	oldest, waiting := h.peer.OldestUnreceived()
	if waiting && now.Sub(oldest) >= deafIntervals*cfg.Interval && now.Sub(p.heard) < cfg.Interval && h.carriedBy(p) {
		cfg.Log.Warn("deaf instance", "namespace", h.key.namespace, "instance", h.key.instance, "since", oldest)
		p.server.end(h, errs.New(errs.Unavailable, "instance %s answers pings but has acknowledged no command for %s", h.key.instance, now.Sub(oldest).Round(time.Millisecond)).
			With(errs.MetaReason, errs.ReasonDeaf), nil)
		return
	}
	h.peer.SendAck()
	if p.pinging == nil && now.Sub(p.lastSign()) >= p.silence(now, oldest, waiting) {
		p.ping(now)
	}
}

// ping asks for a sign of life, on a goroutine that ends with the answer.
func (p *Port) ping(now time.Time) {
	answer := make(chan time.Duration, 1)
	p.pinging, p.pinged = answer, now
	timeout := p.server.cfg.Timeout
	p.server.goRun(func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		rtt, err := p.t.Ping(ctx)
		if err != nil {
			rtt = math.MinInt64
		}
		answer <- rtt
	})
}

// ponged takes in the answer to the ping under way.
func (p *Port) ponged(rtt time.Duration) {
	p.pinging = nil
	p.listen()
	if rtt < 0 {
		return // the connection has ended, or the timeout deals with it
	}
	p.beat.OnPong(rtt)
	h := p.held.Load()
	h.mu.Lock()
	raise := !h.raised
	h.raised = true
	h.mu.Unlock()
	if raise {
		// It works: the rest of the permits.
		h.peer.SetPermits(h.permits)
		_ = p.say(&telfordv1.ServerMessage{Message: &telfordv1.ServerMessage_Permits{
			Permits: &telfordv1.Permits{Lane: "calls", Total: uint32(h.permits)},
		}}) // the end of the connection is noticed elsewhere
	}
}

func (h *held) carriedBy(p *Port) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.current == p
}
