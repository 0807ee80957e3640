// Package invoke owns the way of an outbound call: which instance is picked, by which
// path it goes, and what is done when that fails. It never encodes, never opens
// connections and starts no goroutines: a call runs on the goroutine of its caller.
package invoke

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/direct"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/match"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/pick"
	"telford.dev/telford/internal/resilience"
	"telford.dev/telford/internal/transport"
	"telford.dev/telford/internal/view"
)

// Mode says which paths a call may take.
type Mode uint8

// The modes.
const (
	Unsaid Mode = iota // as the operators' rules say, else Auto
	Auto               // directly where possible, else through the runtime
	Direct             // only directly
	Proxy              // only through the runtime

	// Modes that only rules ask for.
	proxyElseDirect // through the runtime, and directly where that fails unbegun
	eitherOnly      // directly where there is somebody to call, else through the runtime
)

// Runtime is the way through the runtime.
type Runtime interface {
	message.Link
	// Up reports whether there is a session now. Calls made while there is none wait
	// for it until their deadline.
	Up() bool
	// Available reports whether there ever will be one.
	Available() bool
}

// Options configure an Invoker.
type Options struct {
	View     *view.View
	Pool     *direct.Pool
	Proxy    Runtime
	Locality string
	Clock    clock.Clock
	// Want is told of a service whose instances are needed and not watched yet.
	Want func(service string)
	// Denied, when set, is told of calls that policy has denied, here or elsewhere. It must
	// not wait.
	Denied func(service, method string, denial *errs.Error)
	// RetryShare is the share of further tries in the calls of each service; nil means
	// resilience.BudgetShare, and a negative one that they are not counted.
	RetryShare *float64
}

// Invoker makes calls. It is safe for concurrent use.
type Invoker struct {
	opt     Options
	routes  sync.Map // routeKey to *Route
	budgets sync.Map // service to *resilience.Budget
	rules   atomic.Pointer[transport.Table]
}

// New returns an Invoker.
func New(opt Options) *Invoker {
	if opt.Clock == nil {
		opt.Clock = clock.Real()
	}
	return &Invoker{opt: opt}
}

// Call is one logical call with all its attempts.
type Call struct {
	message.Call
	Mode   Mode
	Policy resilience.Policy
	// FailFast refuses to wait for a session; Wait goes on trying until the deadline
	// while nobody is there to run the call.
	FailFast, Wait bool
	// Conn is the direct connection that the answer came by; nil for one that came
	// through the runtime.
	Conn *direct.Conn

	plan Mode // the mode that it comes to
}

type routeKey struct {
	service, method string
	wish            match.Wish
	ct              message.ContentType
}

// Route is what is known about a method of a service, kept from call to call.
type Route struct {
	key    routeKey
	budget *resilience.Budget
	known  atomic.Pointer[resolved]
	said   atomic.Pointer[said]
}

// resolved is a Route as of one snapshot of the view.
type resolved struct {
	snapshot   *view.Snapshot
	method     string
	kind       catalog.Kind
	candidates []pick.Candidate
	peers      []*direct.Peer
	reachable  []bool       // by the runtime, as far as it has said
	hints      []time.Time  // until when each is said to fail; nil: nobody is
	err        *errs.Error  // why there are no candidates
	compared   atomic.Int64 // when outliers were last looked for
}

// Route returns the route for calls in the given content type by a caller of the given
// contract.
func (v *Invoker) Route(service, method string, ct message.ContentType, wish match.Wish) *Route {
	key := routeKey{service: service, method: method, wish: wish, ct: ct}
	if r, ok := v.routes.Load(key); ok {
		return r.(*Route)
	}
	r, _ := v.routes.LoadOrStore(key, &Route{key: key, budget: v.budget(service)})
	return r.(*Route)
}

// budget returns the budget of further tries of a service.
func (v *Invoker) budget(service string) *resilience.Budget {
	if b, ok := v.budgets.Load(service); ok {
		return b.(*resilience.Budget)
	}
	share := resilience.BudgetShare
	if v.opt.RetryShare != nil {
		share = *v.opt.RetryShare
	}
	var budget *resilience.Budget // nil allows everything
	if share >= 0 {
		budget = resilience.NewBudget(share)
	}
	b, _ := v.budgets.LoadOrStore(service, budget)
	return b.(*resilience.Budget)
}

// resolve returns the route as of now.
func (v *Invoker) resolve(r *Route, target message.Target) *resolved {
	snapshot := v.opt.View.Snapshot()
	plain := target.Realm == "" && target.Version == "" && target.Instance == ""
	if plain {
		if known := r.known.Load(); known != nil && known.snapshot == snapshot {
			return known
		}
	}
	out := &resolved{snapshot: snapshot, method: r.key.method}
	target.Contract, target.PreferContract = r.key.wish.Contract, r.key.wish.Lenient
	found, err := snapshot.Resolve(r.key.service, r.key.method, r.key.ct, target)
	switch {
	case err != nil:
		out.err = errs.From(err)
	case len(found.Instances) == 0:
		out.err = errs.New(errs.NoInstance, "%s cannot be called directly: %s", r.key.service, found.Unfit).Unstarted().
			With("service", r.key.service).With("why", "unfit")
	}
	if found.Method != "" {
		out.method, out.kind = found.Method, found.Kind
	}
	now := v.opt.Clock.Now()
	for at, i := range found.Instances {
		if i.FailingUntil.After(now) {
			if out.hints == nil {
				out.hints = make([]time.Time, len(found.Instances))
			}
			out.hints[at] = i.FailingUntil
		}
		p := v.opt.Pool.Peer(i, view.Address(i))
		out.peers = append(out.peers, p)
		out.reachable = append(out.reachable, i.Reachable)
		out.candidates = append(out.candidates, pick.Candidate{
			Load: &p.Load, Weight: i.Declaration.Weight, Local: v.opt.Locality != "" && i.Declaration.Locality == v.opt.Locality,
		})
	}
	if plain {
		r.known.Store(out)
	}
	return out
}

// discovery is how long a call in Auto waits to be told where a service is before it
// goes through the runtime, which knows anyway.
const discovery = time.Second

// discover waits until the runtime has told where the service of r is.
func (v *Invoker) discover(ctx context.Context, r *Route, c *Call) error {
	if v.opt.View.Covers(r.key.service) {
		return nil
	}
	v.opt.Want(r.key.service)
	until := c.Deadline
	if c.plan != Direct {
		if soon := v.opt.Clock.Now().Add(discovery); until.IsZero() || soon.Before(until) {
			until = soon
		}
	}
	if !until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, until.Sub(v.opt.Clock.Now()))
		defer cancel()
	}
	return v.opt.View.Wait(ctx, func() bool { return v.opt.View.Covers(r.key.service) })
}
