package match_test

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	gocmp "github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"telford.dev/telford/internal/catalog"
	"telford.dev/telford/internal/match"
)

func TestCompareVersions(t *testing.T) {
	t.Parallel()
	ordered := []string{"", "0.9", "1.0.0-alpha", "1.0.0-alpha.1", "1.0.0-alpha.beta", "1.0.0-rc.2", "1.0.0-rc.10", "1.0.0", "1.9.9", "1.10", "1.10.0", "v2", "10", "99999999999999999999", "beta"}
	for i, a := range ordered {
		for j, b := range ordered {
			if got, want := match.CompareVersions(a, b), cmp.Compare(i, j); cmp.Compare(got, 0) != want {
				t.Errorf("compare %q and %q: %d, want %d", a, b, got, want)
			}
		}
	}
	if match.CompareVersions("v1.2+build.7", "1.2") != 0 || match.CompareVersions("01.2", "1.02") != 0 {
		t.Error("what does not count makes a difference")
	}
}

func version() *rapid.Generator[string] {
	return rapid.OneOf(
		rapid.StringMatching(`v?[0-9]{1,3}(\.[0-9]{1,2}){0,2}(-(rc|beta)(\.[0-9])?)?(\+[a-z])?`),
		rapid.StringMatching(`[a-z0-9.+-]{0,8}`),
	)
}

// TestVersionsAreOrdered: sorting is possible whatever services call their versions.
func TestVersionsAreOrdered(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a, b, c := version().Draw(t, "a"), version().Draw(t, "b"), version().Draw(t, "c")
		ab, bc, ac := match.CompareVersions(a, b), match.CompareVersions(b, c), match.CompareVersions(a, c)
		if match.CompareVersions(a, a) != 0 || cmp.Compare(match.CompareVersions(b, a), 0) != -cmp.Compare(ab, 0) {
			t.Fatalf("%q and %q: %d and back %d", a, b, ab, match.CompareVersions(b, a))
		}
		if ab <= 0 && bc <= 0 && ac > 0 {
			t.Fatalf("%q <= %q <= %q, and yet the first is newer than the last", a, b, c)
		}
	})
}

func TestRealm(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pattern, realm string
		want           bool
	}{
		{"", "x", true},
		{"eu", "eu", true},
		{"eu", "eu.west", false},
		{"*", "", true},
		{"*", "anything", true},
		{"eu*", "eu", true},
		{"*west", "eu.west", true},
		{"*west", "eu.west.1", false},
		{"e*w*t", "eu.west", true},
		{"e*w*t", "eu.wes", false},
		{"a*a", "a", false},
		{"a*a", "aa", true},
		{"*a*b*", "xbxa", false},
		{"**", "x", true},
	} {
		if got := match.Realm(c.pattern, c.realm); got != c.want {
			t.Errorf("%q matches %q: %v", c.pattern, c.realm, got)
		}
	}
	if match.RealmOf(&catalog.Declaration{}) != match.DefaultRealm || match.RealmOf(&catalog.Declaration{Realm: "eu"}) != "eu" {
		t.Error("the realm of a declaration")
	}
}

// TestRealmAgainstRegexp compares with the regular expression that a pattern stands for.
func TestRealmAgainstRegexp(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		pattern := rapid.StringMatching(`[ab*.]{1,8}`).Draw(t, "pattern")
		realm := rapid.StringMatching(`[ab.]{0,10}`).Draw(t, "realm")
		parts := strings.Split(pattern, "*")
		for i := range parts {
			parts[i] = regexp.QuoteMeta(parts[i])
		}
		want := regexp.MustCompile("^" + strings.Join(parts, ".*") + "$").MatchString(realm)
		if got := match.Realm(pattern, realm); got != want {
			t.Fatalf("%q matches %q: %v, want %v", pattern, realm, got, want)
		}
	})
}

// TestBareNames compares with a look at every name.
func TestBareNames(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		names := rapid.SliceOfN(rapid.SampledFrom([]string{"a", "b", "s/a", "t/a", "s/b", "s.t/b", "u/v/a", "u/"}), 0, 8).Draw(t, "names")
		var n match.Names
		for _, name := range names {
			n.Add(name)
		}
		ask := rapid.SampledFrom([]string{"a", "b", "v", "", "s/a"}).Draw(t, "ask")
		var want []string
		for _, name := range names {
			if strings.HasSuffix(name, "/"+ask) && !strings.Contains(ask, "/") {
				want = append(want, name)
			}
		}
		slices.Sort(want)
		want = slices.Compact(want)
		full, several := n.Bare(ask)
		switch {
		case len(want) == 1 && (full != want[0] || several != nil),
			len(want) > 1 && (full != "" || gocmp.Diff(want, several) != ""),
			len(want) == 0 && (full != "" || several != nil):
			t.Fatalf("%q among %q: %q, %q", ask, names, full, several)
		}
	})
}

// instance is a candidate of the tests.
type instance struct {
	d     catalog.Declaration
	ready bool
	c     string
	id    string
}

func (i *instance) declaration() *catalog.Declaration { return &i.d }
func (i *instance) isReady() bool                     { return i.ready }
func (i *instance) speaker() match.Speaker {
	return match.Speaker{ID: i.id, Version: i.d.Version, Contract: i.c}
}

