package registry

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
	"telford.dev/telford/server/internal/tx"
)

// The small world of the model.
var (
	modelNamespaces = []string{"default", "other"}
	modelServices   = []string{"a", "b", "c"}
	modelTTLs       = []time.Duration{2 * time.Second, 5 * time.Second, 90 * time.Second}
	modelVersions   = []string{"1", "2"}
	modelStatuses   = []catalog.Status{catalog.OK, catalog.Error, catalog.Offline}
)

// modelInstance is what the model knows of an instance.
type modelInstance struct {
	Service, Version     string
	Status               catalog.Status
	Reachable, Draining  bool
	drained, leaving     bool
	ttl                  time.Duration
	deadline, registered time.Time
	revision             int64
	session              int
}

// seen is what others see of it.
type seen struct {
	Service, Version    string
	Status              catalog.Status
	Reachable, Draining bool
	Revision            int64
}

func (m *modelInstance) seen() seen {
	return seen{m.Service, m.Version, m.Status, m.Reachable, m.drained || m.leaving, m.revision}
}

func seenOf(i *catalog.Instance) seen {
	d := &i.Declaration
	return seen{d.Service, d.Version, d.Status, i.Reachable, i.Draining, i.Revision}
}

// modelWatcher is a client: it applies what it is told and nothing else.
type modelWatcher struct {
	*Watcher
	ns       string
	services []string // nil: all
	known    map[string]seen
	revision catalog.Revision
	told     bool
	// parts and whole are what a client has that waits for the last part.
	parts catalog.Parts
	whole map[string]seen
}

func (w *modelWatcher) apply(t *rapid.T, u *catalog.Update) {
	if !w.told && w.revision == (catalog.Revision{}) && !u.Snapshot {
		t.Fatalf("a watch from nowhere began with a delta")
	}
	w.told = true
	if u.Snapshot {
		w.known = make(map[string]seen)
	}
	for _, s := range u.Removals {
		if s.Namespace != w.ns {
			t.Fatalf("told of another namespace: %+v", s)
		}
		delete(w.known, s.ID)
	}
	for _, i := range u.Upserts {
		if i.Namespace != w.ns || !visible(i) {
			t.Fatalf("told of what it must not see: %+v", i)
		}
		w.known[i.ID] = seenOf(i)
	}
	w.revision = u.Revision
	if u = w.parts.Add(u); u == nil {
		return
	}
	if u.Snapshot {
		w.whole = make(map[string]seen)
	}
	for _, s := range u.Removals {
		delete(w.whole, s.ID)
	}
	for _, i := range u.Upserts {
		w.whole[i.ID] = seenOf(i)
	}
}

// machine runs random operations on a registry and on the model.
type machine struct {
	b        *bench
	model    map[key]*modelInstance
	watchers []*modelWatcher
	ends     []func() // ends of sessions, with what the model makes of them
	sessions int
}

func pick[T any](t *rapid.T, name string, list []T) T { return rapid.SampledFrom(list).Draw(t, name) }

func pickKey(t *rapid.T) key {
	return key{pick(t, "namespace", modelNamespaces), fmt.Sprintf("in_%d", rapid.IntRange(0, 4).Draw(t, "id"))}
}

func (m *machine) now() time.Time { return m.b.clock.Now() }

