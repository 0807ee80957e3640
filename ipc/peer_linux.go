package ipc

import (
	"net"
	"syscall"
)

// peerOf asks the kernel who connected.
func peerOf(nc *net.UnixConn) Peer {
	raw, err := nc.SyscallConn()
	if err != nil {
		return Peer{}
	}
	var peer Peer
	_ = raw.Control(func(fd uintptr) { // a closed connection has no peer
		if cred, err := syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED); err == nil {
			peer = Peer{PID: int(cred.Pid), UID: cred.Uid, GID: cred.Gid, Known: true}
		}
	})
	return peer
}

// hungUp reports whether the peer has closed and everything it sent has been read,
// which the reader of the connection may not have seen yet.
func hungUp(nc *net.UnixConn) bool {
	raw, err := nc.SyscallConn()
	if err != nil {
		return true
	}
	gone := false
	err = raw.Control(func(fd uintptr) {
		var b [1]byte
		n, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		gone = err == nil && n == 0
	})
	return gone || err != nil
}
