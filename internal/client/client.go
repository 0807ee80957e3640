// Package client owns the session of an instance with the runtime: provisioning and
// renewing its certificate, connecting and connecting again, registering, watching, and
// the signs of life. It never decides what is called and never runs a handler itself.
//
// A Session owns one goroutine that drives it, and shorter-lived ones for a ping, a
// renewal and a connection that is being replaced. All end with Close.
package client

import (
	"context"
	"log/slog"
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/protobuf/proto"

	telfordv1 "telford.dev/telford/api/telford/v1"
	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/catalogpb"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/handlers"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/rulespb"
	"telford.dev/telford/internal/session"
	"telford.dev/telford/internal/view"
)

// Reasons of Events.Disconnected.
const (
	ReasonStopped   = "stopped"
	ReasonDrain     = "drain"
	ReasonExhausted = "exhausted"
	ReasonFenced    = "fenced"
	ReasonError     = "error"
	// ReasonPolicy begins the reason of an instance whose declarations are not allowed.
	ReasonPolicy = "policy:"
)

// Events are told what happens, on the goroutine that drives the session: they must
// not wait.
type Events struct {
	Connected    func(instance string)
	Reconnecting func(attempt int, cause error, delay time.Duration)
	Draining     func(reason string)
	Disconnected func(reason string, cause error)
	// Warnings is told of each confirmed registration that earned some, Violations what
	// policy forbids of it as of now, with all rules that come.
	Warnings   func([]catalog.DeclarationWarning)
	Violations func([]catalog.DeclarationWarning)
	Gone       func([]*catalog.Instance)
	// Deaf is told when there was no progress with the runtime since an instant for
	// Options.DeafAfter, and when there is again. Unlike the others it may come on any
	// goroutine. Nil: nobody is told.
	Deaf func(deaf bool, since time.Time, cause error)
}

// Options configure a Session.
type Options struct {
	// Server is the host:port of the runtime.
	Server string
	// Key provisions certificates; nil when the Trust has one that is not ours to renew.
	Key *ident.Key
	// ServerName, when set, is a host name that the runtime's certificate must be for.
	ServerName        string
	Service, Instance string
	SDK               string
	Trust             *ident.Trust
	Table             *handlers.Table
	View              *view.View
	// Declaration describes this instance, given the local address of the session.
	Declaration func(local net.Addr) (*catalog.Declaration, error)
	Backoff     session.Backoff
	MaxInFlight int
	// Rules, when set, puts rules in force before the calls that come behind them are
	// served. It runs on the reader and must not wait.
	Rules func(*rulespb.Rules)
	// Denials, when set, are reported while there is a session.
	Denials Denials
	// FailOnViolation ends the first start when policy forbids any of what is declared.
	FailOnViolation bool
	// DeafAfter is how long there may be no progress with the runtime; 0: for ever.
	DeafAfter time.Duration
	Events    Events
	Clock     clock.Clock
	Log       *slog.Logger
	// Dial opens the connection below; nil means TCP.
	Dial func(ctx context.Context, addr string) (net.Conn, error)
}

// Session is the client's end of a session. It is safe for concurrent use.
type Session struct {
	opt    Options
	peer   *session.Peer
	ctx    context.Context
	cancel context.CancelCauseFunc
	wg     sync.WaitGroup
	start  sync.Once
	done   chan struct{} // closed when the driver has ended
	ready  chan struct{} // closed at the first registration and snapshot
	rewant chan struct{}
	pongs  chan pong

	// wanted is what the runtime has said of the certificate. Of the driver.
	wanted wanted
	// registered: the runtime has confirmed a declaration in this session. Of the driver.
	registered bool
	// warnings are those of the first registration, until the start has succeeded. Of the
	// driver.
	warnings []catalog.DeclarationWarning

	rules struct {
		sync.Mutex
		last  ruling
		known bool
	}
	dials atomic.Uint64

	hearing hearing

	up      atomic.Bool
	renewAt atomic.Pointer[time.Time] // when the certificate in force is due
	changed atomic.Pointer[chan struct{}]

	mu        sync.Mutex
	state     session.State
	current   *port
	token     string
	err       error // why it has ended for good
	status    catalog.Status
	statusMsg string
	info      Info
	failing   map[string]struct{} // to be reported
	draining  bool
	closing   bool
}

// Info is what the runtime has said of itself and of the session.
type Info struct {
	SessionID, Zone, RuntimeVersion, Transport string
	Namespace, Service, Instance               string
	HeartbeatInterval, HeartbeatTimeout        time.Duration
	Permits                                    int
}

// New returns a session that is not connected yet.
func New(opt Options) *Session {
	if opt.Clock == nil {
		opt.Clock = clock.Real()
	}
	if opt.Log == nil {
		opt.Log = slog.New(slog.DiscardHandler)
	}
	if opt.Dial == nil {
		opt.Dial = func(ctx context.Context, addr string) (net.Conn, error) {
			return (&net.Dialer{KeepAlive: 15 * time.Second}).DialContext(ctx, "tcp", addr)
		}
	}
	s := &Session{
		opt: opt, done: make(chan struct{}), ready: make(chan struct{}), rewant: make(chan struct{}, 1),
		pongs: make(chan pong, 1), state: session.Connecting, status: catalog.OK,
	}
	s.hearing = hearing{clock: opt.Clock, limit: opt.DeafAfter, told: s.deafness}
	changed := make(chan struct{})
	s.changed.Store(&changed)
	s.ctx, s.cancel = context.WithCancelCause(context.Background())
	s.peer = session.NewPeer(session.PeerOptions{
		Handler: opt.Table.For(&handlers.Conn{}), Client: true, Clock: opt.Clock, Log: opt.Log,
		OnActivity: func(active bool) {
			if active {
				s.move(session.Began)
			} else {
				s.move(session.Idled)
			}
		},
	})
	return s
}

