package direct

import (
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"

	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/handlers"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/link"
	"telford.dev/telford/internal/message"
)

// The bounds of the listener.
const (
	maxHandshakes    = 256
	handshakeTimeout = 10 * time.Second
)

// ListenerOptions configure a Listener.
type ListenerOptions struct {
	Trust *ident.Trust
	Clock clock.Clock
	Log   *slog.Logger
	Table *handlers.Table
	// GRPC, when set, serves the connections that chose HTTP/2. Its credentials must be
	// those of Credentials.
	GRPC *grpc.Server
	// MaxInbound and MaxWaiting bound the calls of one connection.
	MaxInbound, MaxWaiting int
}

// Listener serves the connections that others dial.
type Listener struct {
	opt    ListenerOptions
	ln     net.Listener
	config *tls.Config
	grpc   *handoff
	revoke func()
	slots  chan struct{}
	ctx    context.Context
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu       sync.Mutex
	conns    map[*served]struct{}
	draining bool
	closed   bool
}

// served is one accepted connection, of either protocol.
type served struct {
	id    ident.Identity
	nc    net.Conn
	lc    atomic.Pointer[link.Conn] // nil for HTTP/2, and until the link has begun
	timer clock.Timer
	// began is closed once lc is set, or will not be; nil for HTTP/2.
	began chan struct{}
}

// close ends the connection at once, saying why where the protocol has a word for it.
func (s *served) close(cause error) {
	if lc := s.lc.Load(); lc != nil {
		lc.Close(cause)
		return
	}
	_ = s.nc.Close()
}

// Serve begins to accept on ln, which it owns from now on.
func Serve(ln net.Listener, opt ListenerOptions) *Listener {
	if opt.Clock == nil {
		opt.Clock = clock.Real()
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	ctx, cancel := context.WithCancel(context.Background())
	l := &Listener{
		opt: opt, ln: ln, ctx: ctx, cancel: cancel, slots: make(chan struct{}, maxHandshakes), conns: make(map[*served]struct{}),
	}
	protos := []string{link.ALPN}
	if opt.GRPC != nil {
		protos = append(protos, "h2")
		l.grpc = newHandoff(ln.Addr())
		l.wg.Go(func() { _ = opt.GRPC.Serve(l.grpc) }) // it ends when the server is stopped
	}
	l.config = opt.Trust.ServerConfig(protos...)
	l.revoke = opt.Trust.OnRevoke(l.closeRevoked)
	l.wg.Go(l.accept)
	return l
}

// Addr is where it listens.
func (l *Listener) Addr() net.Addr { return l.ln.Addr() }

func (l *Listener) accept() {
	backoff := time.Duration(0)
	for {
		select {
		case l.slots <- struct{}{}:
		case <-l.ctx.Done():
			return
		}
		nc, err := l.ln.Accept()
		if err != nil {
			<-l.slots
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors, most likely: those who run now will give some back.
			backoff = min(max(2*backoff, 5*time.Millisecond), time.Second)
			l.opt.Log.Error("a connection could not be accepted", "error", err)
			t := l.opt.Clock.NewTimer(backoff)
			select {
			case <-t.C():
			case <-l.ctx.Done():
				t.Stop()
				return
			}
			continue
		}
		backoff = 0
		l.wg.Go(func() {
			l.handshake(nc)
		})
	}
}

// handshake finds out who is there and gives the connection to its protocol. The slot
// is given back before the connection is served.
func (l *Listener) handshake(raw net.Conn) {
	ctx, cancel := context.WithTimeout(l.ctx, handshakeTimeout)
	nc := tls.Server(raw, l.config)
	err := nc.HandshakeContext(ctx)
	cancel()
	if err != nil {
		<-l.slots
		l.opt.Log.Debug("a handshake failed", "remote", raw.RemoteAddr().String(), "error", err)
		_ = raw.Close() // the peer was told by an alert
		return
	}
	state := nc.ConnectionState()
	id, known := l.opt.Trust.Peer(state)
	refused := l.judge(id, known)
	switch {
	case state.NegotiatedProtocol == link.ALPN && refused != nil:
		_ = link.Refuse(nc, refused) // who does not hear it finds a closed connection
		<-l.slots
	case state.NegotiatedProtocol == link.ALPN:
		l.serveLink(nc, state, id)
	case l.grpc != nil && refused == nil:
		<-l.slots
		l.serveGRPC(nc, id)
	default:
		<-l.slots
		_ = nc.Close() // HTTP/2 without a certificate, or no protocol in common
	}
}

// judge refuses who may not call here.
func (l *Listener) judge(id ident.Identity, known bool) *errs.Error {
	own := l.opt.Trust.Identity()
	switch {
	case !known:
		return errs.New(errs.Unauthenticated, "a direct connection needs a client certificate")
	case id.Namespace != own.Namespace:
		return errs.New(errs.PermissionDenied, "%s is of another namespace than %s", id, own)
	}
	if err := l.opt.Trust.CheckRevoked(id); err != nil {
		return errs.From(err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.draining {
		return errs.New(errs.Unavailable, "this instance is draining").Unstarted()
	}
	return nil
}

func (l *Listener) serveLink(nc *tls.Conn, state tls.ConnectionState, id ident.Identity) {
	from := &handlers.Conn{
		Caller: message.Caller{Namespace: id.Namespace, Service: id.Service, Instance: id.Instance, KeyID: id.KeyID},
		Known:  true, Remote: nc.RemoteAddr(), Local: nc.LocalAddr(), TLS: &state,
	}
	// It stands in the books before its first call can begin, so that whoever drains
	// the listener waits for that call too.
	s := &served{id: id, nc: nc, began: make(chan struct{})}
	if err := l.track(s); err != nil {
		_ = link.Refuse(nc, err) // who does not hear it finds a closed connection
		<-l.slots
		return
	}
	defer l.untrack(s)
	lc, err := link.Accept(nc, link.Options{
		Handler: l.opt.Table.For(from), MaxInbound: l.opt.MaxInbound, MaxWaiting: l.opt.MaxWaiting, Clock: l.opt.Clock, Log: l.opt.Log,
	})
	<-l.slots
	if err != nil {
		close(s.began)
		l.opt.Log.Debug("a link could not be accepted", "caller", id.Instance, "error", err)
		return
	}
	s.lc.Store(lc)
	close(s.began)
	if err := l.settled(s); err != nil {
		lc.Close(err)
	}
	<-lc.Done()
}

// settled looks again at what may have changed while a link began: whoever changed it
// may not have seen the link yet.
func (l *Listener) settled(s *served) *errs.Error {
	l.mu.Lock()
	draining, closed := l.draining, l.closed
	l.mu.Unlock()
	if closed {
		return errs.New(errs.Unavailable, "this instance has stopped")
	}
	if err := l.opt.Trust.CheckRevoked(s.id); err != nil {
		return errs.From(err)
	}
	if draining {
		s.lc.Load().GoAway()
	}
	return nil
}

func (l *Listener) serveGRPC(nc *tls.Conn, id ident.Identity) {
	s := &served{id: id, nc: nc}
	if l.track(s) != nil {
		_ = nc.Close()
		return
	}
	if !l.grpc.give(&watched{Conn: nc, closed: func() { l.untrack(s) }}) {
		_ = nc.Close()
		l.untrack(s)
	}
}

// track books a connection and arranges for its end with the leaves of both ends. The
// error says why it must end now.
func (l *Listener) track(s *served) *errs.Error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.draining {
		return errs.New(errs.Unavailable, "this instance has stopped").Unstarted()
	}
	// The news may have come since the connection was judged; what comes from now on
	// finds it in the books.
	if err := l.opt.Trust.CheckRevoked(s.id); err != nil {
		return errs.From(err)
	}
	l.conns[s] = struct{}{}
	if end := sooner(l.opt.Trust.Identity().NotAfter, s.id.NotAfter); !end.IsZero() {
		clk := l.opt.Trust.Clock()
		s.timer = clk.AfterFunc(end.Sub(clk.Now()), func() {
			s.close(errs.New(errs.Unavailable, "the certificate of the connection has ended"))
		})
	}
	return nil
}

func (l *Listener) untrack(s *served) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.conns, s)
	if s.timer != nil {
		s.timer.Stop()
	}
}

