package direct

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/pick"
	"telford.dev/telford/internal/resilience"
)

// target is where a peer is and who must be there.
type target struct{ addr, service, namespace string }

// Peer is one instance as this process sees it.
type Peer struct {
	Load pick.Load
	// Health is all that speaks against calling it: that it cannot be reached, its
	// breaker and its ejection.
	Health resilience.Health

	pool   *Pool
	id     string
	target atomic.Pointer[target]
	conn   atomic.Pointer[Conn]
	// probeAt is when a peer that is bad may be tried again, on the scale of Pool.Now.
	probeAt atomic.Int64

	mu       sync.Mutex
	dialing  *dial
	failures int
	retryAt  time.Duration
	lastErr  error
	gone     bool
}

// dial is an attempt under way; err is set when done is closed.
type dial struct {
	done chan struct{}
	err  error
}

// ID is the instance id.
func (p *Peer) ID() string { return p.id }

// Ready returns the connection in use, nil when there is none.
func (p *Peer) Ready() *Conn { return p.conn.Load() }

// Trouble reports whether something speaks against calling any peer of the pool; the
// cheap question before the Health of each is asked.
func (p *Pool) Trouble() bool { return p.tracker.Trouble() }

// Ended takes in how an attempt on this peer has ended. When that opens its breaker,
// who asked for it is told.
func (p *Peer) Ended(t resilience.Ticket, v resilience.Verdict) {
	opened := p.Health.Record(p.pool.Now(), t, v, rand.Float64()) //nolint:gosec // spreads load, guards nothing
	if !opened {
		return
	}
	p.pool.opt.Log.Warn("calls of an instance are cut off because they fail", "instance", p.id)
	if p.pool.opt.OnFailing != nil {
		p.pool.opt.OnFailing(p.id)
	}
}

// Probe has a peer that is bad tried again on the side, when it is time. Without it one
// that nobody has to wait for would stay bad.
func (p *Peer) Probe() {
	if at := p.probeAt.Load(); at <= int64(p.pool.Now()) && p.probeAt.CompareAndSwap(at, int64(p.pool.Now()+dialTimeout)) {
		p.Connect()
	}
}

// Eject has the peer avoided for a while as an outlier of its service.
func (p *Peer) Eject() {
	p.Health.Eject(p.pool.Now(), rand.Float64()) //nolint:gosec // spreads load, guards nothing
	p.pool.opt.Log.Warn("an instance is avoided because it fails where others of its service do not", "instance", p.id)
}

// move sets where the peer is; what was learnt about the old place is forgotten.
func (p *Peer) move(t *target) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.target.Store(t)
	p.failures, p.lastErr = 0, nil
	p.probeAt.Store(0)
	p.Health.Reset()
}

// Connect starts to dial unless there is a connection, or a dial is under way, or it
// is too early to try again.
func (p *Peer) Connect() { _, _ = p.begin() }

// Conn returns the connection in use, dialing and waiting for it where there is none.
func (p *Peer) Conn(ctx context.Context) (*Conn, error) {
	for {
		if c := p.conn.Load(); c != nil {
			return c, nil
		}
		d, err := p.begin() //nolint:contextcheck // the dial belongs to the pool
		if err != nil {
			return nil, err
		}
		if d == nil {
			continue // somebody has just connected
		}
		select {
		case <-d.done:
			if d.err != nil {
				return nil, d.err
			}
		case <-ctx.Done():
			return nil, errs.From(ctx.Err()).In("sdk", "connect to instance "+p.id).Unstarted()
		}
	}
}

// begin joins the dial under way or starts one; nil when there is a connection.
func (p *Peer) begin() (*dial, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.conn.Load() != nil:
		return nil, nil
	case p.dialing != nil:
		return p.dialing, nil
	case p.gone:
		return nil, errs.New(errs.Unavailable, "instance %s is gone", p.id).Unstarted()
	case p.lastErr != nil && p.pool.Now() < p.retryAt:
		return nil, p.lastErr
	}
	d := &dial{done: make(chan struct{})}
	if !p.pool.goFunc(func() { p.dial(d) }) {
		return nil, errs.New(errs.Unavailable, "this process has stopped").Unstarted()
	}
	p.dialing = d
	return d, nil
}

// dial makes one attempt and tells everybody who waits for it.
func (p *Peer) dial(d *dial) {
	c, err := p.pool.open(p.pool.ctx, p.id, p.target.Load())
	p.mu.Lock()
	p.dialing = nil
	if err == nil && p.gone {
		err = errs.New(errs.Unavailable, "instance %s is gone", p.id).Unstarted()
	}
	if err != nil {
		p.failed(err)
		p.mu.Unlock()
		if c != nil {
			c.Close(err)
		}
		d.err = err
		close(d.done)
		return
	}
	p.failures, p.lastErr = 0, nil
	p.Health.SetBad(false)
	p.Load.Start(p.pool.Now())
	p.conn.Store(c)
	p.mu.Unlock()
	p.checkRevoked(c)
	close(d.done)
	p.keep(c)
}

// checkRevoked gives c, which was just put in use, up if the other end was revoked while
// it was opened; later news finds it in use.
func (p *Peer) checkRevoked(c *Conn) {
	if err := p.pool.opt.Trust.CheckRevoked(c.id); err != nil && p.conn.CompareAndSwap(c, nil) {
		c.Close(err)
	}
}

// failed notes, with mu held, that the peer cannot be reached now.
func (p *Peer) failed(err error) {
	p.failures++
	p.lastErr = err
	wait := min(minBackoff<<min(p.failures-1, 10), maxBackoff)
	wait = wait/2 + rand.N(wait/2+1) //nolint:gosec // spreads load, guards nothing
	if after := errs.From(err).RetryAfter; after > 0 {
		wait += after // who were told the same do not come together
	}
	p.retryAt = p.pool.Now() + wait
	p.probeAt.Store(int64(p.retryAt))
	p.Health.SetBad(true)
}

// Refused notes that the peer takes no more calls on c, which may still end those it
// has: the next call dials anew.
func (p *Peer) Refused(c *Conn) {
	if p.conn.CompareAndSwap(c, nil) {
		p.mu.Lock()
		p.failed(errs.New(errs.Unavailable, "instance %s takes no more calls", p.id).Unstarted())
		p.mu.Unlock()
		p.pool.retire(c)
	}
}

// drop marks the peer as gone and takes its connection.
func (p *Peer) drop() *Conn {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.gone = true
	return p.conn.Swap(nil)
}
