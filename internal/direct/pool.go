package direct

import (
	"context"
	"crypto/tls"
	"log/slog"
	"math/rand/v2"
	"net"
	"sync"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/internal/resilience"
)

// The times of the pool.
const (
	dialTimeout  = 3 * time.Second
	idleTimeout  = 5 * time.Minute
	minBackoff   = 100 * time.Millisecond
	maxBackoff   = 5 * time.Second
	retireAtMost = time.Minute
)

// PoolOptions configure a Pool.
type PoolOptions struct {
	Trust *ident.Trust
	Clock clock.Clock
	Log   *slog.Logger
	// Dial opens the connection below; nil means TCP.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
	// Interval is that of the heartbeat; 0 means 10 s.
	Interval time.Duration
	// Breaking are the settings of the breakers; nil means the default.
	Breaking *resilience.Breaking
	// OnFailing, when set, is told the id of an instance each time its breaker opens, on
	// the goroutine of a call: it must not wait.
	OnFailing func(instance string)
}

// Pool keeps at most one connection in use to each instance. It is safe for
// concurrent use.
type Pool struct {
	opt     PoolOptions
	ctx     context.Context
	cancel  context.CancelFunc
	start   time.Time
	wg      sync.WaitGroup
	tracker resilience.Tracker
	revoke  func()

	mu     sync.Mutex
	peers  map[string]*Peer
	http2  map[*http2Conn]struct{}
	closed bool
}

// NewPool returns an empty pool.
func NewPool(opt PoolOptions) *Pool {
	if opt.Clock == nil {
		opt.Clock = clock.Real()
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Dial == nil {
		opt.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext(ctx, "tcp", addr)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	p := &Pool{opt: opt, ctx: ctx, cancel: cancel, peers: make(map[string]*Peer), http2: make(map[*http2Conn]struct{}), start: time.Now()}
	p.tracker.Breaking = resilience.DefaultBreaking()
	if opt.Breaking != nil {
		p.tracker.Breaking = *opt.Breaking
	}
	p.revoke = opt.Trust.OnRevoke(p.closeRevoked)
	return p
}

// Now is the time on the scale of pick.
func (p *Pool) Now() time.Duration { return time.Since(p.start) }

// Peer returns the peer for an instance as it is described now.
func (p *Pool) Peer(inst *catalog.Instance, addr string) *Peer {
	p.mu.Lock()
	defer p.mu.Unlock()
	peer := p.peers[inst.ID]
	if peer == nil {
		peer = &Peer{pool: p, id: inst.ID}
		peer.target.Store(&target{})
		peer.Health.Join(&p.tracker)
		p.peers[inst.ID] = peer
	}
	if t := peer.target.Load(); t.addr != addr || t.service != inst.Declaration.Service || t.namespace != inst.Namespace {
		peer.move(&target{addr: addr, service: inst.Declaration.Service, namespace: inst.Namespace})
	}
	return peer
}

// Forget closes the connections to instances that are gone. Calls under way on them
// may end.
func (p *Pool) Forget(ids ...string) {
	p.mu.Lock()
	var gone []*Peer
	for _, id := range ids {
		if peer := p.peers[id]; peer != nil {
			gone = append(gone, peer)
			delete(p.peers, id)
		}
	}
	p.mu.Unlock()
	for _, peer := range gone {
		if c := peer.drop(); c != nil {
			p.retire(c)
		}
		peer.Health.Leave()
	}
}

// closeRevoked closes the connections to who is revoked, at once.
func (p *Pool) closeRevoked() {
	p.mu.Lock()
	peers := make([]*Peer, 0, len(p.peers))
	for _, peer := range p.peers {
		peers = append(peers, peer)
	}
	var raw []*tls.Conn
	for c := range p.http2 {
		if c.revoked != nil && c.revoked() {
			raw = append(raw, c.Conn)
		}
	}
	p.mu.Unlock()
	for _, nc := range raw {
		_ = nc.Close() // its reader finds out and closes the rest
	}
	for _, peer := range peers {
		c := peer.conn.Load()
		if c == nil {
			continue
		}
		if err := p.opt.Trust.CheckRevoked(c.id); err != nil {
			peer.conn.CompareAndSwap(c, nil)
			if !p.goFunc(func() { c.Close(err) }) {
				c.Close(err)
			}
		}
	}
}

// goFunc runs f on a goroutine of the pool.
func (p *Pool) goFunc(f func()) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return false
	}
	p.wg.Go(f)
	return true
}

