// Package router owns the way of a message: it takes a request from any door, finds the
// instances that may serve it, picks one, turns the body into what that one reads and
// delivers it over the link that the instance came in by. It never dials, never stores
// and knows no wire. It starts no goroutines: a call runs on the goroutine of its caller.
package router

import (
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/resilience"
	"telford.dev/telford/server/internal/transcode"
)

// DefaultDeadline is the time of a unary call that brings none. A stream without a
// deadline lives as long as its caller.
const DefaultDeadline = 30 * time.Second

// Index is what the router asks the registry. Its methods are called on every request:
// they do not block, and what they return is shared and never changed.
type Index interface {
	// Candidates returns every registered instance of a service. As long as nothing
	// about them changes it returns the same slice.
	Candidates(namespace, service string) []*catalog.Instance
	// Services returns the names of all services that have an instance, sorted.
	Services(namespace string) []string
	// ServicesWithMethod returns the names of all services with an instance that
	// declares a method of the gRPC service, such as "shop.v1.Payments", sorted.
	ServicesWithMethod(namespace, grpcService string) []string
}

// Memory is what an Index may know beyond that: services that are away for now. Calls of
// those fail with no_instance, which may be retried, and not with service_not_found.
type Memory interface {
	// Known reports whether a service has had an instance not long ago.
	Known(namespace, service string) bool
}

// Request is a call as a door hands it in. What it says of the caller comes from the
// credential.
type Request struct {
	// Namespace is the tenant; empty means "default".
	Namespace string
	// Zone is where the caller is, for instances that only their zone sees; empty
	// means the zone of the router.
	Zone string
	// Locality is where the caller runs; empty means what its instance declared, else
	// the locality of the router.
	Locality string
	Caller   message.Caller
	// Call is read until the request is answered, and not changed. An empty Service
	// means the only one that registers the gRPC service of the method. A method
	// without a slash may be the last segment of a longer name.
	Call *message.Call
	// Avoid are instances picked only when nothing else is left.
	Avoid []string
}

// Config are the parts of a Router. Only Index is needed.
type Config struct {
	Index Index
	// Zone and Locality are where the router runs.
	Zone, Locality string
	Clock          clock.Clock
	Log            *slog.Logger
	// Rand returns 64 evenly distributed bits. It is called by many goroutines at once.
	Rand func() uint64
	// Returning is how long from New on calls wait for instances that are registered and
	// have not had a link here: those of a runtime that was restarted. 0: not at all.
	Returning time.Duration
	// Transcoder turns bodies from one content type into another; nil means a new one.
	Transcoder *transcode.Transcoder
	// Policy says who may call what; nil means everybody everything.
	Policy Policy
	// Keys runs calls with an idempotency key; nil means like any other.
	Keys Keys
	// Failing is told of instances whose breaker opens; nil means nobody.
	Failing Failing
}

// Router routes calls. It is safe for concurrent use.
type Router struct {
	index      Index
	memory     Memory // nil when the index has none
	zone       string
	locality   string
	clock      clock.Clock
	log        *slog.Logger
	rand       func() uint64
	transcoder *transcode.Transcoder
	policy     Policy  // nil: everything is allowed
	keys       Keys    // nil: keys are handed on and mean nothing here
	failing    Failing // nil: nobody is told
	tracker    resilience.Tracker
	epoch      time.Time // the zero of the scale on which instances started
	returnBy   time.Time
	leaving    atomic.Bool
	attached   atomic.Pointer[chan struct{}] // closed and replaced with each link

	mu        sync.Mutex // guards changes of what follows; readers take no lock
	endpoints map[endpointKey]*endpoint
	services  atomic.Pointer[map[serviceKey]*service]
	locals    atomic.Pointer[localTable]
	limits    atomic.Pointer[map[string]*limits] // by namespace
	compiled  int                                // views built, to sweep now and then

	nowhere meter // requests that reached no service
}

// New returns a Router that has no link attached yet.
func New(c Config) *Router {
	if c.Clock == nil {
		c.Clock = clock.Real()
	}
	if c.Log == nil {
		c.Log = slog.New(slog.DiscardHandler)
	}
	if c.Rand == nil {
		c.Rand = rand.Uint64
	}
	if c.Transcoder == nil {
		c.Transcoder = transcode.New(transcode.Options{})
	}
	r := &Router{
		index: c.Index, zone: c.Zone, locality: c.Locality, clock: c.Clock, log: c.Log, rand: c.Rand,
		transcoder: c.Transcoder, policy: c.Policy, keys: c.Keys, failing: c.Failing,
		tracker: resilience.Tracker{Breaking: resilience.DefaultBreaking()}, epoch: c.Clock.Now(), endpoints: make(map[endpointKey]*endpoint),
	}
	r.returnBy = r.epoch.Add(c.Returning)
	attached := make(chan struct{})
	r.attached.Store(&attached)
	r.memory, _ = c.Index.(Memory)
	r.services.Store(&map[serviceKey]*service{})
	r.locals.Store(&localTable{})
	r.limits.Store(&map[string]*limits{})
	return r
}

// sinceEpoch is the time on the scale of pick.Load.
func (r *Router) sinceEpoch(now time.Time) time.Duration { return now.Sub(r.epoch) }
