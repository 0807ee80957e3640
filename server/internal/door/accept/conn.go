package accept

import (
	"context"
	"crypto/tls"
	"net"
	"sync"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/link"
)

// retryOverload is when a client that found the runtime full should come back.
const retryOverload = 5 * time.Second

// revokeGrace is how long the connection of somebody who was revoked stays open.
const revokeGrace = 500 * time.Millisecond

// closeWait is how long closing waits for the peer to take the TLS closing alert.
const closeWait = time.Second

// conn is one accepted connection. From the handshake on it reads and writes through
// TLS.
type conn struct {
	*tls.Conn
	raw      net.Conn
	server   *Server
	overload bool

	// Set by the handshake, constant afterwards.
	protocol string
	peer     Peer
	state    tls.ConnectionState

	handshaking bool // not yet past its handshake; guarded by Server.mu

	closing sync.Once
	timerMu sync.Mutex
	timer   clock.Timer
	closed  bool
}

func newConn(s *Server, nc net.Conn, overload bool) *conn {
	c := &conn{raw: nc, server: s, handshaking: true, overload: overload}
	cfg := s.cfg.Trust.ServerConfig(link.ALPN, "h2")
	verify := cfg.VerifyConnection
	cfg = cfg.Clone()
	cfg.VerifyConnection = func(cs tls.ConnectionState) error {
		if verify == nil {
			return errs.New(errs.Internal, "the TLS configuration verifies nothing")
		}
		if err := verify(cs); err != nil {
			c.peer.Rejected = rejection(err)
		}
		return nil
	}
	c.Conn = tls.Server(nc, cfg)
	return c
}

// handshake runs the TLS handshake. A client certificate that is not believed does not
// fail it, so that the peer can be told the reason: it is Rejected then, and nothing
// but that reason is ever sent to it.
func (c *conn) handshake() error {
	ctx, cancel := context.WithTimeout(context.Background(), c.server.cfg.HandshakeTimeout)
	defer cancel()
	if err := c.HandshakeContext(ctx); err != nil {
		return err
	}
	c.state = c.ConnectionState()
	c.protocol = c.state.NegotiatedProtocol
	c.peer.Addr = c.raw.RemoteAddr()
	if c.peer.Rejected != nil {
		// Nobody may mistake these for proof.
		c.state.PeerCertificates, c.state.VerifiedChains = nil, nil
	} else {
		c.peer.Identity, c.peer.Known = c.server.cfg.Trust.Peer(c.state)
	}
	if c.peer.Rejected == nil && c.protocol == link.ALPN && !c.peer.Known {
		c.peer.Rejected = errs.New(errs.Unauthenticated, "telford/1 needs a client certificate and none was presented; provision one with a service key").Unstarted()
	}
	if c.peer.Rejected == nil && c.overload {
		c.peer.Rejected = errs.New(errs.ResourceExhausted, "the runtime serves its limit of %d connections", c.server.cfg.MaxConnections).Unstarted().After(retryOverload)
	}
	return nil
}

// rejection is the answer to a certificate that was not believed.
func rejection(err error) *errs.Error {
	e := errs.From(err)
	if e.Code == errs.Internal {
		e = errs.New(errs.Unauthenticated, "the client certificate is not valid here: %w", err)
	}
	return e.In("accept", "handshake").Unstarted()
}

// endWithLeaf closes the connection when the leaf of the client ends, and a link also
// when that of the runtime does.
func (c *conn) endWithLeaf() {
	if !c.peer.Known || c.peer.Rejected != nil {
		return
	}
	end := c.peer.Identity.NotAfter
	if own := c.server.cfg.Trust.Identity().NotAfter; c.protocol == link.ALPN && !own.IsZero() && own.Before(end) {
		end = own
	}
	clk := c.server.cfg.Clock
	c.timerMu.Lock()
	defer c.timerMu.Unlock()
	if !c.closed {
		c.timer = clk.AfterFunc(end.Sub(clk.Now()), func() { _ = c.Close() })
	}
}

// endSoon closes the connection once what runs on it can have been told why it ends;
// the doors let nothing new begin.
func (c *conn) endSoon() {
	c.timerMu.Lock()
	defer c.timerMu.Unlock()
	if c.timer != nil && !c.closed {
		c.timer.Reset(revokeGrace)
	}
}

// Close implements net.Conn and counts the connection out.
func (c *conn) Close() error {
	var err error
	c.closing.Do(func() {
		c.timerMu.Lock()
		c.closed = true
		if c.timer != nil {
			c.timer.Stop()
		}
		c.timerMu.Unlock()
		// A peer that takes nothing must not hold up the closing alert for long.
		cut := time.AfterFunc(closeWait, func() { _ = c.raw.Close() })
		err = c.Conn.Close()
		cut.Stop()
		c.server.mu.Lock()
		delete(c.server.conns, c)
		c.server.mu.Unlock()
	})
	return err
}
