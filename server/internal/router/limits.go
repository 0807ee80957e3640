package router

import (
	"context"
	"maps"
	"slices"
	"time"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/limit"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/internal/policy"
)

// ownLimits is the door whose instances keep to their limits themselves. Those of others
// only answer calls: what bounds them is kept here.
const ownLimits = "link"

// limits are what operators have laid down for one namespace.
type limits struct {
	services map[string][]limit.Rule
	quota    *limit.Set
}

// kept is what the router keeps an instance to that does not do so itself.
type kept struct {
	calls, streams *limit.Set // of the instance; each kind is counted for itself
	both           *limit.Set // of the instance, without regard to the kind
	methods        map[string]*limit.Set
}

// SetLimits replaces what operators have laid down for a namespace: its quotas, and the
// limits of its services. Calls that run go on, and those that wait keep their places.
func (r *Router) SetLimits(namespace string, rules []limit.Rule) {
	namespace = orDefault(namespace)
	next := &limits{services: make(map[string][]limit.Rule)}
	var quotas []catalog.Limit
	for _, rule := range rules {
		switch {
		case !rule.Quota():
			next.services[rule.Service] = append(next.services[rule.Service], rule)
		case rule.Limit.Concurrency > 0 || rule.Limit.Rate > 0:
			quotas = append(quotas, rule.Limit)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	all := maps.Clone(*r.limits.Load())
	if old := all[namespace]; old != nil {
		next.quota = old.quota
	} else {
		next.quota = r.newSet()
	}
	next.quota.Replace(quotas)
	all[namespace] = next
	r.limits.Store(&all)
	for key, s := range *r.services.Load() {
		if v := s.view.Load(); v != nil && key.namespace == namespace {
			r.bound(key, v)
		}
	}
}

func (r *Router) newSet() *limit.Set { return limit.NewSet(limit.Options{Clock: r.clock}) }

// enterNamespace lets a call into its namespace, if its quotas do, and returns what it
// holds of them, nil where none binds. The operator passes.
func (r *Router) enterNamespace(ctx context.Context, namespace string, req *Request) (*limit.Held, *errs.Error) {
	all := *r.limits.Load()
	if len(all) == 0 {
		return nil, nil
	}
	l := all[namespace]
	if l == nil || !l.quota.Binds() || req.Caller.Service == policy.Operator || req.Caller.Namespace == runtimeNamespace {
		return nil, nil
	}
	f, held := limit.Facts{Caller: req.Caller.Service, Headers: req.Call.Headers}, new(limit.Held)
	if refused := l.quota.Enter(ctx, &f, held); refused != nil {
		return nil, refused.Err("quota of namespace "+namespace).In("router", operation(req.Call.Service, req.Call.Method)).With("namespace", namespace)
	}
	return held, nil
}

// runtimeNamespace is that of the runtime's own identity.
const runtimeNamespace = "telford"

// bound puts the limits of the instances of a view in force; mu is held.
func (r *Router) bound(key serviceKey, v *view) {
	var ruled []limit.Rule
	if l := (*r.limits.Load())[key.namespace]; l != nil {
		ruled = l.services[key.name]
	}
	n := v.receiving()
	for _, node := range v.nodes {
		if node.bounds == nil {
			continue
		}
		calls, both := instanceLimits(ruled, n)
		node.bounds.calls.Replace(calls)
		node.bounds.streams.Replace(calls)
		node.bounds.both.Replace(both)
		for _, e := range node.entries {
			own, found := methodLimits(ruled, e.method.Name, n)
			if !found {
				own = e.method.Limits
				if newest := v.routes[e.method.Name].newest.method.Limits; anyScoped(newest) {
					own = newest // one limit for all, be they of several versions
				}
				own = divided(own, n)
			}
			e.limits.Replace(own)
		}
	}
}

// instanceLimits returns the bounds of a whole instance: what runs at once, counted for
// calls and for streams apart, and all else.
func instanceLimits(ruled []limit.Rule, n int) (each, both []catalog.Limit) {
	list, _ := methodLimits(ruled, "", n)
	for _, l := range list {
		if l.Key == "" && l.Concurrency > 0 {
			only := l
			only.Rate, only.Burst = 0, 0
			each = append(each, only)
			l.Concurrency, l.Queue = 0, 0
		}
		if l.Concurrency > 0 || l.Rate > 0 {
			both = append(both, l)
		}
	}
	return each, both
}

// methodLimits returns what operators have laid down for a method, as one of n instances
// has it.
func methodLimits(ruled []limit.Rule, method string, n int) (list []catalog.Limit, found bool) {
	for i := range ruled {
		if ruled[i].Method == method {
			list, found = append(list, limit.Share(ruled[i].Limit, n)), true
		}
	}
	return list, found
}

func divided(list []catalog.Limit, n int) []catalog.Limit {
	if !anyScoped(list) {
		return list
	}
	out := slices.Clone(list)
	for i := range out {
		out[i] = limit.Share(out[i], n)
	}
	return out
}

func anyScoped(list []catalog.Limit) bool {
	return slices.ContainsFunc(list, func(l catalog.Limit) bool { return l.Scope == catalog.LimitService })
}

// receiving is the number of instances that take calls.
func (v *view) receiving() int {
	n := 0
	for _, node := range v.nodes {
		if node.takes {
			n++
		}
	}
	return n
}

// Shares returns what each instance of a service has to keep to: the rules given, and what
// the service declares for all of its instances together, divided among those that take
// calls now. Of several versions the newest says what is declared. divided: it changes
// with their number.
func (r *Router) Shares(namespace, service string, ruled []limit.Rule) (share []limit.Rule, divided bool) {
	_, v := r.current(serviceKey{orDefault(namespace), service})
	n := 0
	if v != nil {
		n = v.receiving()
	}
	taken := make(map[string]bool, len(ruled))
	for _, rule := range ruled {
		divided = divided || rule.Limit.Scope == catalog.LimitService
		rule.Limit = limit.Share(rule.Limit, n)
		taken[rule.Method] = true
		share = append(share, rule)
	}
	if v == nil {
		return share, divided
	}
	for _, name := range v.methods() {
		declared := v.routes[name].newest.method.Limits
		if taken[name] || !anyScoped(declared) {
			continue
		}
		divided = true
		for _, l := range declared {
			share = append(share, limit.Rule{Service: service, Method: name, Limit: limit.Share(l, n)})
		}
	}
	return share, divided
}

// newBounds returns what an instance is kept to, nil when it does so itself; mu is held.
func (r *Router) newBounds(e *endpoint, in *catalog.Instance) *kept {
	if in.Door == ownLimits || in.Door == "" {
		return nil
	}
	if e.bounds == nil {
		e.bounds = &kept{calls: r.newSet(), streams: r.newSet(), both: r.newSet(), methods: make(map[string]*limit.Set)}
	}
	return e.bounds
}

// method returns the limits of a method; mu of the router is held.
func (b *kept) method(name string, r *Router) *limit.Set {
	if b == nil {
		return nil
	}
	s := b.methods[name]
	if s == nil {
		s = r.newSet()
		b.methods[name] = s
	}
	return s
}

// enter lets the call in to an instance that is kept to its limits here. What is refused
// holds nothing.
func (p *picking) enter(ctx context.Context, e *entry, held *limit.Held) *errs.Error {
	b := e.bounds
	if b == nil {
		return nil
	}
	kind := b.calls
	if e.method.Kind == catalog.ServerStream {
		kind = b.streams
	}
	for i, set := range [...]*limit.Set{e.limits, b.both, kind} {
		if !set.Binds() {
			continue
		}
		call := p.req.Call
		f := limit.Facts{Caller: p.req.Caller.Service, Headers: call.Headers, ContentType: call.ContentType, Body: call.Body}
		if set.ReadsRequest() {
			f.Input = e.codec.Input()
		}
		if refused := set.Enter(ctx, &f, held); refused != nil {
			what := "method " + e.method.Name
			if i > 0 {
				what = "instance of " + p.key.name
			}
			return refused.Err(what).In("router", operation(p.key.name, e.method.Name)).With("service", p.key.name).With("method", e.method.Name)
		}
	}
	return nil
}

// term is the time of a call on an instance whose method has a timeout that is kept here.
type term struct {
	ctx    context.Context
	end    time.Time
	own    bool               // the timeout of the method ends it, not the caller's deadline
	cancel context.CancelFunc // nil: there is no such timeout
}

func (e *entry) term(ctx context.Context, now, deadline time.Time) term {
	t := term{ctx: ctx, end: deadline}
	d := e.method.Timeout
	if e.bounds == nil || d <= 0 {
		return t
	}
	if end := now.Add(d); deadline.IsZero() || end.Before(deadline) {
		t.end, t.own = end, true
	}
	t.ctx, t.cancel = context.WithTimeout(ctx, d)
	return t
}

func (t *term) stop() {
	if t.cancel != nil {
		t.cancel()
		t.cancel = nil
	}
}

// slack is how much earlier than here the time of a call may end at the other end.
const slack = 5 * time.Millisecond

// overtime says whose limit it was, where a call ended by the timeout of its method.
func (t *term) overtime(e *entry, now time.Time, err *errs.Error) *errs.Error {
	if err == nil || !t.own || err.NotStarted || err.Code != errs.DeadlineExceeded && err.Code != errs.Canceled || now.Before(t.end.Add(-slack)) {
		return err
	}
	return errs.New(errs.DeadlineExceeded, "the handler of %s ran into the limit of %v that its method sets itself, not into a deadline of the caller", e.method.Name, e.method.Timeout).
		In("router", operation(e.instance.Declaration.Service, e.method.Name)).With("reason", "timeout").
		With("timeout", e.method.Timeout.String()).With("method", e.method.Name)
}

// serve gives the call to one instance, kept to the limits of that.
func (p *picking) serve(ctx context.Context, deadline time.Time, e *entry, m *meter) (*message.Reply, *errs.Error) {
	if e.bounds == nil {
		return p.claimed(ctx, deadline, e, m)
	}
	var held limit.Held
	if err := p.enter(ctx, e, &held); err != nil {
		p.pass(e)
		return nil, err
	}
	defer held.Leave()
	t := e.term(ctx, p.router.clock.Now(), deadline)
	defer t.stop()
	reply, err := p.claimed(t.ctx, t.end, e, m) //nolint:contextcheck // it derives from ctx
	now := p.router.clock.Now()
	if err != nil {
		return nil, t.overtime(e, now, err)
	}
	if failed := t.overtime(e, now, reply.Err); failed != reply.Err {
		late := *reply
		late.Err = failed
		reply = &late
	}
	return reply, nil
}
