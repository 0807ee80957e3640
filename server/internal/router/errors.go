package router

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/match"
)

// The reasons of no_instance, in its Meta under "why".
const (
	whyUnregistered = "unregistered" // the service had instances and has none now
	whyInstance     = "instance"     // the wanted instance is not registered
	whyRealm        = "realm"
	whyVersion      = "version"
	whyContract     = "contract"
	whyStatus       = "status" // none has a status that receives calls
	whyDraining     = "draining"
	whyUnreachable  = "unreachable" // registered, but without a live session
)

// fail makes an error of the router: proof that nothing was started, with the names.
func fail(code errs.Code, service, method, format string, args ...any) *errs.Error {
	e := errs.New(code, format, args...)
	e.Component, e.Operation, e.NotStarted = "router", operation(service, method), true
	e.Meta = map[string]string{"service": clip(service), "method": clip(method)}
	return e
}

func operation(service, method string) string { return "call " + clip(service) + "/" + clip(method) }

func noInstance(why, service, method, format string, args ...any) *errs.Error {
	e := fail(errs.NoInstance, service, method, format, args...)
	e.Meta["why"] = why
	return e
}

// unknownService tells a service that is away from one that never was.
func (r *Router) unknownService(namespace, name, method string, known bool) *errs.Error {
	if known || r.memory != nil && r.memory.Known(namespace, name) {
		return noInstance(whyUnregistered, name, method,
			"service %q has no instance registered in namespace %q now, though it had before: start one, or wait for it to come back", clip(name), namespace)
	}
	names := r.serviceNames(namespace)
	hint := "no service is registered there"
	if near := nearest(name, names); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, ", ") + "?"
	} else if len(names) > 0 {
		hint = "registered there are " + enumerate(names)
	}
	return fail(errs.ServiceNotFound, name, method, "no service %q in namespace %q: %s", clip(name), namespace, hint)
}

func unknownMethod(service, method string, names []string) *errs.Error {
	hint := "it declares no methods"
	if near := nearest(method, names); len(near) > 0 {
		hint = "did you mean " + strings.Join(near, ", ") + "?"
	} else if len(names) > 0 {
		hint = "it has " + enumerate(names)
	}
	return fail(errs.MethodNotFound, service, method, "service %q has no method %q: %s", service, clip(method), hint)
}

func ambiguousMethod(service, method string, several []string) *errs.Error {
	return fail(errs.InvalidArgument, service, method, "service %q has %d methods that end in %q: call one of them by its full name: %s",
		service, len(several), clip(method), enumerate(several))
}

// explain says why no entry of a route can take a call: the first condition that nobody
// meets.
func (rt *route) explain(r *Router, service serviceKey, q *query) *errs.Error {
	name, method := service.name, rt.name
	left := slices.DeleteFunc(slices.Clone(rt.entries), func(e *entry) bool { return !e.seen(q) })
	if len(left) == 0 {
		return r.unknownService(service.namespace, name, method, false)
	}
	step := func(keep func(*entry) bool) (before []*entry) {
		before = left
		left = slices.DeleteFunc(slices.Clone(left), func(e *entry) bool { return !keep(e) })
		return before
	}
	if step(func(e *entry) bool { return e.method.Kind == q.kind }); len(left) == 0 {
		if q.kind == catalog.Unary {
			return fail(errs.FailedPrecondition, name, method, "method %q of service %q answers with a stream: call it as a stream", method, name)
		}
		return notAStream(name, method)
	}
	before := step(func(e *entry) bool { return q.target.Instance == "" || e.instance.ID == q.target.Instance })
	if len(left) == 0 {
		return noInstance(whyInstance, name, method, "instance %q is none of the %s of service %q with method %q",
			clip(q.target.Instance), instances(len(before)), name, method)
	}
	before = step(func(e *entry) bool { return e.addressed(q) })
	if len(left) == 0 {
		return noInstance(whyRealm, name, method, "none of the %s of service %q with method %q is in realm %q: they are in %s",
			instances(len(before)), name, method, clip(q.target.Realm), distinct(before, func(e *entry) string { return e.realm() }))
	}
	if want := q.target.Version; want != "" {
		before = step(func(e *entry) bool {
			return match.ExactVersion(e.declaration(), want) || match.CompatibleVersion(e.declaration(), want)
		})
		if len(left) == 0 {
			return noInstance(whyVersion, name, method, "none of the %s of service %q with method %q has version %q or is compatible with it: they have %s",
				instances(len(before)), name, method, clip(want), distinct(before, func(e *entry) string { return e.instance.Declaration.Version }))
		}
	}
	meant := match.Version(left, (*entry).declaration, q.target.Version, (*entry).ready)
	speakers := make([]match.Speaker, 0, len(meant))
	for _, e := range meant {
		s := e.speaker()
		s.Unready = e.unready()
		speakers = append(speakers, s)
	}
	if match.Refused(q.wish(), speakers) {
		err := match.Refusal(name, method, q.target.Contract, speakers).In("router", operation(name, method))
		err.Meta["why"] = whyContract
		return err
	}
	return explainState(name, method, left)
}

