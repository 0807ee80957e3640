package ipc

// Peer is the process at the other end of a connection, as the kernel says.
type Peer struct {
	PID      int
	UID, GID uint32
	// Known is false where the system does not tell.
	Known bool
}
