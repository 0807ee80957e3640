// Package sessions owns the runtime's side of sessions, whichever door their
// connections come in by: who holds an instance id, resume, handover and fencing,
// registration, watches, heartbeats, revocations and drain. It moves no calls itself:
// those go between a session's peer and the router.
//
// A Server owns, for each connection, the goroutine of Serve (its caller's), one for a
// ping under way and one while it watches; what must outlast a connection, such as a
// farewell, runs on goroutines that Stop waits for.
package sessions

import (
	"context"
	"crypto/sha256"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/catalogpb"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/id"
	"telford.dev/telford/internal/ident"
	"telford.dev/telford/internal/limit"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/session"
	"telford.dev/telford/server/internal/registry"
)

// Registry keeps what runs; *registry.Registry is one.
type Registry interface {
	Register(ctx context.Context, owner registry.Owner, d *catalog.Declaration) (catalog.Revision, []catalog.DeclarationWarning, error)
	SetStatus(ctx context.Context, namespace, id string, status catalog.Status, message string) error
	Deregister(ctx context.Context, namespace, id string, reason catalog.Reason) error
	Touch(namespace, id string) bool
	Session(namespace, id string) (end func(), ok bool)
	Leaving(namespace, id string) bool
	Watch(namespace string, services []string, after catalog.Revision) *registry.Watcher
	Get(namespace, id string) (*catalog.Instance, error)
	Forbidden(namespace, id string) []catalog.DeclarationWarning
	SetFailing(namespace, id string, until time.Time)
}

// Router delivers calls; *router.Router is one.
type Router interface {
	AsHandler(caller message.Caller, namespace string) message.Handler
	Attach(namespace, instance string, l message.Link) (detach func())
}

// Authority knows who is revoked and which roots are trusted; *identity.Authority is
// one.
type Authority interface {
	Revocations() (keys, instances []string)
	OnRevocation(f func(keys, instances []string)) (cancel func())
	// SigningRoot is the root under which certificates are issued now, by the hash of its
	// public key, and the time within which those under another one should be renewed.
	SigningRoot() (spki [32]byte, within time.Duration)
	// OnRoots has f called when SigningRoot or the roots of Trust have changed.
	OnRoots(f func()) (cancel func())
	Trust() *ident.Trust
}

// Config is what a Server is made of. Registry, Router, Authority and Rules are required;
// zero values of the rest mean the default.
type Config struct {
	Registry  Registry
	Router    Router
	Authority Authority
	Rules     Rules
	// Shares returns what each instance of a service has to keep to at present: what
	// operators have laid down for it, and what it declares for all of its instances
	// together, divided among those. divided: it changes with their number, of which
	// Counted is told. Nil: as it was laid down. It must not wait.
	Shares  func(namespace, service string, ruled []limit.Rule) (share []limit.Rule, divided bool)
	Zone    string
	Version string
	// Epoch tells this process of the runtime from its predecessors; 0: the time of New.
	Epoch uint64
	Clock clock.Clock
	Log   *slog.Logger

	Interval, Timeout time.Duration // of the heartbeat: 10 s, 30 s
	Window            time.Duration // how long a cut session can be resumed: 60 s
	HelloTimeout      time.Duration // from the connection to Hello: 10 s
	DrainTimeout      time.Duration // of a connection that a handover replaced: 30 s
	MaxSessions       int           // 10,000
}

func (c Config) withDefaults() Config {
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Interval <= 0 {
		c.Interval = session.Interval
	}
	if c.Timeout <= 0 {
		c.Timeout = session.Timeout
	}
	if c.Window <= 0 {
		c.Window = session.Window
	}
	if c.HelloTimeout <= 0 {
		c.HelloTimeout = 10 * time.Second
	}
	if c.DrainTimeout <= 0 {
		c.DrainTimeout = 30 * time.Second
	}
	if c.MaxSessions <= 0 {
		c.MaxSessions = 10_000
	}
	if c.Epoch == 0 {
		c.Epoch = uint64(c.Clock.Now().UnixMicro())
	}
	return c
}

