package linkdoor_test

import (
	"net"
	"strings"
	"sync"
	"sync/atomic"
)

func contains(s, part string) bool { return strings.Contains(s, part) }

// blackHole is a connection whose reads can be made to see nothing more, and whose
// writes to reach nobody.
type blackHole struct {
	net.Conn
	swallow atomic.Bool
	once    sync.Once
	closed  chan struct{}
}

func (b *blackHole) Read(p []byte) (int, error) {
	n, err := b.Conn.Read(p)
	if b.swallow.Load() {
		<-b.closed
		return 0, net.ErrClosed
	}
	return n, err
}

func (b *blackHole) Write(p []byte) (int, error) {
	if b.swallow.Load() {
		return len(p), nil
	}
	return b.Conn.Write(p)
}

func (b *blackHole) Close() error {
	b.once.Do(func() { close(b.closed) })
	return b.Conn.Close()
}
