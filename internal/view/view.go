// Package view owns what a process knows of the services it uses: the instances that
// its watch has told it of, kept when the runtime is away, and who among them may be
// asked to run a method. What policy forbids it to call it does not show. It starts no
// goroutines and does no I/O.
package view

import (
	"context"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/policy"
)

// View is the current knowledge. Reading takes no lock. It is safe for concurrent use.
type View struct {
	now atomic.Pointer[Snapshot]

	mu       sync.Mutex // orders writers; guards what follows
	wanted   map[string]struct{}
	asked    []string      // the services of the request that is under way
	answered []string      // the services that the last answered request named
	changed  chan struct{} // closed at the next change
	self     string
	policy   *policy.Index
	shown    map[string]shown // by id, what of an instance is shown
}

// Snapshot is one immutable state.
type Snapshot struct {
	Revision catalog.Revision
	// Services maps names to instances, ordered by id, with the methods that may be
	// called. An instance that has methods, none of which may be, is not among them.
	Services map[string][]*catalog.Instance
	// all is Services with everything in it.
	all    map[string][]*catalog.Instance
	byID   map[string]*catalog.Instance
	self   string
	policy *policy.Index
}

// New returns a view that knows nothing yet.
func New() *View {
	v := &View{wanted: make(map[string]struct{}), changed: make(chan struct{})}
	v.now.Store(&Snapshot{})
	return v
}

// Snapshot returns the current state.
func (v *View) Snapshot() *Snapshot { return v.now.Load() }

// Instance returns one instance by id, nil when it is not known.
func (s *Snapshot) Instance(id string) *catalog.Instance { return s.byID[id] }

// Want adds services to those of interest and reports whether any is new.
func (v *View) Want(services ...string) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	added := false
	for _, s := range services {
		if _, known := v.wanted[s]; !known {
			v.wanted[s] = struct{}{}
			added = true
		}
	}
	return added
}

// Asked returns the services of interest, in order, and notes that they are being
// asked for now; answered tells whether the last answer was for exactly these.
func (v *View) Asked() (services []string, answered bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.asked = make([]string, 0, len(v.wanted))
	for s := range v.wanted {
		v.asked = append(v.asked, s)
	}
	slices.Sort(v.asked)
	return v.asked, slices.Equal(v.asked, v.answered)
}

// Covers reports whether the runtime has answered for a service since it was first
// wanted, or an instance of it is known anyway.
func (v *View) Covers(service string) bool {
	if len(v.now.Load().all[service]) > 0 {
		return true
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	_, ok := slices.BinarySearch(v.answered, service)
	return ok
}

// Changed is closed at the next change of the view.
func (v *View) Changed() <-chan struct{} {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.changed
}

// Wait waits until ok holds, looking again after each change.
func (v *View) Wait(ctx context.Context, ok func() bool) error {
	for {
		changed := v.Changed()
		if ok() {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// Apply takes in one step of the watch and returns the instances that are gone.
func (v *View) Apply(u *catalog.Update) (gone []*catalog.Instance) {
	v.mu.Lock()
	defer v.mu.Unlock()
	old := v.now.Load()
	byID := make(map[string]*catalog.Instance, len(old.byID)+len(u.Upserts))
	if !u.Snapshot {
		for id, i := range old.byID {
			byID[id] = i
		}
	}
	for _, i := range u.Upserts {
		byID[i.ID] = i
	}
	for _, t := range u.Removals {
		delete(byID, t.ID)
	}
	for id, i := range old.byID {
		if byID[id] == nil {
			gone = append(gone, i)
		}
	}
	if u.Snapshot {
		v.answered = v.asked
	}
	v.publish(u.Revision, byID)
	return gone
}

// SetPolicy puts a policy in force by which service self sees what it may call; nil
// shows everything.
func (v *View) SetPolicy(self string, index *policy.Index) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.self, v.policy, v.shown = self, index, nil
	now := v.now.Load()
	v.publish(now.Revision, now.byID)
}

// publish makes a new snapshot, with mu held.
func (v *View) publish(revision catalog.Revision, byID map[string]*catalog.Instance) {
	next := &Snapshot{Revision: revision, byID: byID, self: v.self, policy: v.policy, all: make(map[string][]*catalog.Instance)}
	for _, i := range byID {
		next.all[i.Declaration.Service] = append(next.all[i.Declaration.Service], i)
	}
	for _, list := range next.all {
		slices.SortFunc(list, func(a, b *catalog.Instance) int { return strings.Compare(a.ID, b.ID) })
	}
	next.Services = v.visible(next.all)
	v.now.Store(next)
	close(v.changed)
	v.changed = make(chan struct{})
}
