package registry

import "sync/atomic"

// Stats are figures for metrics. The first five are of now, the rest count since the
// Registry was opened.
type Stats struct {
	Instances  int // registered, in all namespaces
	Reachable  int // of those, with a live session
	Watchers   int
	Namespaces int // seen
	Held       int // registered although their leases have run out

	Registrations   uint64 // stored, without repetitions of what was stored already
	Deregistrations uint64
	Expirations     uint64
	Deltas          uint64
	Snapshots       uint64 // given to watchers
}

type counters struct {
	registrations, deregistrations, expirations, snapshots atomic.Uint64
}

// Stats returns the figures.
func (r *Registry) Stats() Stats {
	r.keeper.mu.Lock()
	held := len(r.keeper.held)
	r.keeper.mu.Unlock()
	r.mu.RLock()
	defer r.mu.RUnlock()
	return Stats{
		Held:      held,
		Instances: len(r.entries), Reachable: r.reachable, Watchers: len(r.watchers), Namespaces: len(*r.namespaces.Load()),
		Registrations:   r.stats.registrations.Load(),
		Deregistrations: r.stats.deregistrations.Load(),
		Expirations:     r.stats.expirations.Load(),
		Deltas:          r.ring.head,
		Snapshots:       r.stats.snapshots.Load(),
	}
}
