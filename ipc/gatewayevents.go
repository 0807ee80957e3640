package ipc

import (
	"encoding/json"
	"time"
)

// GatewayEvents are called by the gateway's goroutines, each at once and in the order of
// one connection; they must return soon, and must not stop the gateway. Those that are
// nil cost nothing.
type GatewayEvents struct {
	Started             func(StartedEvent)
	Stopped             func()
	ServiceRegistered   func(ServiceRegisteredEvent) // not for further connections of a pool
	ServiceDisconnected func(ServiceDisconnectedEvent)
	CallRouted          func(CallRoutedEvent)
	ResponseRouted      func(ResponseRoutedEvent)
	Error               func(error) // of the listener
	Log                 func(LogEvent)
}

// StartedEvent says that the gateway listens.
type StartedEvent struct{ SocketPath string }

// ServiceRegisteredEvent says that a service came, or that its methods changed.
type ServiceRegisteredEvent struct {
	ServiceName string
	Methods     []string
	Version     string
	Metadata    json.RawMessage
	Peer        Peer
	// Update is true when a service that was there changed its methods.
	Update bool
}

// ServiceDisconnectedEvent says that the last connection of a service is gone.
type ServiceDisconnectedEvent struct{ ServiceName string }

// CallRoutedEvent says that a call was handed to its target.
type CallRoutedEvent struct {
	From, To, Method, RequestID string
	Context                     Context
}

// ResponseRoutedEvent says that an answer was handed to the caller.
type ResponseRoutedEvent struct{ From, To, Status, RequestID string }

// LogEvent is a step, whatever Debug says.
type LogEvent struct {
	// ServiceName is who logs, for a Client.
	ServiceName string
	Message     string
	Data        map[string]any
	Timestamp   time.Time
}

// logs reports whether anybody would see a step.
func (g *Gateway) logs() bool { return g.cfg.Events.Log != nil || g.cfg.Debug }

// log tells of a step. Callers on the path of a call ask logs before.
func (g *Gateway) log(message string, data map[string]any) {
	if g.cfg.Events.Log != nil {
		g.cfg.Events.Log(LogEvent{Message: message, Data: data, Timestamp: g.cfg.clock.Now()})
	}
	if g.cfg.Debug {
		g.cfg.Logger.Debug("ipc gateway", "step", message, "data", data)
	}
}

func (g *Gateway) disconnected(name string) {
	if g.logs() {
		g.log("service disconnected", map[string]any{"service": name})
	}
	if g.cfg.Events.ServiceDisconnected != nil {
		g.cfg.Events.ServiceDisconnected(ServiceDisconnectedEvent{ServiceName: name})
	}
}
