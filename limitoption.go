package telford

import (
	"context"
	"reflect"
	"strings"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/handlers"
	"telford.dev/telford/internal/limit"
)

// LimitOption says how much of a method may run. Given to Handle, all of them together
// are one limit; Limit makes another. Operators see what a method declares, and may
// replace it while it runs ("telford limits set").
//
// A call that a limit does not let in is answered resource_exhausted, with the proof that
// it did not begin and the time after which to come back: errors.Is(err, ErrLimit).
type LimitOption interface {
	HandleOption
	applyLimit(o *limitSettings)
}

// limitSettings is one limit of a method.
type limitSettings struct {
	catalog.Limit
	given bool
	key   *LimitKey
	bad   problems
}

type limitOption func(o *limitSettings)

func (f limitOption) applyLimit(o *limitSettings) {
	o.given = true
	f(o)
}

func (f limitOption) applyHandle(o *handleSettings) { f.applyLimit(&o.limit) }

// Concurrency is how many calls run at once, 1 to 1,000,000. Those beyond wait if there is
// a Queue, else they are refused. Streams count until they end.
func Concurrency(n int) LimitOption {
	return limitOption(func(o *limitSettings) {
		if n < 1 || n > catalog.MaxConcurrency {
			o.bad.addf("Concurrency: %d is not between 1 and %d", n, catalog.MaxConcurrency)
			return
		}
		o.Concurrency = n
	})
}

// Queue is how many calls wait, in the order in which they came, when as many run as
// Concurrency says, 1 to 1,000,000. One that waits until shortly before its deadline is
// told its place in line.
func Queue(n int) LimitOption {
	return limitOption(func(o *limitSettings) {
		if n < 1 || n > catalog.MaxQueue {
			o.bad.addf("Queue: %d is not between 1 and %d", n, catalog.MaxQueue)
			return
		}
		o.Queue = n
	})
}

// Rate is how many calls come in a second on average, 0.0001 to 1,000,000, and how many of
// them at once after a pause; burst 0 means those of one second. A call that is refused,
// or gives up in line, is not counted.
func Rate(perSecond float64, burst int) LimitOption {
	return limitOption(func(o *limitSettings) {
		ok := true
		if !(perSecond >= catalog.MinRate && perSecond <= catalog.MaxRate) {
			o.bad.addf("Rate: %v is not between %v and %d in a second", perSecond, catalog.MinRate, catalog.MaxRate)
			ok = false
		}
		if burst < 0 || burst > catalog.MaxBurst {
			o.bad.addf("Rate: burst %d is not between 0 and %d", burst, catalog.MaxBurst)
			ok = false
		}
		if ok {
			o.Rate, o.Burst = perSecond, burst
		}
	})
}

// LimitPerService makes a limit one of all instances of the service together instead of
// one of each: the runtime divides it among those that live.
func LimitPerService() LimitOption {
	return limitOption(func(o *limitSettings) { o.Scope = catalog.LimitService })
}

// LimitBy counts calls apart by a key: ByCaller, ByHeader, ByField or ByFunc. Each key has
// the whole of the limit, its line included, for itself. An instance counts 10,000 keys
// apart; those beyond, while none of the others is idle, share one count. Calls without
// the key share one as well.
func LimitBy(key LimitKey) LimitOption {
	return limitOption(func(o *limitSettings) {
		if key.text == "" {
			o.bad.addf("LimitBy: want ByCaller, ByHeader, ByField or ByFunc")
			return
		}
		o.Key, o.key = key.text, &key
	})
}

// LimitKey is what a limit counts apart.
type LimitKey struct {
	text    string
	request reflect.Type // of ByFunc
	value   func(c *handlers.Context, req any) string
}

// ByCaller counts each calling service apart, as its credential names it.
func ByCaller() LimitKey { return LimitKey{text: catalog.KeyCaller} }

// ByHeader counts apart by the first value of a request header. Callers set headers as
// they like: it keeps friends apart, not enemies.
func ByHeader(name string) LimitKey {
	return LimitKey{text: catalog.KeyHeader + strings.ToLower(name)}
}