// Start begins to connect and waits until the instance is registered and has its rules
// and its first snapshot. It tries for as long as ctx allows; an error that trying again cannot mend
// is returned at once. Whoever gets an error must still call Close.
func (s *Session) Start(ctx context.Context) error {
	s.start.Do(func() {
		s.hearing.begin()
		s.wg.Go(s.drive)
	})
	select {
	case <-s.ready:
		return nil
	case <-s.done:
		return s.Err()
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.err != nil {
			return s.err
		}
		return errs.From(ctx.Err()).In("sdk", "connect to "+s.opt.Server)
	}
}

// Err says why the session has ended for good; nil while it goes on.
func (s *Session) Err() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.err
}

// State is where the session stands.
func (s *Session) State() session.State {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.state
}

// Info is what is known of the session in force.
func (s *Session) Info() Info {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.info
}

// move takes an event into the state; one that does not fit is of no consequence.
func (s *Session) move(e session.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if next, err := s.state.Next(e); err == nil {
		s.state = next
	}
}

// Up reports whether a connection carries the session now.
func (s *Session) Up() bool { return s.up.Load() }

// Available reports whether the session has not ended for good.
func (s *Session) Available() bool {
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

// Deaf reports whether the instance gets nowhere with the runtime for too long, since
// when, and what the last failure was.
func (s *Session) Deaf() (deaf bool, since time.Time, cause error) { return s.hearing.state() }

// Changed is closed when Up or Deaf may have changed.
func (s *Session) Changed() <-chan struct{} { return *s.changed.Load() }

func (s *Session) setUp(up bool) {
	s.up.Store(up)
	s.change()
}

func (s *Session) change() {
	next := make(chan struct{})
	close(*s.changed.Swap(&next))
}

// Call implements message.Link, through the runtime.
func (s *Session) Call(ctx context.Context, call *message.Call) (*message.Reply, error) {
	return s.peer.Call(ctx, call)
}

// Stream implements message.Link, through the runtime.
func (s *Session) Stream(ctx context.Context, call *message.Call) (message.Stream, error) {
	return s.peer.Stream(ctx, call)
}

// Rewatch tells that the view wants more services than it was told of.
func (s *Session) Rewatch() {
	select {
	case s.rewant <- struct{}{}:
	default:
	}
}

// SetStatus says how the instance is. While there is no session, the last word is sent
// when there is one again.
func (s *Session) SetStatus(status catalog.Status, text string) {
	s.mu.Lock()
	s.status, s.statusMsg = status, text
	p := s.current
	s.mu.Unlock()
	if p != nil && s.up.Load() {
		p.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Status{Status: &telfordv1.StatusChange{
			Status: catalogpb.StatusToProto(status), Message: text,
		}}})
	}
}

// Leave tells the runtime that this instance takes nothing new.
func (s *Session) Leave(reason string) {
	s.mu.Lock()
	s.draining = true
	p := s.current
	s.mu.Unlock()
	s.move(session.Drain)
	if p != nil {
		p.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Goodbye{Goodbye: &telfordv1.Goodbye{Reason: reason, Draining: true}}})
	}
}

// farewell is how long the last words may take.
const farewell = time.Second

func (s *Session) isClosing() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closing
}

// Close deregisters the instance, ends the session and waits for its goroutines. It may
// be called again, and without Start.
func (s *Session) Close(reason string) {
	s.mu.Lock()
	p := s.current
	s.draining, s.closing = true, true
	s.mu.Unlock()
	if p != nil && s.ctx.Err() == nil {
		// Commands on the wire are refused, and answers on the way arrive, before the
		// runtime hears that nobody is here any more.
		ctx, cancel := context.WithTimeout(s.ctx, farewell)
		_ = p.conn.Quiesce(ctx) // a runtime that does not answer is not waited for
		cancel()
		s.report(p)
		s.bye(p, reason)
	}
	s.cancel(errStopped)
	s.hearing.stop()
	s.start.Do(func() { close(s.done) }) // never started: there is no driver to do it
	s.wg.Wait()
	s.peer.Close(errStopped)
	s.move(session.Close)
}

// bye deregisters the instance and waits, for a while, until the runtime has heard it.
func (s *Session) bye(p *port, reason string) {
	p.say(&telfordv1.ClientMessage{Message: &telfordv1.ClientMessage_Goodbye{Goodbye: &telfordv1.Goodbye{Reason: reason}}})
	t := time.NewTimer(farewell)
	defer t.Stop()
	select {
	case <-p.conn.Done(): // the runtime has heard it
	case <-s.done:
	case <-t.C:
	}
}

var errStopped = errs.New(errs.Unavailable, "this service has stopped")

// goFunc runs f on a goroutine of the session; only the driver and what it started call
// it, so that Close waits for all of them.
func (s *Session) goFunc(f func()) { s.wg.Go(f) }

func marshal(m *telfordv1.ClientMessage) []byte {
	b, err := proto.Marshal(m)
	if err != nil {
		return nil // only text that is no UTF-8 fails, and options refuse that
	}
	return b
}

// qualify makes revoked instances "namespace/instance", as a Trust knows them.
func qualify(namespace string, instances []string) []string {
	out := slices.Clone(instances)
	for i, id := range out {
		if !slices.Contains([]byte(id), '/') {
			out[i] = namespace + "/" + id
		}
	}
	return out
}