func (l *Listener) list() []*served {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make([]*served, 0, len(l.conns))
	for s := range l.conns {
		out = append(out, s)
	}
	return out
}

// closeRevoked ends the connections of who is revoked, at once.
func (l *Listener) closeRevoked() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return // Close ends them all
	}
	for s := range l.conns {
		if err := l.opt.Trust.CheckRevoked(s.id); err != nil {
			l.wg.Go(func() { s.close(err) }) // a farewell takes at most a second
		}
	}
}

// GoAway tells every caller to open no more calls here, and refuses new connections.
func (l *Listener) GoAway() {
	l.mu.Lock()
	l.draining = true
	l.mu.Unlock()
	for _, s := range l.list() {
		if lc := s.lc.Load(); lc != nil {
			lc.GoAway()
		}
	}
}

// Drain waits until the calls of all connections have ended, and closes them. What is
// left when ctx ends is closed then.
func (l *Listener) Drain(ctx context.Context) error {
	l.GoAway()
	var wg sync.WaitGroup
	for _, s := range l.list() {
		if s.began == nil {
			continue
		}
		wg.Go(func() {
			select {
			case <-s.began:
			case <-ctx.Done():
			}
			if lc := s.lc.Load(); lc != nil {
				l.drainLink(ctx, lc)
			}
		})
	}
	if l.opt.GRPC != nil {
		stopped := make(chan struct{})
		wg.Go(func() {
			defer close(stopped)
			l.opt.GRPC.GracefulStop()
		})
		wg.Go(func() {
			select {
			case <-stopped:
			case <-ctx.Done():
				l.opt.GRPC.Stop()
			}
		})
	}
	wg.Wait()
	return ctx.Err()
}

// silence is how long a caller may leave a farewell unanswered once it has all its
// answers.
const silence = time.Second

// drainLink ends one link when its calls have ended, and closes it either way. A caller
// that cannot be heard any more is not waited for once nothing of it runs.
func (l *Listener) drainLink(ctx context.Context, lc *link.Conn) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ended := make(chan struct{})
	var watch sync.WaitGroup
	watch.Go(func() {
		for quiet := time.Duration(0); quiet < silence; {
			t := l.opt.Clock.NewTimer(silence / 10)
			select {
			case <-ended:
				t.Stop()
				return
			case <-t.C():
			}
			if quiet += silence / 10; lc.Inbound() > 0 {
				quiet = 0
			}
		}
		cancel()
	})
	_ = lc.Drain(ctx) // closed either way
	close(ended)
	watch.Wait()
}

// Close stops at once and waits for the goroutines of the listener.
func (l *Listener) Close() {
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		l.wg.Wait()
		return
	}
	l.closed, l.draining = true, true
	l.mu.Unlock()
	l.revoke()
	l.cancel()
	_ = l.ln.Close() // it may be closed already
	if l.opt.GRPC != nil {
		l.opt.GRPC.Stop()
		_ = l.grpc.Close() // it cannot fail
	}
	var wg sync.WaitGroup
	for _, s := range l.list() {
		wg.Go(func() { s.close(errs.New(errs.Unavailable, "this instance has stopped")) })
	}
	wg.Wait()
	l.wg.Wait()
}
