package restreg

import (
	"container/heap"
	"slices"
	"sync"
	"time"
)

// account is what one namespace has.
type account struct {
	namespace string
	// sweeping lets one sweep at a time end what is overdue: a token is taken to sweep.
	sweeping chan struct{}

	mu       sync.Mutex
	services map[string]*service
	ids      []string // sorted
	queue    queue    // by deadline
	joining  int      // services that are about to be there
}

func newAccount(namespace string) *account {
	return &account{namespace: namespace, sweeping: make(chan struct{}, 1), services: make(map[string]*service)}
}

// put adds a service, or replaces the one with its id; mu is held.
func (a *account) put(s *service) {
	if old := a.services[s.id]; old != nil {
		a.drop(old)
	}
	a.services[s.id] = s
	i, _ := slices.BinarySearch(a.ids, s.id)
	a.ids = slices.Insert(a.ids, i, s.id)
	heap.Push(&a.queue, s)
}

// joined gives back the place that was reserved for a service; mu is held.
func (a *account) joined(s *service) {
	if s.joining {
		a.joining--
		s.joining = false
	}
}

// drop removes a service; mu is held.
func (a *account) drop(s *service) {
	if a.services[s.id] != s {
		return
	}
	delete(a.services, s.id)
	if i, ok := slices.BinarySearch(a.ids, s.id); ok {
		a.ids = slices.Delete(a.ids, i, i+1)
	}
	if s.place >= 0 {
		heap.Remove(&a.queue, s.place)
	}
	s.ending = true
}

// move gives a service another deadline; mu is held.
func (a *account) move(s *service, deadline time.Time) {
	s.deadline = deadline
	if s.place >= 0 {
		heap.Fix(&a.queue, s.place)
	}
}

// due takes what is overdue out of the queue, in the order of the deadlines, at most so
// many.
func (a *account) due(before time.Time, most int) []*service {
	a.mu.Lock()
	defer a.mu.Unlock()
	var list []*service
	for len(a.queue) > 0 && len(list) < most && !a.queue[0].deadline.After(before) {
		s := heap.Pop(&a.queue).(*service)
		s.ending = true
		list = append(list, s)
	}
	return list
}

// overdue reports whether a service is overdue.
func (a *account) overdue(before time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.queue) > 0 && !a.queue[0].deadline.After(before)
}

// again puts services back that could not be ended.
func (a *account) again(list []*service) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range list {
		if a.services[s.id] == s && s.place < 0 {
			s.ending = false
			heap.Push(&a.queue, s)
		}
	}
}

// get returns a service that is there and stays.
func (a *account) get(id string) (*service, bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.services[id]
	return s, s != nil && !s.ending
}

// reload makes the account what rows say. What was there keeps its deadline; the rest has
// its whole timeout from now on. Links of what is gone are for the caller to end.
func (a *account) reload(d *Directory, rows map[string]*Row, now time.Time) (ends []func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, s := range a.services {
		row := rows[s.id]
		if row != nil && row.Created.Equal(s.created) && row.Revision == s.revision && !s.ending {
			continue
		}
		if s.end != nil {
			ends = append(ends, s.end)
			s.end = nil
		}
		if row == nil || !row.Created.Equal(s.created) {
			a.drop(s)
		}
	}
	for id, row := range rows {
		old := a.services[id]
		if old != nil && old.revision == row.Revision && !old.ending {
			continue
		}
		spec, err := specOf(row)
		if err != nil {
			d.log.Error("a stored service cannot be read and is left out", "namespace", a.namespace, "service", id, "error", err)
			continue
		}
		s := &service{
			id: id, keyID: row.KeyID, created: row.Created, revision: row.Revision, spec: spec, lastSeen: row.LastSeen,
			floor: row.Deadline, place: -1,
		}
		if old != nil {
			s.deadline, s.floor, s.lastSeen = old.deadline, old.floor, old.lastSeen
		}
		if least := now.Add(s.timeout()); old == nil && s.deadline.Before(least) {
			s.deadline = least
		}
		a.put(s)
	}
	return ends
}

// queue orders services by deadline.
type queue []*service

// Len implements heap.Interface.
func (q *queue) Len() int { return len(*q) }

// Less implements heap.Interface.
func (q *queue) Less(i, j int) bool {
	a, b := (*q)[i], (*q)[j]
	if c := a.deadline.Compare(b.deadline); c != 0 {
		return c < 0
	}
	return a.id < b.id
}

// Swap implements heap.Interface.
func (q *queue) Swap(i, j int) {
	list := *q
	list[i], list[j] = list[j], list[i]
	list[i].place, list[j].place = i, j
}

// Push implements heap.Interface.
func (q *queue) Push(x any) {
	s := x.(*service)
	s.place = len(*q)
	*q = append(*q, s)
}

// Pop implements heap.Interface.
func (q *queue) Pop() any {
	last := len(*q) - 1
	s := (*q)[last]
	(*q)[last] = nil
	*q = (*q)[:last]
	s.place = -1
	return s
}
