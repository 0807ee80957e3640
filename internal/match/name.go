package match

import (
	"slices"
	"strings"
)

// Names finds methods by the last segment of their names. The zero value holds none.
type Names struct{ bare map[string][]string }

// Add adds the whole name of a method; again does nothing.
func (n *Names) Add(full string) {
	i := strings.LastIndexByte(full, '/')
	if i < 0 {
		return
	}
	last := full[i+1:]
	at, there := slices.BinarySearch(n.bare[last], full)
	if there {
		return
	}
	if n.bare == nil {
		n.bare = make(map[string][]string)
	}
	n.bare[last] = slices.Insert(n.bare[last], at, full)
}

// Bare returns the whole name of the only method that ends in the segment, or, where
// there are several, all of them in order and "". Neither means that there is none. A
// method whose whole name is asked for comes before any that only ends like it: look
// for that one first.
func (n *Names) Bare(last string) (full string, several []string) {
	switch found := n.bare[last]; len(found) {
	case 0:
		return "", nil
	case 1:
		return found[0], nil
	default:
		return "", found
	}
}
