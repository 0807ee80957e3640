package link

import (
	"io"
	"math/rand/v2"
	"net"
	"time"

	"telford.dev/telford/internal/errs"
)

// An acceptor that cannot take on the work of a handshake at present answers ClientHello
// with a TLS alert out of the range that is left to private use: its distance from
// busyAlert is in how many seconds to come back. Whoever does not know it sees a
// handshake that has failed.
const (
	busyAlert   = 224
	maxBusy     = 255 - busyAlert // seconds
	busyTime    = 5 * time.Second
	recordAlert = 21
	recordHello = 22
	fatal       = 2
	maxHello    = 16 << 10
)

// Busy says, in place of a TLS handshake, when to come back: in whole seconds, 31 at
// most. It waits up to 5 s for the other end to have said ClientHello, and closes the
// connection.
func Busy(nc net.Conn, after time.Duration) error {
	defer nc.Close()
	_ = nc.SetDeadline(time.Now().Add(busyTime)) // a dead connection fails the read
	var head [5]byte
	if _, err := io.ReadFull(nc, head[:]); err != nil {
		return lost(err)
	}
	n := int(head[3])<<8 | int(head[4])
	if head[0] != recordHello || n > maxHello {
		return protocolError("a record of type %d and %d bytes where ClientHello was due", head[0], n)
	}
	// Unread bytes would have the kernel break off the connection before the answer has
	// arrived.
	if _, err := io.CopyN(io.Discard, nc, int64(n)); err != nil {
		return lost(err)
	}
	seconds := min(max(after, 0)/time.Second, maxBusy)
	_, err := nc.Write([]byte{recordAlert, 3, 3, 0, 2, fatal, busyAlert + byte(seconds)})
	return err
}

// Opening is the connection below a TLS handshake of a dialer: it notes when the acceptor
// says Busy.
type Opening struct {
	net.Conn
	first [7]byte
	n     int
}

// Read implements net.Conn.
func (o *Opening) Read(p []byte) (int, error) {
	n, err := o.Conn.Read(p)
	if o.n < len(o.first) {
		o.n += copy(o.first[o.n:], p[:n])
	}
	return n, err
}

// Busy returns what the acceptor has said if that was Busy, with the time after which to
// come back, spread over the second that was named; nil if it was not. It is for after a
// handshake that has failed.
func (o *Opening) Busy() *errs.Error {
	f := &o.first
	if o.n < len(f) || f[0] != recordAlert || f[3] != 0 || f[4] != 2 || f[5] != fatal || f[6] < busyAlert {
		return nil
	}
	after := time.Duration(f[6]-busyAlert)*time.Second + rand.N(time.Second) //nolint:gosec // spreads load, guards nothing
	return errs.New(errs.Unavailable, "the runtime takes in many at once at present, and asks to come back later").Unstarted().After(after)
}