// unready says why the instance takes no calls now, "" when it does.
func (e *entry) unready() string {
	switch {
	case !e.instance.Declaration.Status.Receives():
		return "status " + string(e.instance.Declaration.Status)
	case e.instance.Draining:
		return "draining"
	case e.endpoint.link.Load() == nil:
		return "without a live session"
	}
	return ""
}

func notAStream(service, method string) *errs.Error {
	return fail(errs.FailedPrecondition, service, method, "method %q of service %q answers once: call it as a unary call, not as a stream", method, service)
}

// explainState says why instances that were meant cannot take calls now.
func explainState(service, method string, meant []*entry) *errs.Error {
	var draining, unreachable int
	statuses := make(map[catalog.Status]int)
	for _, e := range meant {
		switch {
		case !e.instance.Declaration.Status.Receives():
			statuses[e.instance.Declaration.Status]++
		case e.instance.Draining:
			draining++
		case e.endpoint.link.Load() == nil:
			unreachable++
		}
	}
	var parts []string
	why := whyUnreachable
	switch {
	case unreachable > 0:
	case draining > 0:
		why = whyDraining
	case len(statuses) > 0:
		why = whyStatus
	default:
		return fail(errs.Unavailable, service, method, "the instances of service %q changed while one was picked: call again", service)
	}
	for _, s := range slices.Sorted(maps.Keys(statuses)) {
		parts = append(parts, fmt.Sprintf("%d with status %s", statuses[s], s))
	}
	if draining > 0 {
		parts = append(parts, fmt.Sprintf("%d draining", draining))
	}
	if unreachable > 0 {
		parts = append(parts, fmt.Sprintf("%d registered without a live session", unreachable))
	}
	return noInstance(why, service, method, "no instance of service %q can take %q now: %s", service, method, strings.Join(parts, ", "))
}

func instances(n int) string {
	if n == 1 {
		return "1 instance"
	}
	return fmt.Sprintf("%d instances", n)
}

func distinct(entries []*entry, of func(*entry) string) string {
	set := make(map[string]bool)
	for _, e := range entries {
		v := of(e)
		if v == "" {
			v = "(none)"
		}
		set[v] = true
	}
	return enumerate(slices.Sorted(maps.Keys(set)))
}

// enumerate lists names for a message, not more than a reader takes in.
func enumerate(names []string) string {
	const most = 10
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return strings.Join(names[:most], ", ") + fmt.Sprintf(" and %d more", len(names)-most)
}

// clip shortens a name that came from outside.
func clip(s string) string {
	const most = 128
	if len(s) <= most {
		return s
	}
	return strings.ToValidUTF8(s[:most], "") + "..."
}
