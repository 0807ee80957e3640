package limit

// line is who waits, in order. All of its methods cost little however long it is: places
// are counted by the block.
type line struct{ head, tail *block }

// block is a part of a line.
type block struct {
	next, prev *block
	slots      [blockSize]*waiter
	from, to   int // slots before from are empty, those from to on are not yet used
	live       int
}

const blockSize = 64

// waiter is one place in a line.
type waiter struct {
	turn  chan struct{} // closed when its turn has come
	at    *block        // nil once it has left the line
	index int
}

// push adds a waiter at the end.
func (l *line) push() *waiter {
	b := l.tail
	if b == nil || b.to == blockSize {
		b = &block{prev: l.tail}
		if l.tail == nil {
			l.head = b
		} else {
			l.tail.next = b
		}
		l.tail = b
	}
	w := &waiter{turn: make(chan struct{}), at: b, index: b.to}
	b.slots[b.to] = w
	b.to++
	b.live++
	return w
}

// pop takes the first waiter out; nil when nobody waits.
func (l *line) pop() *waiter {
	b := l.head
	if b == nil || b.live == 0 {
		return nil
	}
	for b.slots[b.from] == nil {
		b.from++
	}
	w := b.slots[b.from]
	l.take(w)
	return w
}

// place says how far w is from its turn: 1 is next.
func (l *line) place(w *waiter) int {
	n := 1
	for b := l.head; b != w.at; b = b.next {
		n += b.live
	}
	for _, other := range w.at.slots[w.at.from:w.index] {
		if other != nil {
			n++
		}
	}
	return n
}

// take takes w out, wherever it stands.
func (l *line) take(w *waiter) {
	b := w.at
	w.at = nil
	b.slots[w.index] = nil
	if b.live--; b.live > 0 {
		return
	}
	if b == l.tail && b.to < blockSize {
		b.from, b.to = 0, 0
		if b.prev == nil {
			return // the only one is kept for the next who waits
		}
	}
	if b.prev == nil {
		l.head = b.next
	} else {
		b.prev.next = b.next
	}
	if b.next == nil {
		l.tail = b.prev
	} else {
		b.next.prev = b.prev
	}
}
