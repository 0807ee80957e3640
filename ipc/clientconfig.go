package ipc

import (
	"log/slog"
	"time"

	"telford.dev/telford/internal/clock"
)

// ClientConfig is how a Client works. Zero values mean the defaults.
type ClientConfig struct {
	// ServiceName is what others call the service by; required, at most 255 bytes.
	ServiceName string
	// GatewayPath is the socket of the gateway, DefaultPath unless given.
	GatewayPath string
	// NoReconnect leaves a lost connection lost.
	NoReconnect bool
	// ReconnectDelay is how long to wait before the first attempt to connect again, 5 s
	// unless given. It doubles with each attempt up to 30 s; up to a quarter is taken off
	// at random, so that many clients do not come at once.
	ReconnectDelay time.Duration
	// Timeout bounds each call, 30 s unless given.
	Timeout time.Duration
	// HeartbeatInterval is how often the gateway is shown life, 30 s unless given.
	HeartbeatInterval time.Duration
	// Debug writes each step to Logger.
	Debug bool
	// Logger is where Debug writes; slog.Default unless given.
	Logger *slog.Logger
	// Serializer is JSON unless given. A gateway of this package takes both; one of
	// another implementation takes what it is configured for.
	Serializer Serializer
	// PoolSize is the number of connections, 1 unless given, 1,024 at most.
	PoolSize int
	// MaxHandlers is how many calls are handled at a time; further ones are answered with
	// CodeExecutionFailed. 131,072 unless given.
	MaxHandlers int
	// Events are called as things happen.
	Events ClientEvents

	clock clock.Clock
}

func (c ClientConfig) withDefaults() (ClientConfig, error) {
	if c.ServiceName == "" {
		return c, Errorf(CodeInvalidMessage, "serviceName is required in config")
	}
	if len(c.ServiceName) > maxName {
		return c, Errorf(CodeInvalidMessage, "the name of the service has %d bytes; the limit is %d", len(c.ServiceName), maxName)
	}
	if c.PoolSize < 0 || c.PoolSize > maxPool {
		return c, Errorf(CodeInvalidMessage, "a pool of %d connections; it has 1 to %d", c.PoolSize, maxPool)
	}
	if c.GatewayPath == "" {
		c.GatewayPath = DefaultPath
	}
	if c.ReconnectDelay <= 0 {
		c.ReconnectDelay = DefaultReconnectDelay
	}
	if c.Timeout <= 0 {
		c.Timeout = DefaultTimeout
	}
	if c.HeartbeatInterval <= 0 {
		c.HeartbeatInterval = DefaultHeartbeatInterval
	}
	if c.Logger == nil {
		c.Logger = slog.Default()
	}
	if c.Serializer != Msgpack {
		c.Serializer = JSON
	}
	if c.PoolSize == 0 {
		c.PoolSize = 1
	}
	if c.MaxHandlers <= 0 {
		c.MaxHandlers = 1 << 17
	}
	if c.clock == nil {
		c.clock = clock.Real()
	}
	return c, nil
}

// ClientEvents are called by the client's goroutines; they must return soon, and must not
// disconnect the client.
type ClientEvents struct {
	Connected        func()
	Registered       func() // once for each connection
	Disconnected     func()
	MethodExecuted   func(MethodExecutedEvent)
	ResponseReceived func(ResponseReceivedEvent)
	GatewayError     func(*Error)
	Error            func(error)
	Log              func(LogEvent)
}

// MethodExecutedEvent says that a call by somebody else has been handled.
type MethodExecutedEvent struct {
	Method, RequestID string
	Success           bool
	Error             string // the text of the failure
}

// ResponseReceivedEvent says that a call of ours was answered.
type ResponseReceivedEvent struct {
	RequestID string
	Success   bool
	Error     string // the text of the failure
}

func (c *Client) logs() bool { return c.cfg.Events.Log != nil || c.cfg.Debug }

func (c *Client) log(message string, data map[string]any) {
	if c.cfg.Events.Log != nil {
		c.cfg.Events.Log(LogEvent{ServiceName: c.cfg.ServiceName, Message: message, Data: data, Timestamp: c.cfg.clock.Now()})
	}
	if c.cfg.Debug {
		c.cfg.Logger.Debug("ipc client", "service", c.cfg.ServiceName, "step", message, "data", data)
	}
}

func (c *Client) trouble(err error) {
	if c.cfg.Events.Error != nil {
		c.cfg.Events.Error(err)
	}
	if c.logs() {
		c.log("error", map[string]any{"error": err.Error()})
	}
}
