package router_test

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/internal/message"
	"telford.dev/telford/server/internal/router"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeIndex is a registry made of slices.
type fakeIndex struct {
	mu    sync.Mutex
	known map[string][]*catalog.Instance // by namespace + "/" + service
}

func (x *fakeIndex) set(namespace, service string, instances ...*catalog.Instance) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.known == nil {
		x.known = make(map[string][]*catalog.Instance)
	}
	x.known[namespace+"/"+service] = slices.Clone(instances)
}

func (x *fakeIndex) Candidates(namespace, service string) []*catalog.Instance {
	x.mu.Lock()
	defer x.mu.Unlock()
	return x.known[namespace+"/"+service]
}

func (x *fakeIndex) names(namespace string, has func(*catalog.Instance) bool) []string {
	x.mu.Lock()
	defer x.mu.Unlock()
	var names []string
	for key, instances := range x.known {
		if ns, name, _ := strings.Cut(key, "/"); ns == namespace && slices.ContainsFunc(instances, has) {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

func (x *fakeIndex) Services(namespace string) []string {
	return x.names(namespace, func(*catalog.Instance) bool { return true })
}

func (x *fakeIndex) ServicesWithMethod(namespace, service string) []string {
	return x.names(namespace, func(in *catalog.Instance) bool {
		return slices.ContainsFunc(in.Declaration.Methods, func(m catalog.Method) bool {
			return strings.HasPrefix(m.Name, service+"/")
		})
	})
}

// instance describes one with a unary method "charge" and a stream "watch".
func instance(id string, change ...func(*catalog.Instance)) *catalog.Instance {
	in := &catalog.Instance{Namespace: "default", ID: id, Reachable: true, Declaration: catalog.Declaration{
		Service: "payments", Realm: "global", Status: catalog.OK,
		Methods: []catalog.Method{
			{Name: "charge", Kind: catalog.Unary, ContentTypes: []string{"json"}},
			{Name: "watch", Kind: catalog.ServerStream, ContentTypes: []string{"json"}},
		},
	}}
	for _, c := range change {
		c(in)
	}
	return in
}

func methods(ms ...catalog.Method) func(*catalog.Instance) {
	return func(in *catalog.Instance) { in.Declaration.Methods = ms }
}

func unary(name string) catalog.Method { return catalog.Method{Name: name, Kind: catalog.Unary} }

func version(v string, compatible ...string) func(*catalog.Instance) {
	return func(in *catalog.Instance) {
		in.Declaration.Version, in.Declaration.CompatibleVersions = v, compatible
	}
}

func realm(r string) func(*catalog.Instance) {
	return func(in *catalog.Instance) { in.Declaration.Realm = r }
}

func status(s catalog.Status) func(*catalog.Instance) {
	return func(in *catalog.Instance) { in.Declaration.Status = s }
}

func locality(l string) func(*catalog.Instance) {
	return func(in *catalog.Instance) { in.Declaration.Locality = l }
}

func contract(c string) func(*catalog.Instance) {
	return func(in *catalog.Instance) { in.Declaration.Methods[0].Contract = c }
}

func zone(z string) func(*catalog.Instance) {
	return func(in *catalog.Instance) { in.Declaration.Scope, in.Zone = catalog.ScopeZone, z }
}

func draining(in *catalog.Instance) { in.Draining = true }

// fakeLink answers as its functions say and notes what it was given.
type fakeLink struct {
	id     string
	call   func(context.Context, *message.Call) (*message.Reply, error)
	stream func(context.Context, *message.Call) (message.Stream, error)

	mu    sync.Mutex
	calls []*message.Call
}

func (l *fakeLink) Call(ctx context.Context, c *message.Call) (*message.Reply, error) {
	l.note(c)
	if l.call == nil {
		return &message.Reply{Body: []byte(l.id), ContentType: c.ContentType}, nil
	}
	return l.call(ctx, c)
}

func (l *fakeLink) Stream(ctx context.Context, c *message.Call) (message.Stream, error) {
	l.note(c)
	if l.stream == nil {
		return newFakeStream(ctx, []byte(l.id)), nil
	}
	return l.stream(ctx, c)
}

func (l *fakeLink) note(c *message.Call) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.calls = append(l.calls, c)
}

func (l *fakeLink) got() []*message.Call {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.calls)
}

func refusing(code errs.Code) func(context.Context, *message.Call) (*message.Reply, error) {
	return func(context.Context, *message.Call) (*message.Reply, error) {
		return nil, errs.New(code, "not now").Unstarted()
	}
}

// fakeStream yields messages and then ends with err.
type fakeStream struct {
	ctx      context.Context
	messages chan []byte
	err      error
	headers  []message.Pair
	trailers []message.Pair
	kind     message.ContentType

	closeOnce sync.Once
	closed    chan struct{}
	received  int
}

// newFakeStream returns one that holds all its messages and ends in good order.
func newFakeStream(ctx context.Context, messages ...[]byte) *fakeStream {
	s := &fakeStream{ctx: ctx, messages: make(chan []byte, len(messages)), err: io.EOF, closed: make(chan struct{}), kind: message.JSON}
	for _, m := range messages {
		s.messages <- m
	}
	close(s.messages)
	return s
}

func (s *fakeStream) Recv() ([]byte, error) {
	select {
	case m, ok := <-s.messages:
		if !ok {
			return nil, s.err
		}
		s.received++
		return m, nil
	case <-s.ctx.Done():
		return nil, errs.From(s.ctx.Err())
	case <-s.closed:
		return nil, errs.New(errs.Canceled, "closed")
	}
}

func (s *fakeStream) Headers() ([]message.Pair, error) {
	var e *errs.Error
	if errors.As(s.err, &e) && len(s.messages) == 0 {
		return s.headers, s.err
	}
	return s.headers, nil
}

func (s *fakeStream) Trailers() []message.Pair         { return s.trailers }
func (s *fakeStream) ContentType() message.ContentType { return s.kind }
func (s *fakeStream) Close()                           { s.closeOnce.Do(func() { close(s.closed) }) }

func (s *fakeStream) isClosed() bool {
	select {
	case <-s.closed:
		return true
	default:
		return false
	}
}

// bench is a router over a fake index, with a link for each instance.
type bench struct {
	*router.Router
	index *fakeIndex
	links map[string]*fakeLink
}

func setup(t testing.TB, instances ...*catalog.Instance) *bench {
	t.Helper()
	return newBench(instances...)
}

func newBench(instances ...*catalog.Instance) *bench {
	b := &bench{index: new(fakeIndex), links: make(map[string]*fakeLink)}
	b.Router = router.New(router.Config{Index: b.index, Zone: "here", Locality: "rack-1"})
	b.index.set("default", "payments", instances...)
	for _, in := range instances {
		b.attach(in.ID)
	}
	return b
}

func (b *bench) attach(id string) (detach func()) {
	if b.links[id] == nil {
		b.links[id] = &fakeLink{id: id}
	}
	return b.Attach("default", id, b.links[id])
}

func request(change ...func(*router.Request)) *router.Request {
	r := &router.Request{Call: &message.Call{Service: "payments", Method: "charge", ContentType: message.JSON, Body: []byte(`{}`)}}
	for _, c := range change {
		c(r)
	}
	return r
}

func target(t message.Target) func(*router.Request) {
	return func(r *router.Request) { r.Call.Target = t }
}

func calling(service, method string) func(*router.Request) {
	return func(r *router.Request) { r.Call.Service, r.Call.Method = service, method }
}

// picks runs n calls and returns how many each instance got.
func (b *bench) picks(t testing.TB, n int, change ...func(*router.Request)) map[string]int {
	t.Helper()
	got := make(map[string]int)
	for range n {
		reply, err := b.Call(t.Context(), request(change...))
		if err != nil {
			t.Fatal(err)
		}
		got[string(reply.Body)]++
	}
	return got
}

// only fails unless exactly the named instances got calls.
func only(t testing.TB, got map[string]int, want ...string) {
	t.Helper()
	for _, id := range want {
		if got[id] == 0 {
			t.Errorf("%s got no call: %v", id, got)
		}
	}
	if len(got) != len(want) {
		t.Errorf("calls went to %v, want only %v", got, want)
	}
}

func want(t testing.TB, err error, code errs.Code, says ...string) *errs.Error {
	t.Helper()
	var e *errs.Error
	if !errors.As(err, &e) {
		t.Fatalf("%v is no error of the model, want %s", err, code)
	}
	if e.Code != code {
		t.Errorf("%v, want %s", e, code)
	}
	for _, s := range says {
		if !strings.Contains(e.Message, s) {
			t.Errorf("the message does not say %q: %s", s, e.Message)
		}
	}
	return e
}
