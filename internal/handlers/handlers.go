// Package handlers owns what an instance can be asked to do: the table of its methods,
// the checks before one runs, and the context that a handler sees, which is at once a
// Telford call and a gRPC one. It never touches a connection. Handlers run on the
// goroutines of whoever calls the table; it starts none.
package handlers

import (
	"cmp"
	"context"
	"log/slog"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"sync/atomic"

	"go.opentelemetry.io/otel/trace"
	"google.golang.org/protobuf/reflect/protoreflect"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/clock"
	"telford.dev/telford/internal/codec"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/limit"
	"telford.dev/telford/internal/message"
)

// Method is one entry of the table. Exactly one of Unary and Stream is set, none in one
// that only plain gRPC can carry.
type Method struct {
	catalog.Method
	// Full is the name in the form of gRPC, with a leading slash.
	Full   string
	Unary  func(c *Context) (any, error)
	Stream func(c *Context) error
	// Input is the type of the request where that is a protobuf message.
	Input protoreflect.MessageType
	// Key gives the key of limits that are counted by a function; req is the request
	// where it has been decoded already, else nil.
	Key func(c *Context, req any) string

	limits *limit.Set
}

// Options configure a Table.
type Options struct {
	// Service is the name of the own service; calls for another are refused.
	Service string
	// MaxRunning and MaxWaiting bound inbound unary calls over all connections.
	MaxRunning, MaxWaiting int
	// MaxStreams and MaxStreamsWaiting bound inbound streams; 0 means what is for calls.
	MaxStreams, MaxStreamsWaiting int
	// Refuse, when set, looks at the caller before anything runs.
	Refuse func(message.Caller) *errs.Error
	// Allow, when set, is asked whether the caller may call the method. relayed: the call
	// came through the runtime, which says who the caller is and has asked the same.
	Allow func(caller *message.Caller, m *catalog.Method, relayed bool) *errs.Error
	// Tracer, when set, makes a span for each call.
	Tracer trace.Tracer
	// Clock times the limits; nil means the clock of the machine.
	Clock clock.Clock
	Log   *slog.Logger
}

// Table holds the methods of one instance. It is safe for concurrent use.
type Table struct {
	opt            Options
	calls, streams *limit.Gate
	instance       *limit.Set // what bounds the instance beside the two gates
	drained        chan struct{}

	mu       sync.Mutex
	building map[string]*Method
	rules    map[string][]catalog.Limit // laid down by operators, by method
	frozen   atomic.Pointer[map[string]*Method]
	draining atomic.Bool
}

// New returns an empty table.
func New(opt Options) *Table {
	if opt.MaxStreams == 0 {
		opt.MaxStreams, opt.MaxStreamsWaiting = opt.MaxRunning, opt.MaxWaiting
	}
	t := &Table{opt: opt, drained: make(chan struct{}), building: make(map[string]*Method)}
	t.calls = limit.NewGate(opt.MaxRunning, opt.MaxWaiting, t.limitOptions())
	t.streams = limit.NewGate(opt.MaxStreams, opt.MaxStreamsWaiting, t.limitOptions())
	t.instance = limit.NewSet(t.limitOptions())
	return t
}

// Add adds a method. A name that is taken is refused with already_exists, any method
// after Freeze with failed_precondition.
func (t *Table) Add(methods ...*Method) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.frozen.Load() != nil {
		return errs.New(errs.FailedPrecondition, "handlers are added before Start")
	}
	for _, m := range methods {
		if _, taken := t.building[m.Name]; taken {
			return errs.New(errs.AlreadyExists, "a handler for %q is registered already", m.Name)
		}
	}
	for _, m := range methods {
		m.limits = limit.NewSet(t.limitOptions())
		t.building[m.Name] = m
		t.relimit(m)
	}
	return nil
}

