// Package wheel owns a hierarchical timing wheel: very many deadlines, each set and
// dropped in constant time. It knows ticks, not time, starts no goroutines and locks
// nothing: its owner turns it and guards it.
package wheel

const (
	slotBits = 6
	slots    = 1 << slotBits
	levels   = 5
	// span is how many ticks ahead the wheel can see. What lies further waits in the
	// last slot and is put in again when that comes round.
	span = 1 << (slotBits * levels)
)

// Wheel holds timers of values of type T. The zero value is not usable: see New.
type Wheel[T any] struct {
	now  int64
	n    int
	ring [levels][slots]list[T]
}

// Timer is one deadline. The zero value is idle. A Timer belongs to one Wheel for as
// long as it is set, and must not be copied then.
type Timer[T any] struct {
	Value T

	at         int64
	list       *list[T]
	prev, next *Timer[T]
}

// list is doubly linked, so that any timer leaves in constant time.
type list[T any] struct{ head *Timer[T] }

func (l *list[T]) push(t *Timer[T]) {
	t.list, t.prev, t.next = l, nil, l.head
	if l.head != nil {
		l.head.prev = t
	}
	l.head = t
}

func (l *list[T]) drop(t *Timer[T]) {
	if t.prev != nil {
		t.prev.next = t.next
	} else {
		l.head = t.next
	}
	if t.next != nil {
		t.next.prev = t.prev
	}
	t.list, t.prev, t.next = nil, nil, nil
}

// New returns an empty wheel that stands at tick now.
func New[T any](now int64) *Wheel[T] { return &Wheel[T]{now: now} }

// Len returns the number of timers that are set.
func (w *Wheel[T]) Len() int { return w.n }

// Set makes t due at tick at, in place of when it was due before. A tick that has
// passed means the next one.
func (w *Wheel[T]) Set(t *Timer[T], at int64) {
	w.Drop(t)
	t.at = max(at, w.now+1)
	w.n++
	w.place(t)
}

// Drop makes t idle and reports whether it was set.
func (w *Wheel[T]) Drop(t *Timer[T]) bool {
	if t.list == nil {
		return false
	}
	t.list.drop(t)
	w.n--
	return true
}

// place puts a timer that is due after now into the slot of the lowest level that
// reaches so far.
func (w *Wheel[T]) place(t *Timer[T]) {
	at := min(t.at, w.now+span-1)
	level := 0
	for d := at ^ w.now; d >= slots && level < levels-1; d >>= slotBits {
		level++
	}
	w.ring[level][at>>(slotBits*level)&(slots-1)].push(t)
}

// Advance turns the wheel to tick now and calls due once for each timer that became
// due on the way, in the order of ticks. The timer is idle by then: due may set it
// again, and may set and drop others; it must not call Advance. Turning back does
// nothing.
func (w *Wheel[T]) Advance(now int64, due func(*Timer[T])) {
	for w.now < now {
		if w.n == 0 {
			w.now = now
			return
		}
		w.now++
		for level := 1; level < levels && w.now&(1<<(slotBits*level)-1) == 0; level++ {
			w.cascade(level)
		}
		for slot := &w.ring[0][w.now&(slots-1)]; slot.head != nil; {
			t := slot.head
			slot.drop(t)
			w.n--
			due(t)
		}
	}
}

// cascade moves the timers of the slot that a level has just come to further down.
func (w *Wheel[T]) cascade(level int) {
	slot := &w.ring[level][w.now>>(slotBits*level)&(slots-1)]
	t := slot.head
	slot.head = nil
	for t != nil {
		next := t.next
		t.list, t.prev, t.next = nil, nil, nil
		w.place(t)
		t = next
	}
}