func TestVersion(t *testing.T) {
	t.Parallel()
	in := func(id, version string, ready bool, compatible ...string) *instance {
		return &instance{id: id, ready: ready, d: catalog.Declaration{Version: version, CompatibleVersions: compatible}}
	}
	for name, c := range map[string]struct {
		all  []*instance
		want string
		ids  []string
	}{
		"none wanted":              {[]*instance{in("a", "1", true), in("b", "2", true)}, "", []string{"a", "b"}},
		"exact":                    {[]*instance{in("a", "1", true), in("b", "2", true, "1")}, "1", []string{"a"}},
		"compatible":               {[]*instance{in("b", "2", true, "0", "1"), in("c", "3", true)}, "1", []string{"b"}},
		"exact is not ready":       {[]*instance{in("a", "1", false), in("b", "2", true, "1")}, "1", []string{"b"}},
		"nobody is ready":          {[]*instance{in("a", "1", false), in("b", "2", false, "1")}, "1", []string{"a"}},
		"one of the exact":         {[]*instance{in("a", "1", false), in("b", "1", true), in("c", "2", true, "1")}, "1", []string{"a", "b"}},
		"compatible and not ready": {[]*instance{in("b", "2", false, "1")}, "1", []string{"b"}},
		"nobody":                   {[]*instance{in("c", "3", true)}, "1", nil},
		"no instance":              {nil, "1", nil},
	} {
		var ids []string
		for _, i := range match.Version(c.all, (*instance).declaration, c.want, (*instance).isReady) {
			ids = append(ids, i.id)
		}
		if d := gocmp.Diff(c.ids, ids); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

func instances(t *rapid.T) []*instance {
	var all []*instance
	for i := range rapid.IntRange(0, 12).Draw(t, "instances") {
		all = append(all, &instance{
			id: "in" + strconv.Itoa(i), ready: rapid.IntRange(0, 3).Draw(t, "ready") > 0,
			c: rapid.SampledFrom([]string{"", "pb:1", "pb:2", "js:1", "js:2"}).Draw(t, "contract"),
			d: catalog.Declaration{Version: rapid.SampledFrom([]string{"", "1.9", "1.10", "2.0-rc"}).Draw(t, "version")},
		})
	}
	return all
}

// TestShapes: every instance is in exactly one shape, with those of its contract, and the
// order does not depend on that of the instances.
func TestShapes(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		all := instances(t)
		shapes := match.Shapes(all, (*instance).speaker)
		order := func(shapes []match.Shape[*instance]) (contracts []string) {
			for _, s := range shapes {
				contracts = append(contracts, s.Contract)
			}
			return contracts
		}
		count := 0
		for k, s := range shapes {
			count += len(s.Members)
			for _, m := range s.Members {
				if m.c != s.Contract {
					t.Fatalf("%s of contract %q is in the shape of %q", m.id, m.c, s.Contract)
				}
				if match.CompareVersions(m.d.Version, s.Newest.d.Version) > 0 {
					t.Fatalf("%s is newer than the newest", m.id)
				}
			}
			if k > 0 && match.CompareVersions(s.Newest.d.Version, shapes[k-1].Newest.d.Version) > 0 {
				t.Fatalf("shape %d is newer than the one before", k)
			}
		}
		if contracts := order(shapes); count != len(all) || len(slices.Compact(slices.Sorted(slices.Values(contracts)))) != len(contracts) {
			t.Fatalf("%d instances are %d members of %q", len(all), count, contracts)
		}
		shuffled := rapid.Permutation(all).Draw(t, "shuffled")
		if d := gocmp.Diff(order(shapes), order(match.Shapes(shuffled, (*instance).speaker))); d != "" {
			t.Fatalf("another order of instances:\n%s", d)
		}
	})
}

// TestChoose reads the rules one after another.
func TestChoose(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		shapes := match.Shapes(instances(t), (*instance).speaker)
		w := match.Wish{
			Contract: rapid.SampledFrom([]string{"", "pb:1", "pb:2", "pb:9", "js:1", "xx:1"}).Draw(t, "wish"),
			Lenient:  rapid.Bool().Draw(t, "lenient"),
		}
		at := match.Choose(shapes, w, (*instance).isReady)
		if at >= 0 && !slices.ContainsFunc(shapes[at].Members, (*instance).isReady) {
			t.Fatalf("nobody of shape %d is ready", at)
		}
		newest := slices.IndexFunc(shapes, func(s match.Shape[*instance]) bool { return slices.ContainsFunc(s.Members, (*instance).isReady) })
		own := slices.IndexFunc(shapes, func(s match.Shape[*instance]) bool { return s.Contract == w.Contract })
		kin := slices.ContainsFunc(shapes, func(s match.Shape[*instance]) bool {
			return w.Contract != "" && s.Contract != "" && s.Contract[:2] == w.Contract[:2]
		})
		want := newest
		switch {
		case w.Contract != "" && own >= 0 && slices.ContainsFunc(shapes[own].Members, (*instance).isReady):
			want = own
		case w.Contract != "" && kin && !w.Lenient:
			want = -1
		}
		if at != want {
			t.Fatalf("%+v is given shape %d, want %d", w, at, want)
		}
	})
}