// ByField counts apart by a field at the top of the request with one plain value, by its
// name in JSON or protobuf. It is found without decoding the request.
func ByField(name string) LimitKey { return LimitKey{text: catalog.KeyField + name} }

// ByFunc counts apart by what fn says of the request, which is decoded for it once more.
// It is called for each call before it may wait, and must be quick; it is not called for
// what plain gRPC streams to the method from the client. A method has one such function.
func ByFunc[Req any](fn func(ctx context.Context, in *Req) string) LimitKey {
	k := LimitKey{text: catalog.KeyFunc, request: reflect.TypeFor[Req]()}
	if fn == nil {
		return k
	}
	k.value = func(c *handlers.Context, req any) string {
		in, ok := req.(*Req)
		if !ok {
			in = new(Req)
			if c.Decode(in) != nil {
				return "" // the handler refuses it
			}
		}
		return fn(c, in)
	}
	return k
}

// Limit adds a limit of its own to a method, beside that of the options outside of it: a
// call has to pass all of them, 8 at most.
func Limit(opts ...LimitOption) HandleOption {
	return handleOption(func(o *handleSettings) {
		l := limitSettings{given: true}
		for _, opt := range opts {
			if opt == nil {
				l.bad.addf("Limit: an option is nil")
				continue
			}
			opt.applyLimit(&l)
		}
		o.more = append(o.more, l)
	})
}

// applyLimits puts the limits into the method, noting all that is wrong with them.
func (o *handleSettings) applyLimits(m *handlers.Method, request reflect.Type) {
	all := o.more
	if o.limit.given {
		all = append([]limitSettings{o.limit}, all...)
	}
	if len(all) == 0 {
		return
	}
	if len(all) > catalog.MaxLimits {
		o.bad.addf("%d limits are over the most of %d for one method", len(all), catalog.MaxLimits)
	}
	m.Limits, m.Key = nil, nil
	for i := range all {
		l := &all[i]
		o.bad.list = append(o.bad.list, l.bad.list...)
		if len(l.bad.list) == 0 {
			for _, p := range l.Problems() {
				o.bad.addf("limit: %s", p)
			}
			o.checkKey(m, l, request)
		}
		m.Limits = append(m.Limits, l.Limit)
	}
}

// checkKey looks whether the request has what the key of a limit is taken from.
func (o *handleSettings) checkKey(m *handlers.Method, l *limitSettings, request reflect.Type) {
	if name, ok := strings.CutPrefix(l.Key, catalog.KeyField); ok && !hasField(m, request, name) {
		o.bad.addf("ByField: the request of %s has no field %q with one plain value at its top", m.Name, name)
	}
	if l.key == nil || l.Key != catalog.KeyFunc {
		return
	}
	switch {
	case l.key.value == nil:
		o.bad.addf("ByFunc: the function is nil")
	case request != nil && request != l.key.request:
		o.bad.addf("ByFunc: the function takes a *%v, the request of %s is a *%v", l.key.request, m.Name, request)
	case m.Key != nil:
		o.bad.addf("ByFunc: %s has a function already, and a method has one", m.Name)
	default:
		m.Key = l.key.value
	}
}

// hasField reports whether requests have a plain field of that name, as far as that can be
// told.
func hasField(m *handlers.Method, request reflect.Type, name string) bool {
	if m.Input != nil {
		return limit.FieldOf(m.Input.Descriptor(), name) != nil
	}
	if request == nil || request.Kind() != reflect.Struct {
		return true // such as a map
	}
	for _, f := range reflect.VisibleFields(request) {
		tag, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if tag == "-" || !f.IsExported() || f.Anonymous && tag == "" {
			continue
		}
		if tag == "" {
			tag = f.Name
		}
		if !strings.EqualFold(tag, name) {
			continue
		}
		switch f.Type.Kind() {
		case reflect.Map, reflect.Slice, reflect.Array, reflect.Func, reflect.Chan:
			return false
		default:
			return true // a struct may write itself as a string
		}
	}
	return reflect.PointerTo(request).Implements(reflect.TypeFor[interface{ UnmarshalJSON([]byte) error }]())
}
