package ipc

import (
	"context"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"telford.dev/telford/internal/ipcwire"
)

// Client is a service on a gateway: it handles the methods that it has registered, and
// calls those of others. It is safe for concurrent use.
type Client struct {
	cfg ClientConfig

	life   sync.Mutex // held while connecting and disconnecting
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	run     context.Context //nolint:containedctx // it is the life of the connections, from which handlers get theirs
	methods map[string]Handler
	version int     // of the methods
	links   []*link // by their place in the pool; nil where there is none
	next    int     // of links, for the next message
	pending map[string]*pending
	up      int // links that are registered

	handling atomic.Int64
}

// NewClient returns a client that is not connected.
func NewClient(cfg ClientConfig) (*Client, error) {
	cfg, err := cfg.withDefaults()
	if err != nil {
		return nil, err
	}
	return &Client{cfg: cfg, methods: make(map[string]Handler), pending: make(map[string]*pending)}, nil
}

// Connect connects and registers with the gateway, and then keeps connected until
// Disconnect. It fails with CodeConnectionFailed when the first connection fails; nothing
// goes on then. Of a pool the further connections may follow later. Connect on a client
// that is being kept connected does nothing.
func (c *Client) Connect(ctx context.Context) error {
	c.life.Lock()
	defer c.life.Unlock()
	if c.cancel != nil {
		return nil
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	c.mu.Lock()
	c.run = run
	c.links = make([]*link, c.cfg.PoolSize)
	c.mu.Unlock()
	first, err := c.connect(ctx, 0)
	if err != nil {
		cancel()
		return err
	}
	c.cancel = cancel
	c.wg.Add(1 + c.cfg.PoolSize)
	go c.keep(run, 0, first)
	for place := 1; place < c.cfg.PoolSize; place++ {
		l, err := c.connect(ctx, place)
		if err != nil {
			c.trouble(err)
		}
		go c.keep(run, place, l)
	}
	go c.beat(run)
	return nil
}

// Disconnect ends the connections for good: calls under way fail with CodeNotConnected,
// the contexts of handlers end. It may be called again, and Connect after it.
func (c *Client) Disconnect() error {
	c.life.Lock()
	defer c.life.Unlock()
	if c.cancel == nil {
		return nil
	}
	limit := time.Now().Add(time.Second)
	for _, l := range c.live() {
		l.finish(time.Until(limit))
	}
	c.reject(nil, Errorf(CodeNotConnected, "Client disconnected"))
	c.cancel() // which closes the connections
	c.cancel = nil
	c.wg.Wait()
	return nil
}

// keep reads one connection after the other for a place in the pool.
func (c *Client) keep(run context.Context, place int, l *link) {
	defer c.wg.Done()
	for attempt := 1; ; attempt++ {
		if l != nil {
			stop := context.AfterFunc(run, l.close)
			l.read()
			stop()
			c.lost(l)
			attempt = 1
		}
		if run.Err() != nil || c.cfg.NoReconnect {
			return
		}
		timer := c.cfg.clock.NewTimer(backoff(c.cfg.ReconnectDelay, attempt, rand.Float64())) //nolint:gosec // it spreads attempts, and need not be secret
		select {
		case <-run.Done():
			timer.Stop()
			return
		case <-timer.C():
		}
		var err error
		if l, err = c.connect(run, place); err != nil && run.Err() == nil {
			c.trouble(err)
		}
	}
}

// backoff is how long to wait before an attempt, counted from 1; random is in [0, 1).
func backoff(delay time.Duration, attempt int, random float64) time.Duration {
	for range min(attempt-1, 30) {
		if delay *= 2; delay >= maxReconnectDelay {
			break
		}
	}
	delay = min(delay, maxReconnectDelay)
	return delay - time.Duration(random*float64(delay)/4)
}

// lost takes a connection out and fails the calls that went over it.
func (c *Client) lost(l *link) {
	c.mu.Lock()
	if c.links[l.place] == l {
		c.links[l.place] = nil
	}
	last := false
	if l.registered {
		l.registered = false
		c.up--
		last = c.up == 0
	}
	c.mu.Unlock()
	l.close()
	c.reject(l, Errorf(CodeConnectionLost, "Connection closed"))
	if last {
		c.log("disconnected", nil)
		if c.cfg.Events.Disconnected != nil {
			c.cfg.Events.Disconnected()
		}
	}
}

// reject fails the calls that went over l, or all when l is nil.
func (c *Client) reject(l *link, err *Error) {
	c.mu.Lock()
	var hit []*pending
	for id, p := range c.pending {
		if l == nil || p.link == l {
			hit = append(hit, p)
			delete(c.pending, id)
		}
	}
	c.mu.Unlock()
	for _, p := range hit {
		p.done <- reply{err: &Error{Code: err.Code, Message: err.Message}}
	}
}

// beat shows the gateway life on every connection.
func (c *Client) beat(run context.Context) {
	defer c.wg.Done()
	timer := c.cfg.clock.NewTimer(c.cfg.HeartbeatInterval)
	defer timer.Stop()
	for {
		select {
		case <-run.Done():
			return
		case now := <-timer.C():
			frame := ipcwire.AppendHeartbeat(nil, c.cfg.Serializer, c.cfg.ServiceName, now.UnixMilli())
			for _, l := range c.live() {
				if l.send(frame) == nil {
					l.flush()
				}
			}
			timer.Reset(c.cfg.HeartbeatInterval)
		}
	}
}

// live returns the connections that are there.
func (c *Client) live() []*link {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(c.links), func(l *link) bool { return l == nil })
}

// pick is the next registered connection, or nil. The mutex is held.
func (c *Client) pick() *link {
	for range c.links {
		l := c.links[c.next%len(c.links)]
		c.next = (c.next + 1) % len(c.links)
		if l != nil && l.registered {
			return l
		}
	}
	return nil
}

// ClientStatus is what a client says of itself.
type ClientStatus struct {
	Connected         bool   `json:"connected"`
	Registered        bool   `json:"registered"`
	ServiceName       string `json:"serviceName"`
	PendingRequests   int    `json:"pendingRequests"`
	RegisteredMethods int    `json:"registeredMethods"`
	// Connections is how many of the pool are registered.
	Connections int `json:"connections"`
}

// Status says whether the client is connected, and what is under way.
func (c *Client) Status() ClientStatus {
	c.mu.Lock()
	defer c.mu.Unlock()
	connected := slices.ContainsFunc(c.links, func(l *link) bool { return l != nil })
	return ClientStatus{
		Connected: connected, Registered: c.up > 0, ServiceName: c.cfg.ServiceName,
		PendingRequests: len(c.pending), RegisteredMethods: len(c.methods), Connections: c.up,
	}
}

// IsConnected reports whether the client is connected and registered.
func (c *Client) IsConnected() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.up > 0
}
