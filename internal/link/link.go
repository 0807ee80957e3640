// Package link owns telford/1, the protocol of one multiplexed connection: frames,
// interned names, windows, cancellation and orderly ends. It never dials, never looks
// at certificates and never retries; what outlives a connection is in package session.
//
// A Conn has goroutines of its own, which are reused and end with it. One of them is the
// reader; the others run handlers, and the reader becomes one of those after handing its
// role on. There is no writer goroutine: whoever queues a frame while nobody writes
// becomes the writer. The document is docs/reference/link-protocol.md.
package link

import (
	"errors"
	"log/slog"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/message"
)

// ALPN is the protocol name, and with it the major version.
const ALPN = "telford/1"

// Sizes and times of the protocol, in bytes unless they say otherwise.
const (
	// MaxData is the largest piece of a body in one frame.
	MaxData = 16 << 10
	// MaxFrame is the largest payload of a frame.
	MaxFrame = 64 << 10
	// MaxControl is the largest control message over all its frames.
	MaxControl = 64 << 20
	// StreamWindow and ConnWindow are the credits at the start.
	StreamWindow = 256 << 10
	ConnWindow   = 4 << 20
	// MaxWindow is how far either grows when the path is fast and long.
	MaxWindow = 16 << 20
	// maxAssembly bounds the bodies that a connection holds incomplete.
	maxAssembly = 64 << 20
	// maxQueue is where senders begin to wait; bulkQueue where pieces of large bodies
	// do, so that they never stand far ahead of a ping.
	maxQueue  = 1 << 20
	bulkQueue = 64 << 10
	// hardQueue is where a connection is given up: even frames that cannot wait do not fit.
	hardQueue = 8 << 20

	maxNames     = 1024
	maxNameBytes = 64 << 10

	// writeStall is how long a write may make no progress before the connection is
	// closed; it is noticed within twice the time.
	writeStall = 10 * time.Second

	// maxTurns is how often a writer lets others queue more before it writes.
	maxTurns = 4

	defaultInbound = 256
	maxIdleWorkers = 128
)

// ErrEnded is in the chain of every error that says that this connection, and not the
// callee, is why a call failed: it was lost, or takes no more calls.
var ErrEnded = errors.New("the connection has ended")

// Options say what a connection does with what arrives.
type Options struct {
	// Handler runs inbound calls; without one all are refused.
	Handler message.Handler
	// Control receives inbound control messages in order, on the reader: it must not
	// block and must not keep the slice.
	Control func(payload []byte)
	// KeepRunning lets unary handlers go on when the connection is lost.
	KeepRunning bool
	// MaxInbound and MaxWaiting bound the inbound calls that run and that wait for one
	// of those to end; 0 means 256, a negative MaxWaiting that none waits. A call beyond
	// is refused before it starts.
	MaxInbound, MaxWaiting int
	Clock                  clock.Clock
	Log                    *slog.Logger
}

func (o Options) withDefaults() Options {
	if o.MaxInbound == 0 {
		o.MaxInbound = defaultInbound
	}
	if o.MaxWaiting == 0 {
		o.MaxWaiting = defaultInbound
	}
	if o.Clock == nil {
		o.Clock = clock.Real()
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	return o
}
