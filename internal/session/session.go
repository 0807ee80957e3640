// Package session owns what outlives a connection: the numbers of commands and
// results, what is kept until the other end has it, permits, and the pure rules of
// heartbeats, reconnection and states. It does not dial and does not know TLS; one end
// is driven by the SDK, the other by the door of the runtime.
//
// A Peer starts no goroutine of its own; the calls that wait in it are on the
// goroutines of their callers, and timers run on the clock.
package session

import (
	"fmt"
	"time"
)

// The numbers of a session, where neither end says otherwise.
const (
	// Interval and Timeout are the heartbeat's.
	Interval = 10 * time.Second
	Timeout  = 30 * time.Second
	// Window is how long a cut session can be resumed.
	Window = 60 * time.Second
	// InitialPermits and MaxPermits bound the commands that run at once in one lane.
	InitialPermits = 64
	MaxPermits     = 128
	// KeptResults and KeptBytes bound what is kept for a resume.
	KeptResults = 10_000
	KeptBytes   = 4 << 20
	// maxQueued bounds the calls that wait for a permit.
	maxQueued = 4096
	// ackEvery is after how many results, or a quarter of KeptBytes, an
	// acknowledgement is sent without waiting for a heartbeat.
	ackEvery = 256
)

// State is where a session stands.
type State string

// The states.
const (
	Connecting  State = "connecting"  // a connection is being made
	Handshaking State = "handshaking" // Hello was sent
	Ready       State = "ready"       // HelloAck was received, nothing runs
	Active      State = "active"      // commands run
	Suspended   State = "suspended"   // two heartbeats were missed; reconnecting
	Draining    State = "draining"    // finishing what runs, taking nothing new
	Closed      State = "closed"      // ended in order
	Fenced      State = "fenced"      // ended for good: another process has the identity
)

// Event is what moves a session from state to state.
type Event string

// The events.
const (
	Dialed   Event = "dialed"    // the connection was accepted
	Welcomed Event = "welcomed"  // HelloAck was received
	Began    Event = "began"     // the first command runs
	Idled    Event = "idled"     // the last command ended
	Missed   Event = "missed"    // heartbeats were missed, or the connection was lost
	Retry    Event = "retry"     // the next attempt to connect begins
	Drain    Event = "drain"     // the end was asked for
	Close    Event = "close"     // everything has ended
	FenceOff Event = "fence_off" // the other end said so
)

// Next is the state after an event. An event that a state does not know is an error
// and changes nothing.
func (s State) Next(e Event) (State, error) {
	switch {
	case s == Closed || s == Fenced:
		// Final.
	case e == FenceOff:
		return Fenced, nil
	case e == Close:
		return Closed, nil
	case e == Drain && (s == Ready || s == Active || s == Suspended || s == Connecting || s == Handshaking):
		return Draining, nil
	case e == Missed && s != Draining:
		return Suspended, nil
	case s == Connecting && e == Dialed:
		return Handshaking, nil
	case s == Handshaking && e == Welcomed:
		return Ready, nil
	case s == Ready && e == Began:
		return Active, nil
	case s == Active && e == Idled:
		return Ready, nil
	case s == Suspended && e == Retry:
		return Connecting, nil
	}
	return s, fmt.Errorf("a session that is %s cannot take %q", s, e)
}
