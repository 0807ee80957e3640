// Package accept owns the port that the link and gRPC share: one accept loop, a TLS
// handshake for each connection, and the hand-over by ALPN. It judges no calls and
// knows no frames: telford/1 connections go to the link door, h2 connections to
// grpc-go, which is handed the finished handshake.
//
// When many come at once, as after a restart of the runtime, their handshakes begin at a
// rate that grows, and those that would wait for long are told when to come back, before
// a handshake has cost anything.
//
// The Server owns one goroutine for the loop and one for each connection until its
// handshake has ended; the latter also runs the link door's function for as long as that
// connection lives. Stop ends them all.
package accept

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"time"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/link"
)

// The defaults of Config.
const (
	DefaultHandshakeTimeout = 10 * time.Second
	DefaultMaxHandshakes    = 256
	DefaultMaxConnections   = 16384
)

// Trust is the runtime's own identity and what it believes of others; *ident.Trust is
// one.
type Trust interface {
	ServerConfig(protos ...string) *tls.Config
	Peer(cs tls.ConnectionState) (ident.Identity, bool)
	Identity() ident.Identity
	Revoked(id ident.Identity) bool
	OnRevoke(f func()) (cancel func())
}

// Config says how to accept.
type Config struct {
	Trust Trust
	// Link serves one telford/1 connection and returns when it has ended. A peer whose
	// Rejected is set must be refused with it; its Identity is not proven.
	Link func(nc net.Conn, peer Peer)
	// HandshakeTimeout bounds one handshake; 0 means 10 s.
	HandshakeTimeout time.Duration
	// MaxHandshakes bounds the handshakes at one time; 0 means 256. As many connections
	// more wait for their turn, and those beyond are told when to come back.
	MaxHandshakes int
	// MaxConnections bounds the open connections; 0 means 16,384. Beyond it a telford/1
	// connection is refused with resource_exhausted and another one is closed.
	MaxConnections int
	Clock          clock.Clock
	Log            *slog.Logger
}

// Peer is what a handshake has shown of the other end.
type Peer struct {
	// Identity is that of the client's certificate, when Known.
	Identity ident.Identity
	Known    bool
	// Rejected says why a certificate that was presented is not believed, or why this
	// connection cannot be served.
	Rejected *errs.Error
	Addr     net.Addr
}

// Server accepts on one listener.
type Server struct {
	cfg   Config
	slots chan struct{}
	grpc  *handover

	mu      sync.Mutex
	ramp    ramp
	waiting int    // for a handshake
	refused uint64 // before the handshake
	lis     net.Listener
	stopped bool
	conns   map[*conn]struct{}
	cancel  func()

	stopping chan struct{}
	wg       sync.WaitGroup
}

// New returns a Server that has not started.
func New(cfg Config) *Server {
	if cfg.HandshakeTimeout <= 0 {
		cfg.HandshakeTimeout = DefaultHandshakeTimeout
	}
	if cfg.MaxHandshakes <= 0 {
		cfg.MaxHandshakes = DefaultMaxHandshakes
	}
	if cfg.MaxConnections <= 0 {
		cfg.MaxConnections = DefaultMaxConnections
	}
	if cfg.Clock == nil {
		cfg.Clock = clock.Real()
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return &Server{
		cfg:   cfg,
		slots: make(chan struct{}, cfg.MaxHandshakes),
		grpc:  newHandover(),
		conns: make(map[*conn]struct{}),

		stopping: make(chan struct{}),
	}
}

// GRPC is the listener to give to grpc-go, together with Credentials: it yields the h2
// connections, their handshakes done. It closes when the Server stops or when grpc-go
// closes it; the port itself stays open in the latter case.
func (s *Server) GRPC() net.Listener { return s.grpc }

// Start begins to accept on l, which the Server owns from here on. It returns an error
// on a second Start or after Stop, closing l.
func (s *Server) Start(l net.Listener) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped || s.lis != nil {
		_ = l.Close()
		return errs.New(errs.FailedPrecondition, "the accept loop was started or stopped before; make a new one").In("accept", "start")
	}
	s.lis = l
	s.grpc.setAddr(l.Addr())
	s.cancel = s.cfg.Trust.OnRevoke(s.closeRevoked)
	s.wg.Add(1)
	go s.loop(l)
	return nil
}

