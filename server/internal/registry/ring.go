package registry

import "telford.dev/telford/internal/catalog"

// delta is one change that watchers are told of: an instance as it is now, or its
// removal.
type delta struct {
	n       uint64
	service *service
	id      string
	view    view              // of an upsert
	stone   catalog.Tombstone // of a removal
	// before and beforeNS are the numbers of the previous deltas of the same service and
	// the same namespace.
	before, beforeNS uint64
}

// ring keeps the latest deltas, numbered from 1 without gaps.
type ring struct {
	slots []delta
	head  uint64 // the latest; 0 before the first
}

func (r *ring) init(size int) { r.slots = make([]delta, size) }

// oldest is the number of the oldest delta that is kept, or the next one if there is
// none yet.
func (r *ring) oldest() uint64 {
	if size := uint64(len(r.slots)); r.head > size {
		return r.head - size + 1
	}
	return 1
}

func (r *ring) at(n uint64) *delta { return &r.slots[n%uint64(len(r.slots))] }

// add appends a delta and returns the service of the one that fell out, if any.
func (r *ring) add(d delta) (out *service) {
	r.head++
	slot := r.at(r.head)
	out = slot.service
	d.n = r.head
	d.before, d.beforeNS = d.service.last, d.service.ns.last
	*slot = d
	d.service.last = d.n
	d.service.ns.last = d.n
	return out
}

// since calls f for the deltas of s after n, latest first. It reports whether it could
// reach back so far.
func (r *ring) since(s *service, n uint64, f func(*delta)) bool {
	return r.back(s.last, n, func(d *delta) uint64 { return d.before }, f)
}

// sinceNS is since for all services of a namespace.
func (r *ring) sinceNS(ns *namespace, n uint64, f func(*delta)) bool {
	return r.back(ns.last, n, func(d *delta) uint64 { return d.beforeNS }, f)
}

func (r *ring) back(last, n uint64, before func(*delta) uint64, f func(*delta)) bool {
	oldest := r.oldest()
	for last > n {
		if last < oldest {
			return false
		}
		d := r.at(last)
		f(d)
		last = before(d)
	}
	return true
}
