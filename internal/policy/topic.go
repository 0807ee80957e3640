package policy

import "strings"

// The wildcards among the words of a pattern of topics.
const (
	one  = "*" // exactly one word
	many = "#" // any number of words, also none
)

// MatchTopic reports whether a pattern matches a topic. The empty pattern matches every
// topic.
func MatchTopic(pattern, topic string) bool {
	if pattern == "" {
		return true
	}
	return matchWords(strings.Split(pattern, "."), strings.Split(topic, "."))
}

func matchWords(p, t []string) bool {
	i, j := 0, 0
	hash, mark := -1, 0 // where to go on after the last #, and what it has taken in
	for j < len(t) {
		switch {
		case i < len(p) && p[i] == many:
			hash, mark = i+1, j
			i++
		case i < len(p) && (p[i] == one || p[i] == t[j]):
			i++
			j++
		case hash >= 0:
			mark++
			i, j = hash, mark
		default:
			return false
		}
	}
	for i < len(p) && p[i] == many {
		i++
	}
	return i == len(p)
}

// Intersects reports whether some topic matches all of the patterns. The empty pattern
// matches every topic.
func Intersects(patterns ...string) bool {
	words := make([][]string, 0, len(patterns))
	for _, p := range patterns {
		if p != "" {
			words = append(words, strings.Split(p, "."))
		}
	}
	m := meeting{words: words, seen: make(map[string]bool)}
	return m.meet(make([]int, len(words)))
}

// meeting searches for a topic that matches several patterns, word by word.
type meeting struct {
	words [][]string
	seen  map[string]bool
}

// meet reports whether the rests of the patterns, from the places at, have a topic in
// common.
func (m *meeting) meet(at []int) bool {
	key := placesKey(at)
	if m.seen[key] {
		return false
	}
	m.seen[key] = true
	ended := true
	for k, i := range at {
		if i == len(m.words[k]) {
			continue
		}
		ended = false
		if m.words[k][i] == many && m.meet(step(at, k)) {
			return true // it takes in nothing more
		}
	}
	if ended {
		return true
	}
	// One more word, the same for all.
	next, word := make([]int, len(at)), ""
	for k, i := range at {
		if i == len(m.words[k]) {
			return false
		}
		switch w := m.words[k][i]; w {
		case many:
			next[k] = i
			continue
		case one:
		default:
			if word != "" && word != w {
				return false
			}
			word = w
		}
		next[k] = i + 1
	}
	return m.meet(next)
}

func step(at []int, k int) []int {
	next := append([]int(nil), at...)
	next[k]++
	return next
}

func placesKey(at []int) string {
	b := make([]byte, 0, 2*len(at))
	for _, i := range at {
		b = append(b, byte(i), byte(i>>8))
	}
	return string(b)
}

// Contains reports whether every topic that matches inner matches outer too. The empty
// pattern matches every topic.
func Contains(outer, inner string) bool {
	if outer == "" {
		return true
	}
	if inner == "" {
		inner = many
	}
	c := containment{outer: pieces(strings.Split(outer, ".")), inner: tokens(strings.Split(inner, "."))}
	c.done = make([]bool, (len(c.outer)+1)*(len(c.inner)+1))
	return c.covers(0, 0)
}

// piece is a word of a pattern, or a run of wildcards: at least so many words, and more
// when open.
type piece struct {
	word  string
	words int
	open  bool
}

func pieces(words []string) []piece {
	var out []piece
	for _, w := range words {
		if w != one && w != many {
			out = append(out, piece{word: w})
			continue
		}
		if n := len(out); n == 0 || out[n-1].word != "" {
			out = append(out, piece{})
		}
		run := &out[len(out)-1]
		if w == one {
			run.words++
		} else {
			run.open = true
		}
	}
	return out
}

// tokens puts the # of each run of wildcards behind its *, and only one of them. A
// pattern of nothing but # has a word too, as every topic has one.
func tokens(words []string) []string {
	var out []string
	for _, p := range pieces(words) {
		if p.word != "" {
			out = append(out, p.word)
			continue
		}
		for range p.words {
			out = append(out, one)
		}
		if p.open {
			out = append(out, many)
		}
	}
	if len(out) == 1 && out[0] == many {
		return []string{one, many}
	}
	return out
}

// containment matches the tokens of the inner pattern against the pieces of the outer
// one, as if they were words: * is one that only a wildcard takes in, # any number that
// only an open run of wildcards takes in.
type containment struct {
	outer []piece
	inner []string
	done  []bool // what was tried in vain
}

func (c *containment) covers(o, i int) bool {
	if o == len(c.outer) {
		return i == len(c.inner)
	}
	at := o*(len(c.inner)+1) + i
	if c.done[at] {
		return false
	}
	c.done[at] = true
	p := c.outer[o]
	if p.word != "" {
		return i < len(c.inner) && c.inner[i] == p.word && c.covers(o+1, i+1)
	}
	for n := 0; ; i++ {
		if n >= p.words && (p.open || n == p.words) && c.covers(o+1, i) {
			return true
		}
		switch {
		case i == len(c.inner) || !p.open && (n == p.words || c.inner[i] == many):
			return false
		case c.inner[i] != many:
			n++
		}
	}
}
