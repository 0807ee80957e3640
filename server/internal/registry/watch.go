package registry

import (
	"context"
	"maps"
	"slices"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/errs"
)

// MaxWatched is the most services that one watcher may name.
const MaxWatched = 4096

// Watcher follows the instances of some services of one namespace, or of all. It holds
// a position in the deltas that all watchers share, so that a slow one costs no more
// than a fast one: what changed several times meanwhile is told once, as it is now.
type Watcher struct {
	r    *Registry
	ns   *namespace
	wake chan struct{}
	done chan struct{}
	err  error // set before done is closed

	// Guarded by Registry.mu: written by Next under its read lock, as Next is for one
	// goroutine, and by the others under its write lock.
	all      bool
	services map[string]*service
	cursor   uint64
	snapshot bool                         // the next update is one
	added    map[string]*service          // not yet told whole
	farewell map[string]catalog.Tombstone // of services given up, by instance
	parts    []*catalog.Update            // the rest of a large update
	closed   bool
}

// Watch follows services of a namespace: all of them when services is nil, none when
// it is empty. Instances that are OFFLINE are not seen. after is the Revision of an
// update of an earlier watch of the same services: what has happened since is told, or
// a snapshot if that is no longer known; the zero value always begins with a snapshot.
// The Watcher must be closed.
func (r *Registry) Watch(namespace string, services []string, after catalog.Revision) *Watcher {
	w := &Watcher{
		r: r, wake: make(chan struct{}, 1), done: make(chan struct{}),
		services: make(map[string]*service), added: make(map[string]*service),
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	w.cursor = after.N
	w.snapshot = after.Epoch != r.epoch || after.N > r.ring.head || after.N+1 < r.ring.oldest()
	w.ns = r.namespace(namespace)
	switch err := checkWatched(services); {
	case err != nil:
		w.end(err)
	case r.stopped:
		w.end(stoppedError("watch"))
	default:
		r.watchers[w] = struct{}{}
		w.follow(services)
		clear(w.added) // told by the snapshot, or known to who resumes
	}
	return w
}

func checkWatched(services []string) error {
	if len(services) > MaxWatched {
		return errs.New(errs.InvalidArgument, "%d services are too many to watch by name: %d at most, or all",
			len(services), MaxWatched).In(component, "watch")
	}
	for _, name := range services {
		if !catalog.ValidName(name) {
			return errs.New(errs.InvalidArgument, "service %q must be 1 to %d of a-z, 0-9, '.', '_', '-'",
				name, catalog.MaxName).In(component, "watch")
		}
	}
	return nil
}

// follow enters w with the services that it does not follow yet.
func (w *Watcher) follow(services []string) {
	if services == nil {
		w.all = true
		w.ns.watchers[w] = struct{}{}
		return
	}
	for _, name := range services {
		if w.services[name] != nil {
			continue
		}
		s := w.ns.service(name)
		s.watchers[w] = struct{}{}
		w.services[name] = s
		w.added[name] = s
	}
}

// unfollow takes w off one service.
func (w *Watcher) unfollow(s *service) {
	delete(s.watchers, w)
	delete(w.services, s.name)
	delete(w.added, s.name)
	s.forget(w.r.ring.oldest())
}

// SetServices changes what is watched; nil is all. The next update tells what is
// needed: the instances of services that came in, removals for those given up.
// invalid_argument: a name is none, or there are too many of them.
func (w *Watcher) SetServices(services []string) error {
	if err := checkWatched(services); err != nil {
		return err
	}
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	if w.closed {
		return w.err
	}
	if services == nil || w.all {
		if services == nil && w.all {
			return nil
		}
		w.restart()
		w.leave()
		w.follow(services)
		clear(w.added)
	} else {
		keep := make(map[string]bool, len(services))
		for _, name := range services {
			keep[name] = true
		}
		for name, s := range w.services {
			if !keep[name] {
				w.dismiss(s)
			}
		}
		w.follow(services)
	}
	w.notify()
	return nil
}

// restart makes the next update a snapshot.
func (w *Watcher) restart() {
	w.snapshot = true
	w.parts, w.farewell = nil, nil
}

// dismiss gives a service up: all that the watcher may know of it is removed.
func (w *Watcher) dismiss(s *service) {
	if !w.snapshot && w.added[s.name] == nil {
		if w.farewell == nil {
			w.farewell = make(map[string]catalog.Tombstone)
		}
		now := stored(w.r.clock.Now())
		goodbye := func(id string) {
			w.farewell[id] = catalog.Tombstone{
				Namespace: w.ns.name, ID: id, Service: s.name, Reason: catalog.Unwatched, At: now,
			}
		}
		for _, e := range s.members {
			goodbye(e.id)
		}
		if !w.r.ring.since(s, w.cursor, func(d *delta) { goodbye(d.id) }) {
			w.restart()
		}
	}
	w.unfollow(s)
}

// leave takes w off everything.
func (w *Watcher) leave() {
	w.all = false
	delete(w.ns.watchers, w)
	for _, s := range w.services {
		w.unfollow(s)
	}
}

// Close ends the watch. A Next that waits returns. It may be called more than once.
func (w *Watcher) Close() {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	w.end(errs.New(errs.Canceled, "the watch was closed").In(component, "watch"))
}

// end closes w for the reason given. mu is held.
func (w *Watcher) end(err error) {
	if w.closed {
		return
	}
	w.closed = true
	w.err = err
	w.leave()
	delete(w.r.watchers, w)
	w.parts, w.farewell = nil, nil
	close(w.done)
}

// closeWatchers ends all watches and takes no new instances.
func (r *Registry) closeWatchers() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stopped = true
	for _, w := range slices.Collect(maps.Keys(r.watchers)) {
		w.end(stoppedError("watch"))
	}
}

func (w *Watcher) notify() {
	select {
	case w.wake <- struct{}{}:
	default:
	}
}

// wake has the watchers of a service look for what changed.
func (s *service) wake() {
	for w := range s.watchers {
		w.notify()
	}
	for w := range s.ns.watchers {
		w.notify()
	}
}

// Next waits for something to tell, until ctx ends. The first update is a snapshot
// unless the watch goes on from an earlier one. An update shares its instances with
// all watchers: they must not be changed. Next is for one goroutine at a time.
// canceled: the watch was closed; unavailable: the registry stopped;
// invalid_argument: the services asked for were none.
func (w *Watcher) Next(ctx context.Context) (*catalog.Update, error) {
	for {
		select {
		case <-w.done:
			return nil, w.err
		default:
		}
		if err := ctx.Err(); err != nil {
			return nil, storeError("watch", err)
		}
		if u := w.collect(); u != nil {
			return u, nil
		}
		select {
		case <-w.wake:
		case <-w.done:
		case <-ctx.Done():
		}
	}
}
