package rest

import (
	"context"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
	"time"

	"telford.dev/telford/internal/errs"
)

// HeartbeaterOptions set up a Heartbeater; zero means the default. The functions are
// called on its goroutine, one at a time: they return soon and do not call Stop.
type HeartbeaterOptions struct {
	// Token is that of the first heartbeat of a service that was created already. Without
	// it the Heartbeater creates the service.
	Token string
	// Interval is the time between heartbeats, up to a tenth shorter, so that many
	// services spread. Default: 0.8 of the service's HeartbeatTimeout, 0.6 below 15 s.
	Interval time.Duration
	// NoRecreate ends the Heartbeater when the registry no longer knows the service,
	// instead of registering it again.
	NoRecreate bool
	// KeepOnStop leaves the service registered at Stop, to lapse by itself. By default it
	// is removed.
	KeepOnStop bool
	// OnRegistered is told of each registration.
	OnRegistered func()
	// OnHeartbeat is told of each heartbeat that arrived.
	OnHeartbeat func(at time.Time)
	// OnLost is told that the registry no longer knows the service or its token.
	OnLost func(err error)
	// OnError is told of each attempt that failed and is repeated.
	OnError func(err error)
}

// Heartbeater keeps a service registered: it creates it, heartbeats in time, repeats
// what failed, and creates it again when the registry lost it. Its methods are safe for
// use by many goroutines.
type Heartbeater struct {
	client *Client
	opt    HeartbeaterOptions
	done   chan struct{} // closed when the goroutine has ended
	stop   context.CancelFunc

	mu         sync.Mutex
	service    Service // as it is to be registered
	registered bool
	started    bool
	stopped    bool
	err        error // why it ended by itself
}

// NewHeartbeater returns a Heartbeater for s, which is started by Start.
func (c *Client) NewHeartbeater(s Service, o HeartbeaterOptions) (*Heartbeater, error) {
	if _, err := servicePath("heartbeater", s.ID); err != nil {
		return nil, err
	}
	if err := checkTimeout(s.HeartbeatTimeout); err != nil {
		return nil, errs.New(errs.InvalidArgument, "heartbeater of service %s: %w", s.ID, err)
	}
	if o.Interval < 0 || o.Interval >= s.HeartbeatTimeout {
		return nil, errs.New(errs.InvalidArgument, "heartbeater of service %s: the interval %s is not below the heartbeat timeout %s", s.ID, o.Interval, s.HeartbeatTimeout)
	}
	return &Heartbeater{client: c, opt: o, done: make(chan struct{}), service: cloneService(s), registered: o.Token != ""}, nil
}

func cloneService(s Service) Service {
	s.Tags, s.Metadata = slices.Clone(s.Tags), maps.Clone(s.Metadata)
	return s
}

// Start begins to register and to heartbeat, until Stop or the end of ctx, which leaves
// the service registered. Starting twice is once; after Stop it is an error.
func (h *Heartbeater) Start(ctx context.Context) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	switch {
	case h.stopped:
		return errs.New(errs.FailedPrecondition, "heartbeater of service %s: it was stopped; make a new one", h.service.ID)
	case h.started:
		return nil
	}
	h.started = true
	ctx, h.stop = context.WithCancel(ctx)
	go h.run(ctx, h.opt.Token)
	return nil
}

// Stop ends the heartbeats and, unless KeepOnStop, removes the service. It returns when
// both is done, or with the error of ctx; stopping again is no error and does nothing.
// Before Start it removes the service whose Token was given.
func (h *Heartbeater) Stop(ctx context.Context) error {
	h.mu.Lock()
	started := h.started
	h.stopped = true
	h.mu.Unlock()
	if started {
		h.stop()
		select {
		case <-h.done:
		case <-ctx.Done():
			return errs.From(ctx.Err())
		}
	}
	h.mu.Lock()
	remove := h.registered && !h.opt.KeepOnStop
	h.registered = false
	id := h.service.ID
	h.mu.Unlock()
	if !remove {
		return nil
	}
	err := h.client.RemoveService(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// Done is closed when the Heartbeater has ended: after Stop, after the end of the
// context of Start, or by itself with NoRecreate. It must have been started.
func (h *Heartbeater) Done() <-chan struct{} { return h.done }

// Err returns why the Heartbeater ended by itself, nil otherwise.
func (h *Heartbeater) Err() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.err
}

// Registered reports whether the registry knows the service, as far as the last
// heartbeat says.
func (h *Heartbeater) Registered() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.registered
}

// Update changes the service in part, here, so that a new registration has the change,
// and at the registry if it is registered. When the request fails the change here stays.
func (h *Heartbeater) Update(ctx context.Context, u ServiceUpdate) error {
	if u.HeartbeatTimeout != 0 {
		if err := checkTimeout(u.HeartbeatTimeout); err != nil {
			return errs.New(errs.InvalidArgument, "update service %s: %w", h.service.ID, err)
		}
		if h.opt.Interval >= u.HeartbeatTimeout {
			return errs.New(errs.InvalidArgument, "update service %s: the interval %s of its heartbeats is not below the heartbeat timeout %s", h.service.ID, h.opt.Interval, u.HeartbeatTimeout)
		}
	}
	h.mu.Lock()
	if u.HeartbeatTimeout != 0 {
		h.service.HeartbeatTimeout = u.HeartbeatTimeout
	}
	if u.Tags != nil {
		h.service.Tags = slices.Clone(u.Tags)
	}
	if u.Metadata != nil {
		h.service.Metadata = maps.Clone(u.Metadata)
	}
	registered := h.registered
	id := h.service.ID
	h.mu.Unlock()
	if !registered {
		return nil
	}
	return h.client.UpdateService(ctx, id, u)
}

// current returns the service as it is to be registered.
func (h *Heartbeater) current() Service {
	h.mu.Lock()
	defer h.mu.Unlock()
	return cloneService(h.service)
}

func (h *Heartbeater) setRegistered(registered bool) {
	h.mu.Lock()
	h.registered = registered
	h.mu.Unlock()
}

// interval is the time to the next heartbeat.
func (h *Heartbeater) interval() time.Duration {
	d := h.opt.Interval
	if d == 0 {
		d = interval(h.current().HeartbeatTimeout)
	}
	return d - rand.N(d/10+1) //nolint:gosec // spreads load, guards nothing
}

// interval leaves short timeouts more room, for one heartbeat that is lost.
func interval(timeout time.Duration) time.Duration {
	if timeout < 15*time.Second {
		return timeout * 6 / 10
	}
	return timeout * 8 / 10
}
