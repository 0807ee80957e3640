package accept

import (
	"context"
	"net"
	"sync"

	"google.golang.org/grpc/credentials"

	"telford.dev/telford/internal/errs"
)

// handover is a listener that yields connections which were accepted elsewhere.
type handover struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once

	mu   sync.Mutex
	addr net.Addr
}

func newHandover() *handover {
	return &handover{conns: make(chan net.Conn), done: make(chan struct{}), addr: noAddr{}}
}

func (h *handover) setAddr(a net.Addr) {
	h.mu.Lock()
	h.addr = a
	h.mu.Unlock()
}

// give hands nc to whoever accepts; false when nobody will.
func (h *handover) give(nc net.Conn) bool {
	select {
	case h.conns <- nc:
		return true
	case <-h.done:
		return false
	}
}

// Accept implements net.Listener.
func (h *handover) Accept() (net.Conn, error) {
	select {
	case nc := <-h.conns:
		return nc, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handover) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

// Addr implements net.Listener.
func (h *handover) Addr() net.Addr {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.addr
}

type noAddr struct{}

func (noAddr) Network() string { return "tcp" }
func (noAddr) String() string  { return "" }

// AuthInfo is what grpc-go keeps of a connection that came through a Server.
type AuthInfo struct {
	credentials.TLSInfo
	Peer Peer
}

// AuthType implements credentials.AuthInfo.
func (AuthInfo) AuthType() string { return "tls" }

// Credentials returns the transport credentials to give to grpc-go together with the
// listener of Server.GRPC: they hand over the finished handshake.
func Credentials() credentials.TransportCredentials { return finished{} }

type finished struct{}

func (finished) ServerHandshake(nc net.Conn) (net.Conn, credentials.AuthInfo, error) {
	c, ok := nc.(*conn)
	if !ok {
		return nil, nil, errs.New(errs.Internal, "a connection of type %T did not come through the accept loop", nc)
	}
	info := credentials.TLSInfo{State: c.state, CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity}}
	return c, AuthInfo{TLSInfo: info, Peer: c.peer}, nil
}

func (finished) ClientHandshake(context.Context, string, net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return nil, nil, errs.New(errs.Internal, "these credentials are for the accepting side")
}

func (finished) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (f finished) Clone() credentials.TransportCredentials { return f }

func (finished) OverrideServerName(string) error { return nil }
