package direct

import (
	"context"
	"math/rand/v2"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/session"
)

// keep watches over one connection until it is no longer the one in use: it finds out
// when the other end is silent, opens the successor in time, and closes the connection
// when nobody has used it for long.
func (p *Peer) keep(c *Conn) {
	clk, calendar := p.pool.opt.Clock, p.pool.opt.Trust.Clock()
	beat := session.NewHeartbeat(p.pool.opt.Interval, 0).Spread(rand.Float64)
	timer := clk.NewTimer(p.next(beat, c))
	defer timer.Stop()
	certificate := calendar.NewTimer(nextOfCertificate(c, calendar.Now()))
	defer certificate.Stop()
	lastUsed := clk.Now()
	retire := false
	for {
		select {
		case <-p.pool.ctx.Done():
			return // Close ends the connection
		case <-c.Done():
			if p.conn.CompareAndSwap(c, nil) && p.pool.ctx.Err() == nil {
				p.pool.opt.Log.Debug("a direct connection has ended", "instance", p.id, "cause", c.Err())
			}
			return
		case <-timer.C():
		case <-certificate.C():
		}
		now, today := clk.Now(), calendar.Now()
		if p.conn.Load() != c {
			return // it was dropped; whoever dropped it ends it
		}
		if c.used.Swap(false) || p.Load.Outstanding() > 0 {
			lastUsed = now
		}
		switch {
		case !c.notAfter.IsZero() && !today.Before(c.notAfter):
			p.conn.CompareAndSwap(c, nil)
			c.Close(errs.New(errs.Unavailable, "the certificate of the connection has ended"))
			return
		case now.Sub(lastUsed) >= idleTimeout:
			if p.conn.CompareAndSwap(c, nil) {
				retire = true
			}
		case !c.renewAt.IsZero() && !today.Before(c.renewAt):
			if p.succeed(c) {
				return
			}
			left := c.notAfter.Sub(today)
			c.renewAt = today.Add(min(max(left/10, 50*time.Millisecond), 30*time.Second))
		case now.Sub(c.LastReceived()) >= p.silence(beat):
			if !p.ping(beat, c) {
				return
			}
		default:
			beat.OnReceived()
		}
		if retire {
			p.pool.retire(c)
			return
		}
		timer.Reset(p.next(beat, c))
		certificate.Reset(nextOfCertificate(c, calendar.Now()))
	}
}

// busyInterval is the longest silence that is put up with while calls wait.
const busyInterval = 3 * time.Second

// silence is the longest silence that is put up with now.
func (p *Peer) silence(beat *session.Heartbeat) time.Duration {
	if p.Load.Outstanding() > 0 {
		return min(beat.Next(), busyInterval)
	}
	return beat.Next()
}

// next is the time until c is to be looked at: calls may begin to wait at any time.
func (p *Peer) next(beat *session.Heartbeat, c *Conn) time.Duration {
	now := p.pool.opt.Clock.Now()
	d := min(beat.Next(), busyInterval)
	if quiet := now.Sub(c.LastReceived()); quiet < d {
		d -= quiet
	}
	return max(d, time.Millisecond)
}

// nextOfCertificate is the time until something is due by the certificates of c.
func nextOfCertificate(c *Conn, now time.Time) time.Duration {
	d := time.Minute // timers do not count the time of a machine that sleeps
	for _, at := range []time.Time{c.renewAt, c.notAfter} {
		if !at.IsZero() {
			d = min(d, at.Sub(now))
		}
	}
	return max(d, time.Millisecond)
}

// ping asks whether the other end lives; false when the connection was given up.
func (p *Peer) ping(beat *session.Heartbeat, c *Conn) bool {
	for {
		ctx, cancel := context.WithTimeout(p.pool.ctx, beat.PongTimeout())
		rtt, err := c.Ping(ctx)
		cancel()
		switch {
		case err == nil:
			beat.OnPong(rtt)
			return true
		case p.pool.ctx.Err() != nil:
			return false
		case c.Err() != nil:
			p.conn.CompareAndSwap(c, nil)
			return false
		case beat.OnMiss():
			silent := errs.New(errs.Unavailable, "instance %s has been silent since %s", p.id, c.LastReceived().UTC().Format(time.RFC3339))
			p.pool.opt.Log.Warn("a direct connection is dead", "instance", p.id, "error", silent)
			if p.conn.CompareAndSwap(c, nil) {
				p.mu.Lock()
				p.failed(silent.Unstarted())
				p.mu.Unlock()
			}
			c.Close(silent)
			return false
		}
	}
}

// succeed opens the successor of c and moves new calls to it.
func (p *Peer) succeed(c *Conn) bool {
	next, err := p.pool.open(p.pool.ctx, p.id, p.target.Load())
	if err != nil {
		p.pool.opt.Log.Warn("the successor of a direct connection could not be opened", "instance", p.id, "error", err)
		return false
	}
	if !p.conn.CompareAndSwap(c, next) {
		next.Close(errs.New(errs.Unavailable, "the connection is not needed"))
		return true
	}
	p.checkRevoked(next)
	p.pool.retire(c)
	p.pool.goFunc(func() { p.keep(next) })
	return true
}
