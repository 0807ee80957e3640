package router

import (
	"context"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/chain"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/pick"
	"telford.dev/telford/internal/resilience"
)

// Call runs a unary call. The error, always an *errs.Error, is that of the way, with
// the proof NotStarted where no handler can have run; the failure of the handler is in
// the Reply. A refusal before the start is picked again among the instances not yet
// tried, each at most once; when all have refused, the last refusal is the error.
func (r *Router) Call(ctx context.Context, req *Request) (*message.Reply, error) {
	start := r.clock.Now()
	key, err := r.admit(req)
	if err != nil {
		r.nowhere.ended.count(err)
		return nil, err
	}
	ctx, deadline, cancel := withDeadline(ctx, req.Call.Deadline, DefaultDeadline)
	if cancel != nil {
		defer cancel()
	}
	if methods := (*r.locals.Load())[key.name]; methods != nil {
		return r.local(ctx, methods, key, deadline, *req)
	}
	s, v := r.current(key)
	m := r.meter(s)
	m.inFlight.Add(1)
	defer m.inFlight.Add(-1)
	p := picking{router: r, key: key, now: start, req: req, query: r.query(req, key.namespace, catalog.Unary)}
	if err := p.permit(v); err != nil {
		m.ended.count(err)
		return nil, err
	}
	quota, err := r.enterNamespace(ctx, key.namespace, req)
	if err != nil {
		m.ended.count(err)
		return nil, err
	}
	if quota != nil {
		defer quota.Leave()
	}
	if r.keys != nil && req.Call.IdempotencyKey != "" {
		reply, err := r.keyed(ctx, deadline, req, key, v)
		if err != nil {
			m.ended.count(err)
			return nil, err
		}
		m.ended.count(reply.Err)
		return reply, nil
	}
	if s != nil {
		s.budget.Deposit()
	}
	reply, err := p.run(ctx, deadline, s, v, m)
	if err != nil {
		m.ended.count(err)
		return nil, err
	}
	m.ended.count(reply.Err)
	m.observe(p.ended.Sub(start))
	return reply, nil
}

// run gives the call to instances until one takes it.
func (p *picking) run(ctx context.Context, deadline time.Time, s *service, v *view, m *meter) (*message.Reply, *errs.Error) {
	for {
		e, err := p.pick(s, v)
		if err != nil {
			if e, err = p.pickOrWait(ctx); err != nil {
				return nil, err
			}
		}
		reply, err := p.serve(ctx, deadline, e, m)
		if err == nil {
			return reply, nil
		}
		if p.unclaimed || !resilience.Repick(err) {
			return nil, err
		}
		if p.refused(ctx, e, err); len(p.tried) >= resilience.MaxRepicks {
			return nil, p.usedUp()
		}
		s, v = p.router.current(p.key)
	}
}

// claimed gives the call to one instance, once its key is claimed for that.
func (p *picking) claimed(ctx context.Context, deadline time.Time, e *entry, m *meter) (*message.Reply, *errs.Error) {
	if p.claim != nil {
		if err := p.claim(e); err != nil {
			p.pass(e)
			p.unclaimed = true
			return nil, err
		}
	}
	return p.deliver(ctx, deadline, e, m)
}

// pass notes that the instance that was picked is not called after all.
func (p *picking) pass(e *entry) { p.judge(e, resilience.Neither, p.now) }

// admit checks what does not depend on an instance, and says which service is meant.
func (r *Router) admit(req *Request) (serviceKey, *errs.Error) {
	call := req.Call
	key := serviceKey{orDefault(req.Namespace), call.Service}
	if call.Method == "" {
		return key, fail(errs.InvalidArgument, call.Service, "", "the call names no method")
	}
	err := message.CheckPayload(len(call.Body))
	if err == nil && len(call.Headers) != 0 {
		err = message.CheckHeaders(call.Headers)
	}
	if err == nil && len(call.Chain) != 0 {
		err = errs.From(chain.Check(call))
	}
	if err == nil && (call.IdempotencyKey != "" || call.BusinessKey != "") {
		err = message.CheckKeys(call)
	}
	if err == nil && key.name == "" {
		key.name, err = r.serviceOf(key.namespace, call.Method)
	}
	if err != nil {
		return key, err.In("router", operation(call.Service, call.Method))
	}
	return key, nil
}