// key names the holder of a session.
type key struct{ namespace, instance string }

// digest is the hash of a resume token; tokens themselves are not kept.
type digest [sha256.Size]byte

// rememberFenced is how many tokens of fenced sessions are remembered. The oldest are
// forgotten first; who comes back with one of those is taken for new.
const rememberFenced = 10_000

// Server holds the sessions of one runtime. Its mu may be held when that of a session
// is taken, never the other way round.
type Server struct {
	cfg     Config
	ids     id.Source
	encoder catalogpb.Encoder

	mu         sync.Mutex
	sessions   map[key]*held
	ports      map[*Port]struct{}
	fenced     map[digest]struct{}
	fencedLine []digest // oldest first
	cancel     []func() // of the subscriptions to revocations, roots and rules

	// stopping is set under mu and read without.
	stopping atomic.Bool

	pushes pushes

	wg sync.WaitGroup // ports being served, and farewells
}

// New returns a Server that takes connections.
func New(cfg Config) *Server {
	s := &Server{
		cfg:      cfg.withDefaults(),
		sessions: make(map[key]*held), ports: make(map[*Port]struct{}), fenced: make(map[digest]struct{}),
	}
	s.pushes.init(s)
	s.cancel = []func(){s.cfg.Authority.OnRevocation(s.revoked), s.cfg.Authority.OnRoots(s.rooted), s.cfg.Rules.OnChange(s.pushes.changed)}
	return s
}

// retryFull and retryStopping are when a refused connection should come back.
const (
	retryFull     = 5 * time.Second
	retryStopping = time.Second
)

// Admit returns why no further connection is taken at present: unavailable while the
// runtime stops, resource_exhausted at the limit. Both say when to come back.
func (s *Server) Admit() *errs.Error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.stopping.Load():
		return errs.New(errs.Unavailable, "the runtime is stopping").Unstarted().After(spread(retryStopping))
	case len(s.ports) >= 2*s.cfg.MaxSessions:
		return errs.New(errs.ResourceExhausted, "the runtime holds its limit of %d sessions", s.cfg.MaxSessions).Unstarted().After(spread(retryFull))
	}
	return nil
}

// Counts says how many sessions are held, and how many of them are connected.
func (s *Server) Counts() (all, connected int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range s.sessions {
		if h.connected() {
			connected++
		}
	}
	return len(s.sessions), connected
}

// Info is what there is to know of one session.
type Info struct {
	Namespace, Instance, Service, Door string
	ID                                 string
	State                              session.State
	Since                              time.Time
	Inbound, Outbound                  int // commands under way
}

// List describes all sessions, in no order.
func (s *Server) List() []Info {
	s.mu.Lock()
	all := make([]*held, 0, len(s.sessions))
	for _, h := range s.sessions {
		all = append(all, h)
	}
	s.mu.Unlock()
	list := make([]Info, 0, len(all))
	for _, h := range all {
		list = append(list, h.info())
	}
	return list
}

// Identity returns who the instance of a session is, by the credential of its latest
// connection; false when there is no session. NotAfter is zero where the credential is
// a bare key.
func (s *Server) Identity(namespace, instance string) (ident.Identity, bool) {
	s.mu.Lock()
	h := s.sessions[key{namespace, instance}]
	s.mu.Unlock()
	if h == nil {
		return ident.Identity{}, false
	}
	return h.identity(), true
}

// End ends the session of an instance for good, with cause told to it; false when there
// is none. The registration is the caller's business.
func (s *Server) End(namespace, instance string, cause *errs.Error) bool {
	s.mu.Lock()
	h := s.sessions[key{namespace, instance}]
	s.mu.Unlock()
	if h == nil {
		return false
	}
	s.end(h, cause, nil)
	return true
}

// goRun runs f on a goroutine that Stop waits for; not at all once Stop has waited.
func (s *Server) goRun(f func()) {
	s.wg.Add(1)
	go func() {
		defer s.wg.Done()
		f()
	}()
}
