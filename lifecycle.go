package telford

import (
	"log/slog"
	"sync"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/client"
)

// Connected says that there is a session with the runtime: a first one, one after a
// cut, or the same one on another connection.
type Connected struct{ Service, Instance string }

// Reconnecting says that the runtime is away and will be tried again.
type Reconnecting struct {
	// Attempt counts the attempts since there was a session, from 1.
	Attempt int
	Cause   error
	Delay   time.Duration
}

// Draining says that the runtime, or Stop, has asked this instance to finish.
type Draining struct{ Reason string }

// DisconnectReason says why a session has ended for good.
type DisconnectReason string

// The reasons.
const (
	DisconnectStopped   DisconnectReason = client.ReasonStopped   // Stop was called
	DisconnectDrain     DisconnectReason = client.ReasonDrain     // the runtime sent the instance away
	DisconnectExhausted DisconnectReason = client.ReasonExhausted // the attempts of Reconnect are used up
	DisconnectFenced    DisconnectReason = client.ReasonFenced    // another process has this instance id
	DisconnectError     DisconnectReason = client.ReasonError     // a failure that trying again cannot mend
	// DisconnectPolicy begins the reason of a service with FailOnPolicyViolation, which
	// goes on with what is forbidden: "policy: rpc.call payments/refund".
	DisconnectPolicy DisconnectReason = client.ReasonPolicy
)

// Disconnected says that the session has ended for good. It comes once.
type Disconnected struct {
	Reason DisconnectReason
	Cause  error
}

// Warning says that a declaration will not have its full effect, and why.
type Warning struct{ Declaration, Value, Side, Reason string }

// OnConnected has f called for each Connected. Callbacks run one after another on a
// goroutine of the service, in the order of what happened; one that waits holds up the
// others, and nothing else. A callback may call Stop.
func (s *Service) OnConnected(f func(Connected)) { onEvent(s.events, &s.events.connected, f) }

// OnReconnecting has f called for each Reconnecting; see OnConnected.
func (s *Service) OnReconnecting(f func(Reconnecting)) { onEvent(s.events, &s.events.reconnecting, f) }

// OnDraining has f called for each Draining; see OnConnected.
func (s *Service) OnDraining(f func(Draining)) { onEvent(s.events, &s.events.draining, f) }

// OnDisconnected has f called for Disconnected; see OnConnected.
func (s *Service) OnDisconnected(f func(Disconnected)) { onEvent(s.events, &s.events.disconnected, f) }

// OnWarning has f called for each warning about a declaration; see OnConnected. They
// are logged as well.
func (s *Service) OnWarning(f func(Warning)) { onEvent(s.events, &s.events.warning, f) }

// maxEvents is how many events may wait for slow callbacks; beyond it the newest are
// dropped, and that is logged.
const maxEvents = 1024

// notifier runs callbacks in order on one goroutine.
type notifier struct {
	log *slog.Logger

	mu           sync.Mutex
	connected    []func(Connected)
	reconnecting []func(Reconnecting)
	draining     []func(Draining)
	disconnected []func(Disconnected)
	warning      []func(Warning)
	violation    []func(PolicyViolation)
	deaf         []func(Deaf)
	lost         bool // an event was dropped since the queue was empty
	queue        []func()
	idle         chan struct{} // closed when the queue is worked off; nil while it is
}

func newNotifier(log *slog.Logger) *notifier { return &notifier{log: log} }

// callbackTime is how long Stop waits for callbacks, one of which may have called it.
const callbackTime = time.Second

// settle waits until the callbacks have run, for a while.
func (n *notifier) settle() {
	n.mu.Lock()
	idle := n.idle
	n.mu.Unlock()
	if idle == nil {
		return
	}
	t := time.NewTimer(callbackTime)
	defer t.Stop()
	select {
	case <-idle:
	case <-t.C:
	}
}

func onEvent[T any](n *notifier, list *[]func(T), f func(T)) {
	if f == nil {
		return
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	*list = append(*list, f)
}

func emit[T any](n *notifier, list *[]func(T), event T) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, f := range *list {
		if len(n.queue) >= maxEvents {
			if !n.lost {
				n.lost = true
				n.log.Error("a lifecycle callback is too slow; events are dropped", "waiting", len(n.queue))
			}
			return
		}
		n.queue = append(n.queue, func() { f(event) })
	}
	if len(n.queue) > 0 && n.idle == nil {
		n.idle = make(chan struct{})
		go n.run() // ends with the queue, which settle waits for
	}
}

// run works off the queue and ends with it.
func (n *notifier) run() {
	for {
		n.mu.Lock()
		if len(n.queue) == 0 {
			close(n.idle)
			n.idle, n.lost = nil, false
			n.mu.Unlock()
			return
		}
		f := n.queue[0]
		n.queue = n.queue[1:]
		n.mu.Unlock()
		n.call(f)
	}
}

func (n *notifier) call(f func()) {
	defer func() {
		if p := recover(); p != nil {
			n.log.Error("a lifecycle callback panicked", "panic", p)
		}
	}()
	f()
}

// sessionEvents is what the session tells.
func (s *Service) sessionEvents() client.Events {
	return client.Events{
		Connected: func(instance string) {
			emit(s.events, &s.events.connected, Connected{Service: s.name, Instance: instance})
		},
		Reconnecting: func(attempt int, cause error, delay time.Duration) {
			emit(s.events, &s.events.reconnecting, Reconnecting{Attempt: attempt, Cause: cause, Delay: delay})
		},
		Draining: func(reason string) { emit(s.events, &s.events.draining, Draining{Reason: reason}) },
		Disconnected: func(reason string, cause error) {
			emit(s.events, &s.events.disconnected, Disconnected{Reason: DisconnectReason(reason), Cause: cause})
			if reason == client.ReasonFenced {
				s.fenced()
			}
		},
		Deaf:       s.turnedDeaf,
		Warnings:   s.warned,
		Violations: s.forbidden,
		Gone: func(gone []*catalog.Instance) {
			ids := make([]string, len(gone))
			for i, inst := range gone {
				ids[i] = inst.ID
			}
			s.pool.Forget(ids...)
		},
	}
}