// serviceOf finds the only service that registers the gRPC service of a method.
func (r *Router) serviceOf(namespace, method string) (string, *errs.Error) {
	i := strings.LastIndexByte(method, '/')
	if i <= 0 {
		return "", fail(errs.InvalidArgument, "", method, "the call of method %q names no service: say which one", clip(method))
	}
	switch names := r.index.ServicesWithMethod(namespace, method[:i]); len(names) {
	case 0:
		return "", fail(errs.ServiceNotFound, "", method, "no service in namespace %q registers %q: name the service that is meant, or start one that registers it",
			namespace, clip(method[:i]))
	case 1:
		return names[0], nil
	default:
		return "", fail(errs.InvalidArgument, "", method, "%d services in namespace %q register %q: say which one is meant: %s",
			len(names), namespace, clip(method[:i]), enumerate(names))
	}
}

// meter returns the counters of a service, those of nowhere when there is none.
func (r *Router) meter(s *service) *meter {
	if s == nil {
		return &r.nowhere
	}
	return &s.meter
}

func (r *Router) query(req *Request, namespace string, kind catalog.Kind) query {
	q := query{target: &req.Call.Target, kind: kind, zone: req.Zone, locality: req.Locality, avoid: req.Avoid}
	if q.zone == "" {
		q.zone = r.zone
	}
	if q.locality == "" {
		q.locality = r.localityOf(namespace, &req.Caller)
	}
	return q
}

// withDeadline returns a context that ends at the earlier of its own deadline and the
// given one, or after fallback where there is neither, and when that is. Mostly the
// context is one already; cancel is nil then.
func withDeadline(ctx context.Context, deadline time.Time, fallback time.Duration) (_ context.Context, end time.Time, cancel context.CancelFunc) {
	own, ok := ctx.Deadline()
	switch {
	case !deadline.IsZero() && (!ok || deadline.Before(own)):
		ctx, cancel = context.WithDeadline(ctx, deadline)
		return ctx, deadline, cancel
	case ok:
		return ctx, own, nil
	case fallback > 0:
		ctx, cancel = context.WithTimeout(ctx, fallback)
		end, _ = ctx.Deadline()
		return ctx, end, cancel
	default:
		return ctx, time.Time{}, nil
	}
}

// picking is the choice of an instance for one call: what it needs and what it has
// learnt so far.
type picking struct {
	router *Router
	key    serviceKey
	now    time.Time
	req    *Request
	query  query
	tried  []*pick.Load
	last   *errs.Error // the last refusal
	// charged: the next instance is paid for from the budget of the service.
	charged bool
	// exhausted: it does not pay for any more.
	exhausted bool
	ticket    resilience.Ticket // of the instance that was picked last
	ended     time.Time         // when it had answered
	// claim, for a call with an idempotency key, is asked before an instance is given the
	// call.
	claim     func(*entry) *errs.Error
	unclaimed bool // claim has failed
}

// pick chooses among the instances of a view that have not refused yet.
func (p *picking) pick(s *service, v *view) (*entry, *errs.Error) {
	err := p.last
	method := p.req.Call.Method
	switch {
	case p.exhausted:
		return nil, resilience.Exhausted(p.usedUp())
	case v == nil || len(v.nodes) == 0:
		if err == nil {
			err = p.router.unknownService(p.key.namespace, p.key.name, method, s != nil)
		}
		return nil, err
	default:
		rt, several := v.route(method)
		if rt != nil {
			o := rt.match(&p.query)
			e, cut := p.take(rt, &o)
			if e != nil {
				return p.paid(s, e)
			}
			if err == nil && cut != nil {
				return nil, cut
			}
		}
		switch {
		case err != nil:
			return nil, p.usedUp()
		case rt != nil:
			return nil, rt.explain(p.router, p.key, &p.query)
		case several != nil:
			return nil, ambiguousMethod(p.key.name, method, several)
		default:
			return nil, unknownMethod(p.key.name, method, v.methods())
		}
	}
}

// paid lets a pick stand that is the first, or that the budget of the service allows.
func (p *picking) paid(s *service, e *entry) (*entry, *errs.Error) {
	if p.last == nil {
		return e, nil
	}
	if p.charged && !s.budget.Spend(p.router.sinceEpoch(p.now)) {
		p.judge(e, resilience.Neither, p.now)
		p.exhausted = true
		return nil, resilience.Exhausted(p.usedUp())
	}
	s.meter.repicks.Add(1)
	return e, nil
}

// usedUp is the failure of a call that nobody is left for who has not refused it.
func (p *picking) usedUp() *errs.Error { return p.last.With("tried", strconv.Itoa(len(p.tried))) }