// Update changes a method before Freeze. f may return what is wrong; nothing changes then.
// A name that is not there is refused with method_not_found.
func (t *Table) Update(name string, f func(m *Method) error) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.frozen.Load() != nil {
		return errs.New(errs.FailedPrecondition, "methods are configured before Start")
	}
	m := t.building[name]
	if m == nil {
		return errs.New(errs.MethodNotFound, "no handler for %q is registered; register it first", name)
	}
	next := *m
	if err := f(&next); err != nil {
		return err
	}
	*m = next
	t.relimit(m)
	return nil
}

// Freeze ends the adding; from now on calls are served.
func (t *Table) Freeze() {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.frozen.Load() == nil {
		m := maps.Clone(t.building)
		t.frozen.Store(&m)
	}
}

// Methods returns the description of every method, by name.
func (t *Table) Methods() []catalog.Method {
	t.mu.Lock()
	defer t.mu.Unlock()
	out := make([]catalog.Method, 0, len(t.building))
	for _, m := range t.building {
		if m.Unary != nil || m.Stream != nil {
			out = append(out, m.Method)
		}
	}
	slices.SortFunc(out, func(a, b catalog.Method) int { return cmp.Compare(a.Name, b.Name) })
	return out
}

// Drain refuses every call from now on, also those that wait for their turn, with proof
// that it was not begun.
func (t *Table) Drain() {
	if !t.draining.Swap(true) {
		close(t.drained)
	}
}

// Idle waits until no handler runs.
func (t *Table) Idle(ctx context.Context) error {
	if err := t.calls.Idle(ctx); err != nil {
		return err
	}
	return t.streams.Idle(ctx)
}

// Running is the number of handlers that run now.
func (t *Table) Running() int { return t.calls.Running() + t.streams.Running() }

// For returns the handler of one connection.
func (t *Table) For(conn *Conn) message.Handler { return &bound{t, conn} }

type bound struct {
	t    *Table
	conn *Conn
}

// HandleCall implements message.Handler.
func (b *bound) HandleCall(ctx context.Context, call *message.Call) *message.Reply {
	var in admitted
	m, err := b.t.enter(ctx, b.conn, call, false, &in)
	if err != nil {
		return &message.Reply{Err: err}
	}
	defer in.leave()
	c := newContext(in.within(ctx, m), b.t, b.conn, m, call)
	out, herr := b.t.runUnary(c, m)
	herr = in.overtime(c, herr)
	reply := c.reply()
	if herr != nil {
		reply.Err = Failure(herr)
		return reply
	}
	body, cerr := codec.Append(nil, out, call.ContentType)
	if cerr != nil {
		b.t.opt.Log.Error("the answer of a handler cannot be sent", "method", m.Name, "request_id", call.RequestID, "error", cerr)
		e := *errs.From(cerr)
		e.NotStarted = false
		if e.Code == errs.InvalidArgument {
			e.Code, e.GRPCCode = errs.Internal, errs.Internal.GRPC()
		}
		reply.Err = e.In("sdk", "answer "+m.Name)
		return reply
	}
	reply.Body, reply.ContentType = body, call.ContentType
	return reply
}

// HandleStream implements message.Handler.
func (b *bound) HandleStream(ctx context.Context, call *message.Call, out message.Sender) *message.Reply {
	var in admitted
	m, err := b.t.enter(ctx, b.conn, call, true, &in)
	if err != nil {
		return &message.Reply{Err: err}
	}
	defer in.leave()
	c := newContext(in.within(ctx, m), b.t, b.conn, m, call)
	c.out = out
	herr := in.overtime(c, b.t.runStream(c, m))
	if herr == nil {
		herr = c.flushHeaders()
	} else {
		_ = c.flushHeaders() // the failure of the handler says more
	}
	reply := c.reply()
	reply.Headers, reply.ContentType = nil, call.ContentType
	if herr != nil {
		reply.Err = Failure(herr)
	}
	return reply
}