// retire lets the calls of a connection end, then closes it.
func (p *Pool) retire(c *Conn) {
	if !p.goFunc(func() {
		left := retireAtMost
		if !c.notAfter.IsZero() {
			left = min(left, c.notAfter.Sub(p.opt.Trust.Clock().Now()))
		}
		ctx, cancel := context.WithTimeout(p.ctx, left)
		defer cancel()
		_ = c.Drain(ctx) // it closes the connection either way
	}) {
		c.Close(errs.New(errs.Unavailable, "this process has stopped"))
	}
}

// Close closes all connections at once and waits for the goroutines of the pool.
func (p *Pool) Close() {
	p.mu.Lock()
	if p.closed {
		p.mu.Unlock()
		p.wg.Wait()
		return
	}
	p.closed = true
	peers := p.peers
	p.peers = make(map[string]*Peer)
	raw := make([]*tls.Conn, 0, len(p.http2))
	for c := range p.http2 {
		raw = append(raw, c.Conn)
	}
	p.mu.Unlock()
	for _, nc := range raw {
		_ = nc.Close() // its reader finds out and closes the rest
	}
	p.revoke()
	p.cancel()
	var wg sync.WaitGroup
	for _, peer := range peers {
		if c := peer.drop(); c != nil {
			wg.Go(func() { c.Close(errs.New(errs.Unavailable, "this process has stopped")) })
		}
	}
	wg.Wait()
	p.wg.Wait()
}

// open dials an instance and waits until it has accepted.
func (p *Pool) open(ctx context.Context, id string, t *target) (*Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	own := p.opt.Trust.Identity()
	nc, state, err := p.handshake(ctx, id, t, link.ALPN)
	if err != nil {
		return nil, unreachable(id, t.addr, err)
	}
	if state.NegotiatedProtocol != link.ALPN {
		_ = nc.Close() // nothing was said on it
		return nil, unreachable(id, t.addr, errs.New(errs.FailedPrecondition, "it does not speak %s", link.ALPN))
	}
	lc, err := link.Dial(ctx, nc, link.Options{Clock: p.opt.Clock, Log: p.opt.Log})
	if e := errs.From(err); e != nil {
		if e.Code == errs.DeadlineExceeded || e.Code == errs.Canceled {
			e = unreachable(id, t.addr, err) // it was the time of the dial, not of a call
		}
		return nil, e.In("sdk", "connect to instance "+id).Unstarted()
	}
	c := &Conn{Conn: lc, state: *state}
	if peer, ok := p.opt.Trust.Peer(*state); ok {
		c.id = peer
	}
	c.notAfter = sooner(own.NotAfter, c.id.NotAfter)
	now := p.opt.Trust.Clock().Now()
	if life := c.notAfter.Sub(now); !c.notAfter.IsZero() {
		// Two thirds of what is left of the shorter life, less up to a tenth, so that
		// connections opened together are not renewed together.
		share := 2.0 / 3 * (1 - 0.1*rand.Float64()) //nolint:gosec // spreads load, guards nothing
		c.renewAt = now.Add(time.Duration(float64(life) * share))
	}
	return c, nil
}

// handshake dials the instance and proves that it is the one.
func (p *Pool) handshake(ctx context.Context, id string, t *target, protos ...string) (*tls.Conn, *tls.ConnectionState, error) {
	raw, err := p.opt.Dial(ctx, t.addr)
	if err != nil {
		return nil, nil, err
	}
	config := p.opt.Trust.ClientConfig(ident.Expect{Instance: id, Service: t.service, Namespace: t.namespace}, protos...)
	nc := tls.Client(raw, config)
	if err := nc.HandshakeContext(ctx); err != nil {
		_ = raw.Close() // the handshake says why
		return nil, nil, err
	}
	state := nc.ConnectionState()
	return nc, &state, nil
}
