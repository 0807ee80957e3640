package direct

import (
	"context"
	"crypto/tls"
	"net"
	"sync"

	"telford.dev/telford/internal/errs"
)

// DialHTTP2 opens a connection to the peer for plain gRPC: handshaken, and proved to
// be the instance. It belongs to the caller and is in no pool.
func (p *Pool) DialHTTP2(ctx context.Context, id string) (net.Conn, error) {
	p.mu.Lock()
	peer := p.peers[id]
	p.mu.Unlock()
	if peer == nil {
		return nil, errs.New(errs.Unavailable, "instance %s is gone", id).Unstarted()
	}
	ctx, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	t := peer.target.Load()
	nc, state, err := p.handshake(ctx, id, t, "h2")
	if err != nil {
		return nil, unreachable(id, t.addr, err)
	}
	if state.NegotiatedProtocol != "h2" {
		_ = nc.Close() // nothing was said on it
		return nil, unreachable(id, t.addr, errs.New(errs.FailedPrecondition, "it does not speak h2"))
	}
	c := &http2Conn{Conn: nc, pool: p}
	if found, ok := p.opt.Trust.Peer(*state); ok {
		c.revoked = func() bool { return p.opt.Trust.Revoked(found) }
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		_ = nc.Close()
		return nil, errs.New(errs.Unavailable, "this process has stopped").Unstarted()
	}
	p.http2[c] = struct{}{}
	return c, nil
}

// http2Conn is known to the pool for as long as it is open, so that it can be closed
// when its peer is revoked.
type http2Conn struct {
	*tls.Conn
	pool    *Pool
	once    sync.Once
	revoked func() bool
}

// Close implements net.Conn.
func (c *http2Conn) Close() error {
	c.once.Do(func() {
		c.pool.mu.Lock()
		defer c.pool.mu.Unlock()
		delete(c.pool.http2, c)
	})
	return c.Conn.Close()
}