// enter finds the method of a call and lets the call in. Refusals that another
// instance might not repeat carry the proof that nothing was begun.
func (t *Table) enter(ctx context.Context, conn *Conn, call *message.Call, stream bool, in *admitted) (*Method, *errs.Error) {
	table := t.frozen.Load()
	if table == nil {
		return nil, t.refuse(call, errs.New(errs.Unavailable, "service %s is still starting", t.opt.Service))
	}
	if t.draining.Load() {
		return nil, t.refuse(call, t.drainError())
	}
	if conn.Known {
		call.Caller = conn.Caller
	}
	if t.opt.Refuse != nil {
		if err := t.opt.Refuse(call.Caller); err != nil {
			return nil, t.refuse(call, err)
		}
	}
	if call.Service != "" && call.Service != t.opt.Service {
		return nil, t.refuse(call, errs.New(errs.ServiceNotFound, "this is an instance of %s, not of %s", t.opt.Service, call.Service))
	}
	m := (*table)[call.Method]
	if m == nil || m.Unary == nil && m.Stream == nil {
		return nil, t.refuse(call, errs.New(errs.MethodNotFound, "service %s has no method %q", t.opt.Service, call.Method))
	}
	switch {
	case stream && m.Stream == nil:
		return nil, t.refuse(call, errs.New(errs.FailedPrecondition, "%s of %s is a unary method; call it, do not stream it", m.Name, t.opt.Service))
	case !stream && m.Unary == nil:
		return nil, t.refuse(call, errs.New(errs.FailedPrecondition, "%s of %s is a streaming method; stream it, do not call it", m.Name, t.opt.Service))
	}
	if t.opt.Allow != nil {
		if err := t.opt.Allow(&call.Caller, &m.Method, !conn.Known); err != nil {
			return nil, t.refuse(call, err)
		}
	}
	var f limit.Facts
	if m.limits.Binds() || t.instance.Binds() {
		f = t.facts(ctx, conn, m, call)
	}
	if err := t.admit(ctx, m, &f, stream, in); err != nil {
		return nil, t.refuse(call, err)
	}
	return m, nil
}

func (t *Table) drainError() *errs.Error {
	return errs.New(errs.Unavailable, "this instance of %s is draining", t.opt.Service)
}

func (t *Table) refuse(call *message.Call, err *errs.Error) *errs.Error {
	return err.In("sdk", "serve "+t.opt.Service+"/"+call.Method).Unstarted().
		With("service", t.opt.Service).With("method", call.Method)
}

func (t *Table) runUnary(c *Context, m *Method) (out any, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = t.panicked(c, m, p)
		}
		if c.span != nil {
			endSpan(c.span, err)
		}
	}()
	return m.Unary(c)
}

func (t *Table) runStream(c *Context, m *Method) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = t.panicked(c, m, p)
		}
		if c.span != nil {
			endSpan(c.span, err)
		}
	}()
	return m.Stream(c)
}

// panicked turns a panic into the failure of its one call. What was said to panic stays
// in the log of this process.
func (t *Table) panicked(c *Context, m *Method, p any) error {
	t.opt.Log.Error("a handler panicked", "method", m.Name, "request_id", c.call.RequestID,
		"caller", c.call.Caller.Service, "panic", p, "stack", string(debug.Stack()))
	return errs.New(errs.Internal, "the handler of %s panicked; its log has the stack, under request id %s", m.Name, c.call.RequestID).In("sdk", "serve "+m.Name)
}

// Recover turns, when it is deferred, a panic of a handler into the failure of its one call.
func (t *Table) Recover(ctx context.Context, err *error) {
	if p := recover(); p != nil {
		t.opt.Log.ErrorContext(ctx, "a handler panicked", "panic", p, "stack", string(debug.Stack()))
		*err = errs.New(errs.Internal, "the handler panicked").In("sdk", "serve "+t.opt.Service)
	}
}