// Stop closes the port, ends the handshakes under way and waits for the link door's
// connections; when ctx ends first, it closes them. The h2 connections belong to
// grpc-go by then. It is safe before Start and more than once.
func (s *Server) Stop(ctx context.Context) {
	s.mu.Lock()
	if !s.stopped {
		s.stopped = true
		close(s.stopping)
	}
	if s.lis != nil {
		_ = s.lis.Close()
	}
	cancel := s.cancel
	s.cancel = nil
	for c := range s.conns {
		if c.handshaking {
			_ = c.raw.Close()
		}
	}
	s.mu.Unlock()
	if cancel != nil {
		cancel()
	}
	_ = s.grpc.Close()

	done := make(chan struct{})
	go func() { s.wg.Wait(); close(done) }()
	select {
	case <-done:
		return
	case <-ctx.Done():
	}
	s.mu.Lock()
	for c := range s.conns {
		_ = c.raw.Close()
	}
	s.mu.Unlock()
	<-done
}

// Open returns the number of open connections, those in their handshake included.
func (s *Server) Open() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.conns)
}

// Stats are figures for metrics.
type Stats struct {
	Handshakes int    // under way
	Waiting    int    // for their handshake
	Refused    uint64 // told to come back later, since the start
}

// Stats returns the figures.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return Stats{Handshakes: len(s.slots), Waiting: s.waiting, Refused: s.refused}
}

func (s *Server) loop(l net.Listener) {
	defer s.wg.Done()
	var pause time.Duration
	for {
		nc, err := l.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of file descriptors, or a connection that ended in the backlog.
			pause = min(max(2*pause, 5*time.Millisecond), time.Second)
			s.cfg.Log.Warn("accept", "error", err, "again_in", pause)
			t := s.cfg.Clock.NewTimer(pause)
			select {
			case <-t.C():
				continue
			case <-s.stopping:
				t.Stop()
				return
			}
		}
		pause = 0
		c := s.track(nc)
		if c == nil {
			_ = nc.Close()
			continue
		}
		go s.serve(c)
	}
}

// track counts the connection in; nil when the Server stops.
func (s *Server) track(nc net.Conn) *conn {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil
	}
	c := newConn(s, nc, len(s.conns) >= s.cfg.MaxConnections)
	s.conns[c] = struct{}{}
	s.wg.Add(1)
	return c
}

func (s *Server) serve(c *conn) {
	defer s.wg.Done()
	if !s.admitted(c) {
		_ = c.Close()
		return
	}
	err := c.handshake()
	<-s.slots
	if err != nil {
		s.cfg.Log.Debug("handshake", "peer", c.raw.RemoteAddr(), "error", err)
		_ = c.Close()
		return
	}
	s.mu.Lock()
	c.handshaking = false
	stopped := s.stopped
	s.mu.Unlock()
	if stopped {
		_ = c.Close()
		return
	}
	c.endWithLeaf()
	switch {
	case c.protocol == link.ALPN:
		s.cfg.Link(c, c.peer)
		_ = c.Close()
	case c.protocol != "h2" || c.overload || !s.grpc.give(c):
		_ = c.Close()
	}
}

// admitted waits for the turn of a connection and takes a slot for its handshake; false
// when the connection was refused or the Server stops.
func (s *Server) admitted(c *conn) bool {
	s.mu.Lock()
	behind := s.waiting >= s.cfg.MaxHandshakes && len(s.slots) == cap(s.slots)
	park, away := s.ramp.admit(s.cfg.Clock.Now(), behind)
	if away > 0 {
		s.refused++
		s.mu.Unlock()
		s.refuse(c, away)
		return false
	}
	s.waiting++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		s.waiting--
		s.mu.Unlock()
	}()
	if park > 0 {
		t := s.cfg.Clock.NewTimer(park)
		defer t.Stop()
		select {
		case <-t.C():
		case <-s.stopping:
			return false
		}
	}
	select {
	case s.slots <- struct{}{}:
		return true
	case <-s.stopping:
		return false
	}
}

// refuse tells a connection when to come back.
func (s *Server) refuse(c *conn, away time.Duration) {
	s.cfg.Log.Debug("many connect at once; told to come back", "peer", c.raw.RemoteAddr(), "after", away)
	if c.overload {
		return // there are so many that they are closed without a word
	}
	if err := link.Busy(c.raw, away); err != nil {
		s.cfg.Log.Debug("the refusal was not heard", "peer", c.raw.RemoteAddr(), "error", err)
	}
}

func (s *Server) closeRevoked() {
	s.mu.Lock()
	var revoked []*conn
	for c := range s.conns {
		// The link door ends its own sessions, saying why.
		if !c.handshaking && c.protocol != link.ALPN && c.peer.Known && s.cfg.Trust.Revoked(c.peer.Identity) {
			revoked = append(revoked, c)
		}
	}
	s.mu.Unlock()
	for _, c := range revoked {
		c.endSoon()
	}
}
