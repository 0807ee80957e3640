// Package direct owns the connections between instances: the pool of those that this
// process has dialed, and the listener for those that others dial. It pins every peer
// to the instance that it should be, opens successors before certificates end, finds
// out which connections are dead, and closes those of who is revoked. It never decides
// where a call goes and never repeats one.
//
// A Pool owns one goroutine per dialed connection and per dial under way; a Listener
// one that accepts and one per handshake and per connection. All end with Close.
package direct

import (
	"crypto/tls"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"

	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/link"
)

// Conn is one dialed connection.
type Conn struct {
	*link.Conn
	id       ident.Identity
	notAfter time.Time
	renewAt  time.Time
	state    tls.ConnectionState
	// used says that a call went this way since the keeper last looked.
	used atomic.Bool
	lost atomic.Bool

	once sync.Once
	grpc *peer.Peer
}

// Used notes that a call goes this way.
func (c *Conn) Used() {
	if !c.used.Load() { // reading is free of contention, writing is not
		c.used.Store(true)
	}
}

// Lost reports whether this is the first that is told of the loss of the connection: all
// calls that were under way end with it, and yet it is one failure of the peer.
func (c *Conn) Lost() (first bool) { return c.lost.CompareAndSwap(false, true) }

// Peer returns the other end as gRPC describes it.
func (c *Conn) Peer() *peer.Peer {
	c.once.Do(func() { c.grpc = grpcPeer(c.NetConn(), c.state) })
	return c.grpc
}

func grpcPeer(nc net.Conn, state tls.ConnectionState) *peer.Peer {
	return &peer.Peer{
		Addr: nc.RemoteAddr(), LocalAddr: nc.LocalAddr(),
		AuthInfo: credentials.TLSInfo{State: state, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}},
	}
}

// sooner returns the earlier of two instants, of which zero means never.
func sooner(a, b time.Time) time.Time {
	if a.IsZero() || !b.IsZero() && b.Before(a) {
		return b
	}
	return a
}

func unreachable(id, addr string, err error) *errs.Error {
	return errs.New(errs.Unavailable, "instance %s at %s cannot be reached: %w", id, addr, err).Unstarted()
}
