// Package invoke owns the way of an outbound call: which instance is picked, by which
// path it goes, and what is done when that fails. It never encodes, never opens
// connections and starts no goroutines: a call runs on the goroutine of its caller.
package invoke

import (
	"context"
	"math/rand/v2"
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
	"telford.dev/telford/internal/view"
)

// Mode says which paths a call may take.
type Mode uint8

// The modes.
const (
	Auto   Mode = iota // directly where possible, else through the runtime
	Direct             // only directly
	Proxy              // only through the runtime
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
}

// Invoker makes calls. It is safe for concurrent use.
type Invoker struct {
	opt    Options
	routes sync.Map // routeKey to *Route
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
}

type routeKey struct {
	service, method string
	wish            match.Wish
	ct              message.ContentType
}

// Route is what is known about a method of a service, kept from call to call.
type Route struct {
	key   routeKey
	known atomic.Pointer[resolved]
}

// resolved is a Route as of one snapshot of the view.
type resolved struct {
	snapshot   *view.Snapshot
	method     string
	kind       catalog.Kind
	candidates []pick.Candidate
	peers      []*direct.Peer
	reachable  []bool      // by the runtime, as far as it has said
	err        *errs.Error // why there are no candidates
}

// Route returns the route for calls in the given content type by a caller of the given
// contract.
func (v *Invoker) Route(service, method string, ct message.ContentType, wish match.Wish) *Route {
	key := routeKey{service: service, method: method, wish: wish, ct: ct}
	if r, ok := v.routes.Load(key); ok {
		return r.(*Route)
	}
	r, _ := v.routes.LoadOrStore(key, &Route{key: key})
	return r.(*Route)
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
		out.err = errs.New(errs.NoInstance, "%s cannot be called directly: %s", r.key.service, found.Unfit).Unstarted().With("service", r.key.service)
	}
	if found.Method != "" {
		out.method, out.kind = found.Method, found.Kind
	}
	for _, i := range found.Instances {
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
	if c.Mode == Auto {
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

// maxTried bounds how many instances one attempt is offered to.
const maxTried = 8

// way is what one attempt has learnt about the instances.
type way struct {
	tried, avoid   [maxTried]*pick.Load
	nTried, nAvoid int
	refusal        error // the last one
}

// pickPeer picks an instance and its connection. It prefers those that are connected:
// the others are dialed on the side.
func (v *Invoker) pickPeer(ctx context.Context, deadline time.Time, known *resolved, w *way) (*direct.Peer, *direct.Conn, error) {
	for w.nTried < maxTried {
		avoid := w.avoid[:w.nAvoid]
		var trouble []*pick.Load
		if v.opt.Pool.Trouble() {
			trouble = append(trouble, avoid...)
			for i, p := range known.peers {
				if !p.Bad() {
					continue
				}
				trouble = append(trouble, &p.Load)
				if known.reachable[i] {
					p.Probe() //nolint:contextcheck // the dial belongs to the pool
				}
			}
			avoid = trouble
		}
		at := pick.Pick(known.candidates, pick.Exclusions{Avoid: avoid, Tried: w.tried[:w.nTried]}, v.opt.Pool.Now(), rand.Uint64()) //nolint:gosec // spreads load, guards nothing
		if at < 0 {
			break
		}
		p := known.peers[at]
		if conn := p.Ready(); conn != nil {
			return p, conn, nil
		}
		if w.nAvoid < maxTried && w.nAvoid < len(known.peers) && !contains(w.avoid[:w.nAvoid], &p.Load) {
			p.Connect() //nolint:contextcheck // the dial belongs to the pool
			w.avoid[w.nAvoid] = &p.Load
			w.nAvoid++
			if anyReady(known.peers, w) {
				continue
			}
		}
		// Nobody is connected: wait for this one.
		conn, err := waitConn(ctx, deadline, p)
		if err == nil {
			return p, conn, nil
		}
		if code := errs.CodeOf(err); code == errs.DeadlineExceeded || code == errs.Canceled {
			return nil, nil, err
		}
		w.try(p, err)
	}
	if w.refusal == nil {
		return nil, nil, errs.New(errs.NoInstance, "no instance is left to be asked").Unstarted()
	}
	return nil, nil, w.refusal
}

// waitConn waits for a connection until the deadline of the call.
func waitConn(ctx context.Context, deadline time.Time, p *direct.Peer) (*direct.Conn, error) {
	if !deadline.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline)
		defer cancel()
	}
	return p.Conn(ctx)
}

// try notes that an instance has refused the call.
func (w *way) try(p *direct.Peer, refusal error) {
	w.refusal = refusal
	if w.nTried < maxTried {
		w.tried[w.nTried] = &p.Load
		w.nTried++
	}
}

func contains(list []*pick.Load, l *pick.Load) bool {
	for _, x := range list {
		if x == l {
			return true
		}
	}
	return false
}

func anyReady(peers []*direct.Peer, w *way) bool {
	for _, p := range peers {
		if p.Ready() != nil && !contains(w.tried[:w.nTried], &p.Load) {
			return true
		}
	}
	return false
}
