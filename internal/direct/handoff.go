package direct

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"sync"

	"google.golang.org/grpc/credentials"
)

// handoff is a net.Listener of connections that were accepted elsewhere.
type handoff struct {
	addr   net.Addr
	conns  chan net.Conn
	done   chan struct{}
	closer sync.Once
}

func newHandoff(addr net.Addr) *handoff {
	return &handoff{addr: addr, conns: make(chan net.Conn), done: make(chan struct{})}
}

// give passes nc on; false when nobody takes it any more.
func (h *handoff) give(nc net.Conn) bool {
	select {
	case h.conns <- nc:
		return true
	case <-h.done:
		return false
	}
}

// Accept implements net.Listener.
func (h *handoff) Accept() (net.Conn, error) {
	select {
	case nc := <-h.conns:
		return nc, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

// Close implements net.Listener.
func (h *handoff) Close() error {
	h.closer.Do(func() { close(h.done) })
	return nil
}

// Addr implements net.Listener.
func (h *handoff) Addr() net.Addr { return h.addr }

// watched tells when its connection is closed.
type watched struct {
	*tls.Conn
	once   sync.Once
	closed func()
}

// Close implements net.Conn.
func (w *watched) Close() error {
	w.once.Do(w.closed)
	return w.Conn.Close()
}

// Credentials are those of a gRPC server whose connections are handshaken when it gets
// them, and of a client whose connections the pool has handshaken.
func Credentials() credentials.TransportCredentials { return handshaken{} }

type handshaken struct{}

var errNotHandshaken = errors.New("the connection did not come from Telford")

func tlsInfo(nc net.Conn) (net.Conn, credentials.AuthInfo, error) {
	has, ok := nc.(interface{ ConnectionState() tls.ConnectionState })
	if !ok {
		return nil, nil, errNotHandshaken
	}
	return nc, credentials.TLSInfo{
		State: has.ConnectionState(), CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.PrivacyAndIntegrity},
	}, nil
}

func (handshaken) ServerHandshake(nc net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return tlsInfo(nc)
}

func (handshaken) ClientHandshake(_ context.Context, _ string, nc net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return tlsInfo(nc)
}

func (handshaken) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "tls"}
}

func (handshaken) Clone() credentials.TransportCredentials { return handshaken{} }

func (handshaken) OverrideServerName(string) error { return nil }
