package ipc

import (
	"context"
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"time"
)

// Gateway is the hub on a unix socket through which services call each other. It is
// safe for concurrent use.
type Gateway struct {
	cfg GatewayConfig

	life     sync.Mutex // held while starting and stopping
	listener *net.UnixListener
	quit     chan struct{} // closed by Stop
	wg       sync.WaitGroup

	mu       sync.RWMutex // before the mutex of a service
	services map[string]*service
	conns    map[*conn]struct{}
	stopping bool
}

// NewGateway returns a gateway that does not listen yet.
func NewGateway(cfg GatewayConfig) *Gateway {
	return &Gateway{
		cfg:      cfg.withDefaults(),
		services: make(map[string]*service),
		conns:    make(map[*conn]struct{}),
		stopping: true,
	}
}

// Start listens. A socket file that nobody serves is removed; one that somebody serves,
// and a file that is no socket, are refused. Start fails with CodeConnectionFailed also
// when the gateway runs already. ctx bounds the start, not the run.
func (g *Gateway) Start(ctx context.Context) error {
	g.life.Lock()
	defer g.life.Unlock()
	if g.listener != nil {
		return Errorf(CodeConnectionFailed, "Server is already running on %s", g.cfg.SocketPath)
	}
	listener, err := g.listen(ctx)
	if err != nil {
		return Errorf(CodeConnectionFailed, "Failed to start server: %w", err)
	}
	g.listener = listener
	g.quit = make(chan struct{})
	g.mu.Lock()
	g.stopping = false
	g.mu.Unlock()
	g.wg.Add(2)
	go g.accept(listener, g.quit)
	go g.watch(g.quit)
	g.log("gateway started", map[string]any{"path": g.cfg.SocketPath})
	if g.cfg.Events.Started != nil {
		g.cfg.Events.Started(StartedEvent{SocketPath: g.cfg.SocketPath})
	}
	return nil
}

func (g *Gateway) listen(ctx context.Context) (*net.UnixListener, error) {
	path := g.cfg.SocketPath
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, err
	case info.Mode()&fs.ModeSocket == 0:
		return nil, Errorf(CodeConnectionFailed, "%s is there and is no socket; choose another path or remove it", path)
	default:
		ask, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		nc, err := new(net.Dialer).DialContext(ask, "unix", path)
		if err == nil {
			nc.Close()
			return nil, Errorf(CodeConnectionFailed, "another process serves %s; stop it or choose another path", path)
		}
		if !errors.Is(err, syscall.ECONNREFUSED) {
			return nil, err
		}
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	listener, err := new(net.ListenConfig).Listen(ctx, "unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, g.cfg.Mode); err != nil {
		return nil, errors.Join(err, listener.Close())
	}
	return listener.(*net.UnixListener), nil
}

// Stop finishes what is being written, for a second at most, closes every connection and
// removes the socket file. It may be called again, and the gateway may be started again.
func (g *Gateway) Stop() error {
	g.life.Lock()
	defer g.life.Unlock()
	if g.listener == nil {
		return nil
	}
	close(g.quit)
	err := g.listener.Close()
	g.mu.Lock()
	g.stopping = true
	conns := make([]*conn, 0, len(g.conns))
	for c := range g.conns {
		conns = append(conns, c)
	}
	g.mu.Unlock()
	limit := time.Now().Add(time.Second)
	for _, c := range conns {
		c.finish(time.Until(limit))
	}
	for _, c := range conns {
		c.close()
	}
	g.wg.Wait()
	g.listener = nil
	g.log("gateway stopped", nil)
	if g.cfg.Events.Stopped != nil {
		g.cfg.Events.Stopped()
	}
	return err
}

func (g *Gateway) accept(listener *net.UnixListener, quit <-chan struct{}) {
	defer g.wg.Done()
	for {
		nc, err := listener.AcceptUnix()
		if err == nil {
			g.take(nc)
			continue
		}
		select {
		case <-quit:
			return
		default:
		}
		if g.cfg.Events.Error != nil {
			g.cfg.Events.Error(err)
		}
		if errors.Is(err, net.ErrClosed) {
			return
		}
		// Most likely there are no file descriptors left: wait until some are.
		timer := g.cfg.clock.NewTimer(50 * time.Millisecond)
		select {
		case <-timer.C():
		case <-quit:
			timer.Stop()
			return
		}
	}
}

// take begins to serve a connection.
func (g *Gateway) take(nc *net.UnixConn) {
	c := &conn{
		g:    g,
		peer: peerOf(nc),
		gone: make(chan struct{}),
		pipe: pipe{nc: nc, bound: g.cfg.WriteBuffer, wg: &g.wg},
	}
	c.seen.Store(g.cfg.clock.Now().UnixMilli())
	g.mu.Lock()
	if g.stopping || len(g.conns) >= g.cfg.MaxConnections {
		g.mu.Unlock()
		g.log("connection refused", map[string]any{"limit": g.cfg.MaxConnections})
		_ = nc.Close() // it has not been used
		return
	}
	g.conns[c] = struct{}{}
	g.wg.Add(1)
	g.mu.Unlock()
	go c.serve()
}

// watch looks for services that have gone silent and for calls that nobody will answer.
func (g *Gateway) watch(quit <-chan struct{}) {
	defer g.wg.Done()
	every := min(time.Second, g.cfg.HeartbeatInterval/2)
	timer := g.cfg.clock.NewTimer(every)
	defer timer.Stop()
	for {
		select {
		case <-quit:
			return
		case <-timer.C():
		}
		now := g.cfg.clock.Now()
		g.mu.RLock()
		services := make([]*service, 0, len(g.services))
		for _, s := range g.services {
			services = append(services, s)
		}
		g.mu.RUnlock()
		for _, s := range services {
			if s.silent(now.Add(-3 * g.cfg.HeartbeatInterval)) {
				g.log("service timed out", map[string]any{"service": s.name})
				for _, c := range s.members() {
					g.leave(c)
				}
				continue
			}
			for _, f := range s.expired(now) {
				f.fail(CodeTimeout, "Request timeout after "+g.cfg.Timeout.String())
			}
		}
		timer.Reset(every)
	}
}

// GatewayStatus is what a gateway says of itself.
type GatewayStatus struct {
	Running           bool     `json:"running"`
	SocketPath        string   `json:"socketPath"`
	ConnectedServices int      `json:"connectedServices"`
	Services          []string `json:"services"`
}

// Status says whether the gateway runs, and with which services.
func (g *Gateway) Status() GatewayStatus {
	names := g.ConnectedServices()
	g.mu.RLock()
	defer g.mu.RUnlock()
	return GatewayStatus{Running: !g.stopping, SocketPath: g.cfg.SocketPath, ConnectedServices: len(names), Services: names}
}

// ConnectedServices returns the names of the services, in alphabetical order.
func (g *Gateway) ConnectedServices() []string {
	g.mu.RLock()
	defer g.mu.RUnlock()
	names := make([]string, 0, len(g.services))
	for name := range g.services {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// IsServiceConnected reports whether a service of that name is there.
func (g *Gateway) IsServiceConnected(name string) bool {
	g.mu.RLock()
	defer g.mu.RUnlock()
	return g.services[name] != nil
}

// Service describes a service, and reports whether it is there.
func (g *Gateway) Service(name string) (ServiceInfo, bool) {
	g.mu.RLock()
	s := g.services[name]
	g.mu.RUnlock()
	if s == nil {
		return ServiceInfo{}, false
	}
	return s.describe(), true
}