func (m *machine) register(t *rapid.T) {
	k := pickKey(t)
	service := pick(t, "service", modelServices)
	d := &catalog.Declaration{
		Service: service, Version: pick(t, "version", modelVersions), TTL: pick(t, "ttl", modelTTLs),
		Status: pick(t, "status", modelStatuses),
	}
	if d.Version == "2" {
		d.Methods = []catalog.Method{{Name: service + ".v2.S/M"}}
	}
	_, _, err := m.b.Register(context.Background(), Owner{Namespace: k.namespace, Instance: k.id, Service: service}, d)
	i := m.model[k]
	if i != nil && i.Service != service {
		if errs.CodeOf(err) != errs.AlreadyExists {
			t.Fatalf("an id of %s was given to %s: %v", i.Service, service, err)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if i == nil {
		i = &modelInstance{Service: service, registered: m.now()}
		m.model[k] = i
	}
	if i.Version != d.Version || i.Status != d.Status || i.ttl != d.TTL {
		i.revision++
	}
	i.Version, i.Status, i.ttl, i.leaving = d.Version, d.Status, d.TTL, false
	i.deadline = m.now().Add(d.TTL)
}

func (m *machine) setStatus(t *rapid.T) {
	k, status := pickKey(t), pick(t, "status", modelStatuses)
	err := m.b.SetStatus(context.Background(), k.namespace, k.id, status, "")
	i := m.model[k]
	m.wantFound(t, i, err)
	if i != nil && i.Status != status {
		i.Status = status
		i.revision++
	}
}

func (m *machine) drain(t *rapid.T) {
	k, on := pickKey(t), rapid.Bool().Draw(t, "on")
	err := m.b.Drain(context.Background(), k.namespace, k.id, on)
	i := m.model[k]
	m.wantFound(t, i, err)
	if i != nil && i.drained != on {
		i.drained = on
		i.revision++
	}
}

func (m *machine) wantFound(t *rapid.T, i *modelInstance, err error) {
	if (i == nil) != (errs.CodeOf(err) == errs.NotFound) || (i != nil && err != nil) {
		t.Fatalf("got %v, registered: %v", err, i != nil)
	}
}

func (m *machine) deregister(t *rapid.T) {
	k := pickKey(t)
	err := m.b.Deregister(context.Background(), k.namespace, k.id, catalog.Deregistered)
	m.wantFound(t, m.model[k], err)
	delete(m.model, k)
}

func (m *machine) leaving(t *rapid.T) {
	k := pickKey(t)
	i := m.model[k]
	if m.b.Leaving(k.namespace, k.id) != (i != nil) {
		t.Fatal("Leaving said otherwise")
	}
	if i != nil {
		i.leaving = true
	}
}

func (m *machine) touch(t *rapid.T) {
	k := pickKey(t)
	i := m.model[k]
	before := m.b.Revision()
	if m.b.Touch(k.namespace, k.id) != (i != nil) {
		t.Fatal("Touch said otherwise")
	}
	if m.b.Revision() != before {
		t.Fatal("a sign of life made a delta")
	}
	i.alive(m.now())
}

// alive moves the deadline, never backwards.
func (m *modelInstance) alive(now time.Time) {
	if m != nil && m.deadline.Before(now.Add(m.ttl)) {
		m.deadline = now.Add(m.ttl)
	}
}

func (m *machine) reach(t *rapid.T) {
	k, on := pickKey(t), rapid.Bool().Draw(t, "on")
	i := m.model[k]
	if m.b.Reach(k.namespace, k.id, on) != (i != nil) {
		t.Fatal("Reach said otherwise")
	}
	if i != nil {
		m.sessions++
		i.Reachable, i.session = on, m.sessions
		i.alive(m.now())
	}
}

func (m *machine) session(t *rapid.T) {
	k := pickKey(t)
	i := m.model[k]
	end, ok := m.b.Session(k.namespace, k.id)
	if ok != (i != nil) {
		t.Fatal("Session said otherwise")
	}
	if i == nil {
		return
	}
	m.sessions++
	n := m.sessions
	i.Reachable, i.session = true, n
	i.alive(m.now())
	m.ends = append(m.ends, func() {
		end()
		if m.model[k] == i && i.session == n {
			i.Reachable, i.session = false, 0
			i.alive(m.now())
		}
	})
}

func (m *machine) endSession(t *rapid.T) {
	if len(m.ends) > 0 {
		pick(t, "session", m.ends)()
	}
}

func (m *machine) pass(t *rapid.T) {
	d := time.Duration(rapid.IntRange(1, 20).Draw(t, "half seconds")) * 500 * time.Millisecond
	if rapid.IntRange(0, 9).Draw(t, "long") == 0 {
		d += 90 * time.Second
	}
	m.b.pass(d)
	for k, i := range m.model {
		// The wheel turns by whole ticks and rounds a lease up to them: between the two it
		// may have ended or not.
		if i.deadline.After(m.now()) {
			continue
		}
		_, err := m.b.Get(k.namespace, k.id)
		up := (i.deadline.Sub(m.b.time.base) + time.Second - 1).Truncate(time.Second)
		if m.now().Sub(m.b.time.base) < up && err == nil {
			continue
		}
		if i.Reachable {
			i.alive(m.now())
			continue
		}
		delete(m.model, k)
	}
}

func (m *machine) restart(*rapid.T) {
	m.b.open()
	m.b.maxUpdate = 700
	m.ends = nil
	for _, i := range m.model {
		i.Reachable, i.leaving, i.session = false, false, 0
		i.deadline = m.now().Add(i.ttl)
	}
	for _, w := range m.watchers {
		w.Close()
		m.watch(w)
	}
}

// unknown does something of which the store cannot say whether it was done, and has the
// registry find out.
func (m *machine) unknown(t *rapid.T) {
	k := pickKey(t)
	i := m.model[k]
	next := modelInstance{Service: pick(t, "service", modelServices), registered: m.now(), deadline: m.now()}
	if i != nil {
		next = *i
	}
	next.revision++
	committed := rapid.Bool().Draw(t, "committed")
	m.b.store.set(tx.ErrOutcomeUnknown, committed)
	var err error
	ctx := context.Background()
	what := pick(t, "what", []string{"register", "status", "drain", "deregister"})
	switch what {
	case "register":
		next.Version, next.Status, next.ttl = pick(t, "version", modelVersions), pick(t, "status", modelStatuses), pick(t, "ttl", modelTTLs)
		d := &catalog.Declaration{Version: next.Version, TTL: next.ttl, Status: next.Status}
		if d.Version == "2" {
			d.Methods = []catalog.Method{{Name: next.Service + ".v2.S/M"}}
		}
		_, _, err = m.b.Register(ctx, Owner{Namespace: k.namespace, Instance: k.id, Service: next.Service}, d)
	case "status":
		next.Status = pick(t, "status", modelStatuses)
		err = m.b.SetStatus(ctx, k.namespace, k.id, next.Status, "")
	case "drain":
		next.drained = !next.drained
		err = m.b.Drain(ctx, k.namespace, k.id, next.drained)
	case "deregister":
		err = m.b.Deregister(ctx, k.namespace, k.id, catalog.Deregistered)
	}
	m.b.store.set(nil, false)
	switch {
	case err == nil && what == "register":
		// The same as before: that needs no write.
		i.leaving, i.deadline = false, m.now().Add(i.ttl)
	case errs.CodeOf(err) == errs.Unavailable && committed && what == "deregister":
		delete(m.model, k)
	case errs.CodeOf(err) == errs.Unavailable && committed:
		if i == nil {
			next.deadline = m.now().Add(next.ttl)
			m.model[k] = &next
		} else {
			*i = next // the ends of its sessions know it by its address
		}
	}
	if err := m.b.Reload(ctx); err != nil {
		t.Fatal(err)
	}
}

// watch begins or resumes a watch.
func (m *machine) watch(w *modelWatcher) {
	w.Watcher = m.b.Watch(w.ns, w.services, w.revision)
	w.told = false
}

func (m *machine) pickServices(t *rapid.T) []string {
	if rapid.IntRange(0, 4).Draw(t, "all") == 0 {
		return nil
	}
	return rapid.SliceOfDistinct(rapid.SampledFrom(modelServices), rapid.ID[string]).Draw(t, "services")
}

func (m *machine) newWatcher(t *rapid.T) {
	if len(m.watchers) == 4 {
		i := rapid.IntRange(0, 3).Draw(t, "watcher")
		m.watchers[i].Close()
		m.watchers = slices.Delete(m.watchers, i, i+1)
	}
	w := &modelWatcher{ns: pick(t, "namespace", modelNamespaces), services: m.pickServices(t), known: make(map[string]seen), whole: make(map[string]seen)}
	m.watch(w)
	m.watchers = append(m.watchers, w)
}

func (m *machine) setServices(t *rapid.T) {
	if len(m.watchers) == 0 {
		return
	}
	w := pick(t, "watcher", m.watchers)
	next := m.pickServices(t)
	if err := w.SetServices(next); err != nil {
		t.Fatal(err)
	}
	w.services = next
	// The revision is of the services before; who resumes now starts over.
	w.revision = catalog.Revision{}
	w.told = true
}

// hear takes one update, which may be the first of several parts.
func (m *machine) hear(t *rapid.T) {
	if len(m.watchers) == 0 {
		return
	}
	w := pick(t, "watcher", m.watchers)
	if u := w.collect(); u != nil {
		w.apply(t, u)
	}
}

// resume cuts a watch and goes on where it was.
func (m *machine) resume(t *rapid.T) {
	if len(m.watchers) == 0 {
		return
	}
	w := pick(t, "watcher", m.watchers)
	w.Close()
	m.watch(w)
}

// hearAll brings every watcher up to date, and compares.
func (m *machine) hearAll(t *rapid.T) {
	for n, w := range m.watchers {
		for u := w.collect(); u != nil; u = w.collect() {
			w.apply(t, u)
		}
		want := make(map[string]seen)
		for k, i := range m.model {
			if k.namespace == w.ns && i.Status != catalog.Offline && (w.services == nil || slices.Contains(w.services, i.Service)) {
				want[k.id] = i.seen()
			}
		}
		if diff := gocmp.Diff(want, w.known); diff != "" {
			t.Fatalf("watcher %d of %v in %s: %s", n, w.services, w.ns, diff)
		}
		if diff := gocmp.Diff(want, w.whole); diff != "" {
			t.Fatalf("watcher %d, by whole updates: %s", n, diff)
		}
	}
}

// check compares everything but the watchers.
func (m *machine) check(t *rapid.T) {
	b := m.b
	listed := make(map[key]seen)
	for _, i := range b.List(Filter{}) {
		listed[key{i.Namespace, i.ID}] = seenOf(i)
		if want := m.model[key{i.Namespace, i.ID}]; want != nil && !i.Registered.Equal(want.registered) {
			t.Fatalf("%s registered at %v, want %v", i.ID, i.Registered, want.registered)
		}
	}
	want := make(map[key]seen)
	reachable := 0
	for k, i := range m.model {
		want[k] = i.seen()
		if i.Reachable {
			reachable++
		}
	}
	if diff := gocmp.Diff(want, listed); diff != "" {
		t.Fatalf("listed: %s", diff)
	}
	if s := b.Stats(); s.Instances != len(m.model) || s.Reachable != reachable || s.Watchers != len(m.watchers) || b.leases.Len() != len(m.model) {
		t.Fatalf("%+v with %d leases, want %d instances, %d reachable, %d watchers", s, b.leases.Len(), len(m.model), reachable, len(m.watchers))
	}
	if stored := slices.Collect(maps.Keys(b.store.rows)); len(stored) != len(m.model) {
		t.Fatalf("stored: %v", stored)
	}
	for _, ns := range modelNamespaces {
		m.checkNamespace(t, ns)
	}
}

func (m *machine) checkNamespace(t *rapid.T, ns string) {
	var services []string
	for _, service := range modelServices {
		var want []string
		grpc := false
		for k, i := range m.model {
			if k.namespace == ns && i.Service == service && i.Status != catalog.Offline {
				want = append(want, k.id)
				grpc = grpc || i.Version == "2"
			}
		}
		slices.Sort(want)
		got := m.b.Candidates(ns, service)
		if !slices.Equal(ids(got), want) || !slices.IsSortedFunc(got, func(a, b *catalog.Instance) int { return cmp.Compare(a.ID, b.ID) }) {
			t.Fatalf("candidates of %s: %v, want %v", service, ids(got), want)
		}
		for _, i := range got {
			if seenOf(i) != m.model[key{ns, i.ID}].seen() {
				t.Fatalf("candidate %+v is out of date", i)
			}
		}
		if want != nil {
			services = append(services, service)
		}
		var named []string
		if grpc {
			named = []string{service}
		}
		if got := m.b.ServicesWithMethod(ns, service+".v2.S"); !slices.Equal(got, named) {
			t.Fatalf("services with %s.v2.S: %v, want %v", service, got, named)
		}
	}
	if got := m.b.Services(ns); !slices.Equal(got, services) {
		t.Fatalf("services: %v, want %v", got, services)
	}
}

func TestAgainstModel(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		b := newBench(t, func(c *Config) { c.Retain = rapid.IntRange(1, 12).Draw(t, "retained") })
		b.store.twice = true
		b.maxUpdate = 700
		m := &machine{b: b, model: make(map[key]*modelInstance)}
		t.Repeat(map[string]func(*rapid.T){
			"":             m.check,
			"register":     m.register,
			"register too": m.register,
			"status":       m.setStatus,
			"drain":        m.drain,
			"leaving":      m.leaving,
			"deregister":   m.deregister,
			"touch":        m.touch,
			"reach":        m.reach,
			"session":      m.session,
			"end session":  m.endSession,
			"pass":         m.pass,
			"restart":      m.restart,
			"unknown":      m.unknown,
			"unknown too":  m.unknown,
			"watch":        m.newWatcher,
			"set services": m.setServices,
			"hear":         m.hear,
			"hear all":     m.hearAll,
			"resume":       m.resume,
		})
		m.hearAll(t)
		b.stop()
	})
}
