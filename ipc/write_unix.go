//go:build unix

package ipc

import (
	"errors"
	"net"
	"syscall"
)

// writeNow writes as much of b as the socket takes without waiting.
func writeNow(nc *net.UnixConn, b []byte) (n int, err error) {
	raw, err := nc.SyscallConn()
	if err != nil {
		return 0, err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		for n < len(b) {
			var w int
			w, failed = syscall.Write(int(fd), b[n:])
			switch {
			case errors.Is(failed, syscall.EINTR):
			case errors.Is(failed, syscall.EAGAIN):
				failed = nil
				return true
			case failed != nil:
				return true
			default:
				n += w
			}
		}
		return true
	})
	if failed != nil {
		err = failed
	}
	return n, err
}
