package postgres

import (
	"context"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// control makes the kernel give up a connection whose peer has not acknowledged
// anything for 30 s, so that a server behind a black hole is noticed.
func control(_ context.Context, network, _ string, c syscall.RawConn) error {
	if !strings.HasPrefix(network, "tcp") {
		return nil
	}
	var failed error
	err := c.Control(func(fd uintptr) {
		failed = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, 30_000)
	})
	if err != nil {
		return err
	}
	return failed
}
