package registry

import (
	"cmp"
	"slices"

	"telford.dev/telford/internal/catalog"
)

// defaultUpdate is how many bytes of a wire one update takes at most, unless one
// instance alone takes more: gRPC clients take 4 MiB unless they are told otherwise.
const defaultUpdate = 3 << 20

// stoneSize is the most that a removal takes.
const stoneSize = 3*(catalog.MaxName+4) + 64

// news is what an update is made of: per instance the latest word.
type news map[string]word

type word struct {
	n     uint64 // the delta that it is from
	view  view
	stone catalog.Tombstone
}

// collect returns what w is to be told next; nil when there is nothing.
func (w *Watcher) collect() *catalog.Update {
	r := w.r
	r.mu.RLock()
	defer r.mu.RUnlock()
	if w.closed {
		return nil
	}
	if len(w.parts) > 0 {
		u := w.parts[0]
		w.parts = w.parts[1:]
		return u
	}
	found := make(news)
	for id, stone := range w.farewell {
		found[id] = word{stone: stone}
	}
	if !w.snapshot && !w.deltas(found) {
		w.snapshot = true
	}
	snapshot := w.snapshot
	if snapshot {
		found = make(news)
		w.whole(found)
		r.stats.snapshots.Add(1)
	}
	w.snapshot, w.farewell = false, nil
	clear(w.added)
	w.cursor = r.ring.head
	if len(found) == 0 && !snapshot {
		return nil
	}
	parts := found.split(snapshot, r.revision(), r.maxUpdate)
	w.parts = parts[1:]
	return parts[0]
}

// deltas collects what has changed since the position of w. It reports false when that
// is no longer known.
func (w *Watcher) deltas(found news) bool {
	r := w.r
	if w.all {
		return r.ring.sinceNS(w.ns, w.cursor, found.add)
	}
	for name, s := range w.services {
		if w.added[name] == nil && !r.ring.since(s, w.cursor, found.add) {
			return false
		}
	}
	for _, s := range w.added {
		found.members(s, r.ring.head)
	}
	return true
}

// whole collects everything that w watches.
func (w *Watcher) whole(found news) {
	services := w.services
	if w.all {
		services = w.ns.services
	}
	for _, s := range services {
		found.members(s, w.r.ring.head)
	}
}

// add takes a delta in unless a later one of the same instance is there. An instance
// may have changed the service, so that deltas of several chains meet here.
func (f news) add(d *delta) {
	if have, ok := f[d.id]; !ok || have.n < d.n {
		f[d.id] = word{n: d.n, view: d.view, stone: d.stone}
	}
}

// members takes the visible instances of a service in, as they are now.
func (f news) members(s *service, n uint64) {
	for _, e := range s.members {
		if visible(e.inst) {
			f[e.id] = word{n: n, view: e.view}
		}
	}
}

// split makes updates of at most so many bytes of what was found. Only the last carries the
// revision.
func (f news) split(snapshot bool, rev catalog.Revision, most int) []*catalog.Update {
	u := &catalog.Update{Snapshot: snapshot}
	parts := []*catalog.Update{u}
	size := 0
	room := func(n int) *catalog.Update {
		if size > 0 && size+n > most {
			u, size = &catalog.Update{}, 0
			parts = append(parts, u)
		}
		size += n
		return u
	}
	var upserts []view
	var removals []catalog.Tombstone
	for _, w := range f {
		switch {
		case w.view.inst != nil:
			upserts = append(upserts, w.view)
		case !snapshot:
			removals = append(removals, w.stone)
		}
	}
	slices.SortFunc(removals, func(a, b catalog.Tombstone) int {
		return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.ID, b.ID))
	})
	slices.SortFunc(upserts, func(a, b view) int {
		return cmp.Or(cmp.Compare(a.inst.Declaration.Service, b.inst.Declaration.Service), cmp.Compare(a.inst.ID, b.inst.ID))
	})
	for _, stone := range removals {
		u := room(stoneSize)
		u.Removals = append(u.Removals, stone)
	}
	for _, v := range upserts {
		u := room(v.size)
		u.Upserts = append(u.Upserts, v.inst)
	}
	u.Revision = rev
	return parts
}
