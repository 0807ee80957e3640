// Package ipc owns the unix socket between processes of one host: a Gateway, through
// which services call each other, and a Client, which a service is. A Gateway works
// alone, and speaks with existing clients of the wire in JSON and in msgpack; whoever
// embeds it may answer for further names and decide who may register. Each connection
// has one goroutine that reads and, while its peer is slow, one that writes; they and the
// timers end with Gateway.Stop and Client.Disconnect. Handlers run on goroutines of
// their own, and end when they return.
package ipc

import (
	"crypto/rand"
	"strconv"
	"time"

	"telford.dev/telford/internal/ipcwire"
)

// The defaults of both ends.
const (
	DefaultPath              = "/tmp/bro-gateway.sock"
	DefaultHeartbeatInterval = 30 * time.Second
	DefaultTimeout           = 30 * time.Second
	DefaultReconnectDelay    = 5 * time.Second
	// MaxFrame is the largest message that is taken, in bytes.
	MaxFrame = ipcwire.MaxFrame
	// MaxDepth is the deepest chain of calls that is let through.
	MaxDepth = ipcwire.MaxDepth
)

// maxReconnectDelay is where the delay between attempts to connect stops growing.
const maxReconnectDelay = 30 * time.Second

// Serializer is how messages are encoded.
type Serializer = ipcwire.Encoding

// The serializers.
const (
	JSON    Serializer = ipcwire.JSON
	Msgpack Serializer = ipcwire.Msgpack
)

// newID returns an id of the shape that the wire's clients make: a prefix, the time in
// milliseconds and six characters.
func newID(prefix string, now time.Time) string {
	const letters = "abcdefghijklmnopqrstuvwxyz234567"
	var random [10]byte
	_, _ = rand.Read(random[:]) // it never fails
	b := make([]byte, 0, 40)
	b = append(b, prefix...)
	b = append(b, '-')
	b = strconv.AppendInt(b, now.UnixMilli(), 10)
	b = append(b, '-')
	for _, c := range random {
		b = append(b, letters[c&31])
	}
	return string(b)
}
