package session

import "math/bits"

// Position says which commands one end has received, and which it has sent.
type Position struct {
	// Floor: all up to here were received. Above are those received beyond it.
	Floor    uint64
	Above    []uint64
	LastSent uint64
}

// Has reports whether command seq was received.
func (p Position) Has(seq uint64) bool {
	if seq <= p.Floor {
		return true
	}
	for _, s := range p.Above {
		if s == seq {
			return true
		}
	}
	return false
}

// set is a set of numbers in which everything up to floor is contained: the shape of
// "received" and of "done". Numbers above are bits of a ring.
type set struct {
	floor uint64
	top   uint64 // the highest number contained
	ring  []uint64
}

func (s *set) has(n uint64) bool {
	if n <= s.floor {
		return true
	}
	if n > s.top {
		return false
	}
	w, b := s.at(n)
	return s.ring[w]&b != 0
}

func (s *set) at(n uint64) (word int, bit uint64) {
	i := n % uint64(len(s.ring)*64)
	return int(i / 64), 1 << (i % 64)
}

// add puts n in and moves the floor over what is now without a gap. It reports whether
// n was new.
func (s *set) add(n uint64) bool {
	if s.has(n) {
		return false
	}
	s.grow(n)
	w, b := s.at(n)
	s.ring[w] |= b
	s.top = max(s.top, n)
	for s.floor < s.top {
		w, b := s.at(s.floor + 1)
		if s.ring[w]&b == 0 {
			break
		}
		s.ring[w] &^= b
		s.floor++
	}
	return true
}

// raise puts in everything up to n.
func (s *set) raise(n uint64) {
	if n <= s.floor {
		return
	}
	if n >= s.top {
		clear(s.ring)
		s.floor, s.top = n, n
		return
	}
	for s.floor < n {
		w, b := s.at(s.floor + 1)
		s.ring[w] &^= b
		s.floor++
	}
	for s.floor < s.top {
		w, b := s.at(s.floor + 1)
		if s.ring[w]&b == 0 {
			break
		}
		s.ring[w] &^= b
		s.floor++
	}
}

// grow makes the ring large enough for n.
func (s *set) grow(n uint64) {
	need := n - s.floor + 1
	if uint64(len(s.ring)*64) >= need {
		return
	}
	words := max(4, len(s.ring))
	for uint64(words*64) < need {
		words *= 2
	}
	old := *s
	s.ring = make([]uint64, words)
	for m := old.floor + 1; m <= old.top; m++ {
		if old.has(m) {
			w, b := s.at(m)
			s.ring[w] |= b
		}
	}
}

// above lists what is contained beyond the floor.
func (s *set) above() []uint64 {
	n := 0
	for _, w := range s.ring {
		n += bits.OnesCount64(w)
	}
	if n == 0 {
		return nil
	}
	list := make([]uint64, 0, n)
	for m := s.floor + 1; m <= s.top; m++ {
		if s.has(m) {
			list = append(list, m)
		}
	}
	return list
}
