package policy

import (
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestMatchTopic(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		pattern, topic string
		want           bool
	}{
		{"", "a.b", true},
		{"a", "a", true},
		{"a", "a.b", false},
		{"a.b", "a", false},
		{"payment.*", "payment.charged", true},
		{"payment.*", "payment", false},
		{"payment.*", "payment.a.b", false},
		{"payment.#", "payment", true},
		{"payment.#", "payment.a.b", true},
		{"payment.#", "paymentx", false},
		{"order.*.created", "order.x.created", true},
		{"order.*.created", "order.created", false},
		{"order.*.created", "order.x.y.created", false},
		{"#", "a", true},
		{"#.created", "created", true},
		{"#.a.#", "b.c", false},
		{"#.a.#.b", "a.a.c.b", true},
		{"#.#", "a", true},
	} {
		if got := MatchTopic(test.pattern, test.topic); got != test.want {
			t.Errorf("%q and %q: %v", test.pattern, test.topic, got)
		}
	}
}

func TestContains(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		outer, inner string
		want         bool
	}{
		{"orders.*", "orders.created", true},
		{"orders.*", "orders.a.b", false},
		{"orders.*", "orders.#", false},
		{"orders.*", "payments.created", false},
		{"orders.#", "orders.*", true},
		{"orders.#", "orders", true},
		{"orders.#", "#", false},
		{"", "#", true},
		{"#", "", true},
		{"*.#", "", true},
		{"#.*", "*.#", true},
		{"#.*.*", "*.#", false},
		{"*.#.a", "#.b.a", true},
		{"#.a.#", "b.a.*", true},
	} {
		if got := Contains(test.outer, test.inner); got != test.want {
			t.Errorf("%q in %q: %v", test.inner, test.outer, got)
		}
	}
}

// pattern draws patterns of up to n words over two words and the wildcards.
func pattern(n int) *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		words := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "*", "#"}), 1, n).Draw(t, "words")
		return strings.Join(words, ".")
	})
}

// topics returns all topics of up to n words over three words, of which patterns name
// only two.
func topics(n int) []string {
	var out, last []string
	last = []string{""}
	for range n {
		var next []string
		for _, t := range last {
			for _, w := range []string{"a", "b", "z"} {
				next = append(next, strings.TrimPrefix(t+"."+w, "."))
			}
		}
		out, last = append(out, next...), next
	}
	return out
}

// matches is MatchTopic written from its definition.
func matches(p, t []string) bool {
	switch {
	case len(p) == 0:
		return len(t) == 0
	case p[0] == "#":
		return matches(p[1:], t) || len(t) > 0 && matches(p, t[1:])
	}
	return len(t) > 0 && (p[0] == "*" || p[0] == t[0]) && matches(p[1:], t[1:])
}

func TestRelationsAgreeWithTheirDefinitions(t *testing.T) {
	t.Parallel()
	all := topics(6)
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := pattern(3).Draw(t, "a"), pattern(3).Draw(t, "b"), pattern(3).Draw(t, "c")
		within, meet, three := true, false, false
		for _, topic := range all {
			words := strings.Split(topic, ".")
			inA, inB := matches(strings.Split(a, "."), words), matches(strings.Split(b, "."), words)
			if MatchTopic(a, topic) != inA {
				t.Fatalf("%q and %q: not %v", a, topic, inA)
			}
			within = within && (!inB || inA)
			meet = meet || inA && inB
			three = three || inA && inB && matches(strings.Split(c, "."), words)
		}
		if got := Contains(a, b); got != within {
			t.Errorf("%q in %q: %v", b, a, got)
		}
		if got := Intersects(a, b); got != meet {
			t.Errorf("%q meets %q: %v", a, b, got)
		}
		if got := Intersects(a, b, c); got != three {
			t.Errorf("%q meets %q and %q: %v", a, b, c, got)
		}
	})
}

