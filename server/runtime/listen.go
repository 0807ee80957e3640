package runtime

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync/atomic"
	"syscall"
)

// listener is the port of a door. It reports when it ends although nobody closed it.
type listener struct {
	net.Listener
	door   string
	closed atomic.Bool
	early  chan<- error
}

// listen opens the port of a door.
func listen(ctx context.Context, door, addr string, early chan<- error) (*listener, error) {
	var lc net.ListenConfig
	l, err := lc.Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, fmt.Errorf("%w: choose another address with --%s, port 0 for a free one, or stop who uses it", err, door)
	}
	return &listener{Listener: l, door: door, early: early}, nil
}

// Accept implements net.Listener.
func (l *listener) Accept() (net.Conn, error) {
	nc, err := l.Listener.Accept()
	if err != nil && !l.closed.Load() && !passing(err) {
		select {
		case l.early <- &PartError{Part: l.door, Err: err}:
		default: // another part was first
		}
	}
	return nc, err
}

// passing reports whether accepting may work again: the process or the machine was out
// of something, or a connection ended before it was accepted.
func passing(err error) bool {
	for _, e := range []error{
		syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR, syscall.EAGAIN,
	} {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}

// Close implements net.Listener.
func (l *listener) Close() error {
	l.closed.Store(true)
	return l.Listener.Close()
}
