package ipc

import (
	"io/fs"
	"log/slog"
	"time"

	"telford.dev/telford/internal/clock"
)

// GatewayConfig is how a Gateway works. Zero values mean the defaults.
type GatewayConfig struct {
	// SocketPath is the file of the socket, DefaultPath unless given.
	SocketPath string
	// Mode is the mode of that file: who may connect. 0600 unless given.
	Mode fs.FileMode
	// HeartbeatInterval is how often services are expected to show life; one from whom
	// nothing came on any of its connections for three of them is gone. 30 s unless given.
	HeartbeatInterval time.Duration
	// Timeout is how long a call that carries no deadline may take. 30 s unless given.
	Timeout time.Duration
	// Debug writes each step to Logger.
	Debug bool
	// Logger is where Debug writes; slog.Default unless given.
	Logger *slog.Logger
	// Serializer encodes answers to connections that have sent nothing that could be
	// recognised; JSON unless given. All others are answered in their own encoding.
	Serializer Serializer
	// MaxFrame is the largest message in bytes, MaxFrame unless given. A connection that
	// announces a larger one is closed.
	MaxFrame int
	// WriteBuffer is how many bytes may wait for a connection that does not read before it
	// is closed and its calls are answered. 64 MiB unless given; a message more may be
	// over it.
	WriteBuffer int
	// MaxConnections is how many connections are held; further ones are closed at once.
	// 16,384 unless given.
	MaxConnections int
	// MaxInFlight is how many calls to one service may be without answer; further ones are
	// refused. 1,048,576 unless given.
	MaxInFlight int
	// Events are called as things happen.
	Events GatewayEvents
	// Hooks let whoever embeds the gateway take part in its decisions.
	Hooks GatewayHooks

	clock clock.Clock
}

func (c GatewayConfig) withDefaults() GatewayConfig {
	if c.SocketPath == "" {
		c.SocketPath = DefaultPath
	}
	if c.Mode == 0 {
		c.Mode = 0o600
	}
	if c.HeartbeatInterval <= 0 {
		c.HeartbeatInterval = DefaultHeartbeatInterval
	}
	if c.Timeout <= 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Serializer != Msgpack {
		c.Serializer = JSON
	}
	if c.MaxFrame <= 0 || c.MaxFrame > MaxFrame {
		c.MaxFrame = MaxFrame
	}
	if c.WriteBuffer <= 0 {
		c.WriteBuffer = 64 << 20
	}
	if c.MaxConnections <= 0 {
		c.MaxConnections = 16384
	}
	if c.MaxInFlight <= 0 {
		c.MaxInFlight = 1 << 20
	}
	if c.clock == nil {
		c.clock = clock.Real()
	}
	return c
}