// inAutomaton decides containment by following both patterns word by word, with every
// place where the outer one may be: slow, and plainly right.
func inAutomaton(outer, inner []string) bool {
	open := func(p []string, at []int) []int {
		for i := 0; i < len(at); i++ {
			if at[i] < len(p) && p[at[i]] == "#" && !slices.Contains(at, at[i]+1) {
				at = append(at, at[i]+1)
			}
		}
		slices.Sort(at)
		return at
	}
	step := func(p []string, at []int, word string) []int {
		var next []int
		for _, i := range at {
			to := -1
			switch {
			case i == len(p):
			case p[i] == "#":
				to = i
			case p[i] == "*" || p[i] == word:
				to = i + 1
			}
			if to >= 0 && !slices.Contains(next, to) {
				next = append(next, to)
			}
		}
		return open(p, next)
	}
	type state struct{ in, out string }
	key := func(at []int) string {
		var b strings.Builder
		for _, i := range at {
			b.WriteByte(byte('0' + i))
		}
		return b.String()
	}
	seen := make(map[state]bool)
	var walk func(in, out []int, words int) bool
	walk = func(in, out []int, words int) bool {
		if len(in) == 0 {
			return true
		}
		s := state{key(in), key(out)}
		if words > 0 && seen[s] {
			return true
		}
		seen[s] = words > 0
		if words > 0 && slices.Contains(in, len(inner)) && !slices.Contains(out, len(outer)) {
			return false
		}
		for _, w := range []string{"a", "b", "z"} {
			if !walk(step(inner, in, w), step(outer, out, w), words+1) {
				return false
			}
		}
		return true
	}
	return walk(open(inner, []int{0}), open(outer, []int{0}), 0)
}

func TestContainmentOfLongPatterns(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		outer, inner := pattern(9).Draw(t, "outer"), pattern(9).Draw(t, "inner")
		want := inAutomaton(strings.Split(outer, "."), strings.Split(inner, "."))
		if got := Contains(outer, inner); got != want {
			t.Errorf("%q in %q: %v", inner, outer, got)
		}
	})
}

func TestGlobs(t *testing.T) {
	t.Parallel()
	names := func(n int) []string {
		out, last := []string{""}, []string{""}
		for range n {
			var next []string
			for _, s := range last {
				next = append(next, s+"a", s+"b")
			}
			out, last = append(out, next...), next
		}
		return out
	}(6)
	var match func(p, s string) bool
	match = func(p, s string) bool {
		switch {
		case p == "":
			return s == ""
		case p[0] == '*':
			return match(p[1:], s) || s != "" && match(p, s[1:])
		}
		return s != "" && p[0] == s[0] && match(p[1:], s[1:])
	}
	glob := rapid.StringOfN(rapid.RuneFrom([]rune("ab*")), 1, 3, -1)
	rapid.Check(t, func(t *rapid.T) {
		a, b := glob.Draw(t, "a"), glob.Draw(t, "b")
		meet := false
		for _, s := range names {
			if MatchGlob(a, s) != match(a, s) {
				t.Fatalf("%q and %q: not %v", a, s, match(a, s))
			}
			meet = meet || match(a, s) && match(b, s)
		}
		if got := globsMeet(a, b); got != meet {
			t.Errorf("%q meets %q: %v", a, b, got)
		}
	})
	if !MatchGlob("", "x") || !globsMeet("", "x") || !matchMethod("Charge", "shop.v1.Payments/Charge") || matchMethod("Payments/*", "shop.v1.Payments/Charge") {
		t.Error("what is empty means any, and a bare name the last segment")
	}
}

func FuzzPattern(f *testing.F) {
	for _, s := range []string{"a.b", "#", "*.a", "", ".", "a..b", "A", "a.#b", strings.Repeat("#.", 127) + "a"} {
		f.Add(s, s)
	}
	f.Fuzz(func(t *testing.T, a, b string) {
		if CheckPattern(a) != nil || CheckPattern(b) != nil {
			return
		}
		if CheckTopic(a) == nil {
			if !MatchTopic(a, a) || MatchTopic(b, a) != Contains(b, a) || Contains(b, a) != Intersects(b, a) {
				t.Errorf("topic %q and pattern %q do not fit together", a, b)
			}
		}
		if !Contains(a, a) || !Intersects(a, a) {
			t.Errorf("%q is not within itself", a)
		}
		if Contains(a, b) && !Intersects(a, b) {
			t.Errorf("%q is within %q and does not meet it", b, a)
		}
		if Intersects(a, b) != Intersects(b, a) {
			t.Errorf("%q and %q meet one way only", a, b)
		}
		if Contains(a, b) && Contains(b, a) && Intersects(a, "x.y.z") != Intersects(b, "x.y.z") {
			t.Errorf("%q and %q are the same and are not", a, b)
		}
	})
}