// refused notes that an instance did not start the call.
func (p *picking) refused(ctx context.Context, e *entry, err *errs.Error) {
	p.tried = append(p.tried, &e.endpoint.load)
	p.last = err
	p.charged = p.charged || resilience.RepickCharged(err)
	p.now = p.ended
	if log := p.router.log; log.Enabled(ctx, slog.LevelDebug) {
		log.DebugContext(ctx, "an instance refused a call before starting it", "service", p.key.name, "method", e.method.Name,
			"instance", e.instance.ID, "error", err)
	}
}

// deliver gives a call to one instance and brings its answer into the caller's terms.
func (p *picking) deliver(ctx context.Context, deadline time.Time, e *entry, m *meter) (*message.Reply, *errs.Error) {
	r, req := p.router, p.req
	call := req.Call
	p.ended = p.now
	link := e.endpoint.reachable()
	if link == nil {
		p.judge(e, resilience.Neither, p.now)
		return nil, unreachable(e)
	}
	kind, body, err := e.codec.Request(call.ContentType, call.Body)
	if err != nil {
		p.judge(e, resilience.Neither, p.now)
		return nil, errs.From(err).In("router", operation(call.Service, call.Method)).Unstarted()
	}
	if kind != call.ContentType {
		m.transcoded.Add(1)
	}
	out := new(message.Call)
	r.outgoing(out, e, req, deadline)
	out.ContentType, out.Body = kind, body
	m.bytesIn.Add(uint64(len(call.Body)))

	e.endpoint.load.Begin()
	defer e.endpoint.load.End()
	reply, err := link.Call(ctx, out)
	p.ended = r.clock.Now()
	p.judge(e, verdict(reply, err), p.ended)
	if err != nil {
		return nil, unknown(e, errs.From(err).In("router", operation(call.Service, call.Method)))
	}
	if reply == nil {
		return nil, unknown(e, errs.New(errs.Internal, "the link of instance %s gave no answer", e.instance.ID).In("router", operation(call.Service, call.Method)))
	}
	if reply.Err != nil {
		if reply.Err.NotStarted {
			return nil, reply.Err.In("router", operation(call.Service, call.Method))
		}
		return reply, nil
	}
	return r.answer(e, call, kind, reply, m)
}

// answer turns a reply into the content type of the call.
func (r *Router) answer(e *entry, call *message.Call, sent message.ContentType, reply *message.Reply, m *meter) (*message.Reply, *errs.Error) {
	got := reply.ContentType
	if got == message.None {
		got = sent
	}
	if got != call.ContentType && call.ContentType != message.None {
		body, err := e.codec.Reply(got, call.ContentType, reply.Body)
		if err != nil {
			return nil, errs.From(err).In("router", operation(call.Service, call.Method))
		}
		m.transcoded.Add(1)
		turned := *reply
		turned.Body, got = body, call.ContentType
		reply = &turned
	}
	m.bytesOut.Add(uint64(len(reply.Body)))
	reply.ContentType = got
	return reply, nil
}

func unreachable(e *entry) *errs.Error {
	return errs.New(errs.Unavailable, "instance %s lost its session while it was picked", e.instance.ID).
		In("router", "call "+e.method.Name).Unstarted()
}

// outgoing makes the call that an instance is given: the caller from the credential, the
// full name of the method, and what every call has.
func (r *Router) outgoing(out *message.Call, e *entry, req *Request, deadline time.Time) {
	*out = *req.Call
	out.Seq = 0
	out.Service, out.Method = e.instance.Declaration.Service, e.method.Name
	out.Stream = e.method.Kind == catalog.ServerStream
	out.Deadline = deadline
	out.Caller = req.Caller
	out.Target, out.Avoid = message.Target{}, nil
	if out.RequestID == "" {
		out.RequestID = r.requestID()
	}
	if out.ChainRoot == "" {
		out.ChainRoot = out.RequestID
	}
}

// requestID returns a random UUID, version 4.
func (r *Router) requestID() string {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:8], r.rand())
	binary.BigEndian.PutUint64(b[8:], r.rand())
	b[6] = b[6]&0x0f | 0x40
	b[8] = b[8]&0x3f | 0x80
	var s [36]byte
	hex.Encode(s[0:8], b[0:4])
	hex.Encode(s[9:13], b[4:6])
	hex.Encode(s[14:18], b[6:8])
	hex.Encode(s[19:23], b[8:10])
	hex.Encode(s[24:36], b[10:16])
	s[8], s[13], s[18], s[23] = '-', '-', '-', '-'
	return string(s[:])
}

// DefaultNamespace is the one that is meant where none is named.
const DefaultNamespace = "default"

func orDefault(namespace string) string {
	if namespace == "" {
		return DefaultNamespace
	}
	return namespace
}
